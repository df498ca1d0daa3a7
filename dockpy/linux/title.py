"""What ps shows of a process of ours: its name, and the command line written over the first one."""

from __future__ import annotations

import ctypes

from dockpy.linux.processes import set_name


class Title:
    """The room for it, found once: forks have it at the same place, and need not touch much for it."""

    def __init__(self) -> None:
        with open("/proc/self/stat", "rb") as file:
            # Fields 48 and 49 of proc(5), counted from the third, which follows the name's bracket.
            fields = file.read().rpartition(b")")[2].split()
        self._start, end = int(fields[45]), int(fields[46])
        self._size = max(end - self._start, 0) if self._start else 0
        self._write = ctypes.memmove

    def set(self, name: str, *words: str) -> None:
        """Name (15 bytes) and command line, cut to the room that the first one took."""
        set_name(name)
        if self._size:
            text = "\0".join((name, *words)).encode()[: self._size - 1]
            self._write(self._start, text.ljust(self._size, b"\0"), self._size)


def set_title(name: str, *words: str) -> None:
    """For a process that says it once."""
    Title().set(name, *words)
