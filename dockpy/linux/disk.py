"""What keeps data: syncfs(2), and what makes a later sync short. (fsync and fdatasync are in os.)"""

from __future__ import annotations

import ctypes

from dockpy.linux.libc import prototype, raise_errno

SYNC_FILE_RANGE_WRITE = 2

_syncfs = prototype("syncfs", ctypes.c_int)
_sync_file_range = prototype(
    "sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
)


def syncfs(fd: int) -> None:
    """Everything written so far to the file system of `fd` is on its disk when this returns."""
    if _syncfs(fd) < 0:
        raise_errno()


def start_writing(fd: int, offset: int = 0, count: int = 0) -> None:
    """sync_file_range(2): starts writing these bytes (0: all behind `offset`) to the disk, and does not wait.

    Promises nothing, and says nothing where a file system cannot: the sync that follows does it all then.
    """
    _sync_file_range(fd, offset, count, SYNC_FILE_RANGE_WRITE)
