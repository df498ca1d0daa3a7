"""One shim a container: its pipes or pty, its log, its exit file, its control socket.

A shim is a fork of the keeper, single-threaded, never inside the container's pid namespace, and
needs nobody: it is double-forked, writes the exit file (the truth) itself, and serves whichever
daemon connects. Nothing here waits for a reader: a full queue stops the reading of one stream.
"""
