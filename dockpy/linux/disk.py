"""What keeps data: syncfs(2). (fsync and fdatasync are in os.)"""

from __future__ import annotations

import ctypes

from dockpy.linux.libc import prototype, raise_errno

_syncfs = prototype("syncfs", ctypes.c_int)


def syncfs(fd: int) -> None:
    """Everything written so far to the file system of `fd` is on its disk when this returns."""
    if _syncfs(fd) < 0:
        raise_errno()
