"""One module a command, or a handful of alike ones; `client.main` imports the one it needs.

Each function takes (cli, options, arguments), does one thing and returns the exit code.
"""
