"""Every process of dockpy starts here and becomes what its first argument says: a role, else the client.

Nothing is imported but the room that is asked for: the client's start is the product's speed.
"""

from __future__ import annotations

import os
import sys

from dockpy import reexec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ROLE = "--role="


def main() -> NoReturn:
    """Ends the process by _exit: tearing the interpreter down takes a fifth of a client's life and frees nothing."""
    fill_standard()
    arguments = sys.argv[1:]
    try:
        if arguments and arguments[0].startswith(ROLE):
            status = play(arguments[0][len(ROLE) :], arguments[1:])
        else:
            from dockpy.client.main import main as client

            status = client(arguments)
    except KeyboardInterrupt:
        status = 130
    except SystemExit as end:
        status = told(end)
    os._exit(flushed(status))


def fill_standard() -> None:
    """Nothing of ours becomes 0, 1 or 2, and so a container's, when the caller has closed them."""
    fd = 0
    while fd < 3:
        fd = os.open("/dev/null", os.O_RDONLY)  # reads end, and writes fail as before
    os.close(fd)


def console() -> NoReturn:
    """The `dockpy` command of an installed package."""
    main()


def play(role: str, arguments: list[str]) -> int:
    reexec.hold_copy()
    if role == "keeper":
        from dockpy.keeper.main import main as keeper

        return keeper(arguments)
    if role == "reset":
        from dockpy.daemon.reset import main as reset

        return reset(arguments)
    if role == "registry":
        from dockpy.registry.main import main as registry

        return registry(arguments)
    print(f"dockpy: no role is named {role!r}", file=sys.stderr)
    return 125


def told(end: SystemExit) -> int:
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
        return 1
    return end.code or 0


def flushed(status: int) -> int:
    """`status`, or 1 when a successful command could not write all it had to say (a full disk, a closed pipe)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            status = status or 1
    return status


if __name__ == "__main__":
    main()
