"""eventfd(2): os.eventfd comes with Python 3.10."""

from __future__ import annotations

import ctypes
import os

from dockpy.linux.libc import prototype, raise_errno

EFD_CLOEXEC = os.O_CLOEXEC
EFD_NONBLOCK = os.O_NONBLOCK

_eventfd = prototype("eventfd", ctypes.c_uint, ctypes.c_int)


def eventfd(count: int = 0, flags: int = EFD_CLOEXEC | EFD_NONBLOCK) -> int:
    fd = _eventfd(count, flags)
    if fd < 0:
        raise_errno()
    return fd
