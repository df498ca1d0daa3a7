"""The life of containers, from a record on disk to an exit code that somebody waits for.

`records` is what exists (container.json: durable, state.json: what is running, may be lost to a power
cut), `container` the same alive in memory, `assemble` the pure step from record to OCI spec, `shims`
the lines to keeper and shims (it knows their protocols and nothing else of them), and one module a
verb. State changes happen in trio's one thread between two awaits, so they need no lock; `start`
and `remove` hold the container's own lock, because they await in the middle.
"""
