"""The daemon: wires the rooms together, speaks HTTP, translates errors. Nobody imports this room but the keeper.

`main` is the composition root, `server` turns a connection into exchanges, `router` finds the handler,
`status` is the only table from errors to HTTP numbers, `handlers/` has one module a noun.
"""
