"""The docker-compatible command line: what the person typed, said to the daemon in Engine API
words.

One command runs per process, so start-up is everything: the hot path (run, exec, ps, create, start,
rm, version) imports only os, sys, _socket, _signal, select, fcntl, termios and this project's own
cheap modules (a test measures it). `catalog` is the table of all commands; `main` picks one and
imports its module from `commands/`; `create_body` is the pure function from flags to JSON;
`connection` speaks HTTP, `hijack` moves the streams; `birth` starts a daemon where none runs.

Docker's texts and exit codes are part of the interface: 125 for what failed before the container
ran, 126/127 for a command that cannot be executed, else the process's own.
"""
