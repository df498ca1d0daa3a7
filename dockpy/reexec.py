"""How dockpy starts another process of itself: the only place that knows where this code was loaded from.

Three places: a copy unpacked from the file (dockpy.unpack), the file itself where no copy could be made, and a source
tree or installed package. Never through the file's preamble: its search for an interpreter is over.
"""

from __future__ import annotations

import os
import sys

MAIN = "dockpy-main.py"  # beside the packages of an unpacked copy
SOURCE = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); from dockpy.__main__ import main; main()"


def place() -> str:
    """The folder (or the archive's inner folder) that holds the dockpy package."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def argv(role: str, *args: str) -> list[str]:
    """The command line that makes a new process of ours play `role`."""
    return [sys.executable, "-IS", *bootstrap(), f"--role={role}", *args]


def client_argv(*args: str) -> list[str]:
    """The command line of a client of this very build."""
    return [sys.executable, "-IS", *bootstrap(), *args]


def bootstrap() -> list[str]:
    folder = place()
    if os.path.basename(folder) == "site-packages" and os.path.isfile(os.path.dirname(folder)):
        return [os.path.dirname(folder)]
    if os.path.isfile(f"{folder}/{MAIN}"):
        return [f"{folder}/{MAIN}"]
    return ["-c", SOURCE, "\n".join([folder, *(entry for entry in sys.path if entry)])]


def build_id() -> str:
    """What tells this build from others; "source" when it runs from no built file."""
    folder = place()
    if os.path.isfile(f"{folder}/{MAIN}"):
        return os.path.basename(folder).partition(".")[0]
    if os.path.isfile(os.path.dirname(folder)):
        import json
        import zipimport

        archive = zipimport.zipimporter(os.path.dirname(folder))
        return str(json.loads(archive.get_data("environment.json"))["build_id"])
    return "source"


def hold_copy() -> None:
    """Keeps the unpacked copy from being removed by newer builds for as long as this process (or a fork of it) lives."""
    folder = place()
    if not os.path.isfile(f"{folder}/{MAIN}"):
        return
    import fcntl

    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)  # a file system without locks: nobody removes there either
