"""The Engine API as values: routes, what requests mean, how answers look. No effects.

Daemon and client agree here. `fields` turns JSON objects into frozen dataclasses and back; every
field keeps docker's own name in its metadata, so one table is parser, printer and documentation.
"""
