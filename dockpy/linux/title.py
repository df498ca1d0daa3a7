"""What ps shows of a process of ours: its name, and the command line written over the one it was
started with.
"""

from __future__ import annotations

import ctypes

from dockpy.linux.processes import set_name


def set_title(name: str, *words: str) -> None:
    """Name (15 bytes) and command line; the latter is cut to the room that the first one took."""
    set_name(name)
    with open("/proc/self/stat", "rb") as file:
        # Fields 48 and 49 of proc(5), counted from the third, which follows the name's bracket.
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if 0 < start < end:
        text = b"\0".join(word.encode() for word in (name, *words))[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
