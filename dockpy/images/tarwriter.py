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
