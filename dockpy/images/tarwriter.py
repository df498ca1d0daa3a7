"""Archives that we make (saved images, layers of host files), written member by member. Owners
are root's.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from dockpy.storage import tar

Write = Callable[[bytes], object]

CHUNK = 1 << 20
END = bytes(2 * tar.BLOCK)
EPOCH = 0


def header(
    name: str,
    *,
    size: int = 0,
    mode: int = 0o644,
    kind: bytes = tar.REGULAR,
    link: str = "",
    mtime: int = EPOCH,
) -> bytes:
    return tar.header_of(
        tar.Entry(
            os.fsencode(name), kind, mode, size=size, mtime_ns=mtime * 10**9, link=os.fsencode(link)
        )
    )


def padding(size: int) -> bytes:
    return bytes(-size % tar.BLOCK)


def write_bytes(write: Write, name: str, data: bytes, mode: int = 0o644) -> None:
    write(header(name, size=len(data), mode=mode) + data + padding(len(data)))


class Gathered:
    """Joins small writes: thousands of headers would each be a system call."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            self.flush()

    def flush(self) -> None:
        self._write(b"".join(self._parts))
        self._parts, self._size = [], 0
