"""Bytes between descriptors without a copy, and signals as a descriptor."""

from __future__ import annotations

import ctypes
import os
import sys

from dockpy.linux.libc import raise_errno, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SPLICE_F_MOVE = 1
SPLICE_F_NONBLOCK = 2
SPLICE_F_MORE = 4
SFD_CLOEXEC = os.O_CLOEXEC
SFD_NONBLOCK = os.O_NONBLOCK

_tee = syscall("tee", ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
_splice = syscall(
    "splice",
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_uint,
)
_signalfd = syscall(
    "signalfd4", ctypes.c_int, ctypes.POINTER(ctypes.c_uint64), ctypes.c_size_t, ctypes.c_int
)


def tee(fd_in: int, fd_out: int, length: int, flags: int = 0) -> int:
    """Doubles up to `length` bytes of pipe `fd_in` into pipe `fd_out`; they stay in `fd_in`."""
    count = _tee(fd_in, fd_out, length, flags)
    if count < 0:
        raise_errno()
    return count


def splice(
    fd_in: int, fd_out: int, length: int, flags: int = 0, offset_out: int | None = None
) -> int:
    """Moves up to `length` bytes; one side is a pipe. EINVAL where the other cannot (O_APPEND
    files). `offset_out`: where in a file, in place of its own position.
    """
    if sys.version_info >= (3, 10):  # a quarter of the time
        return os.splice(fd_in, fd_out, length, None, offset_out, flags)
    at = None if offset_out is None else ctypes.byref(ctypes.c_int64(offset_out))
    count = _splice(fd_in, None, fd_out, at, length, flags)
    if count < 0:
        raise_errno()
    return count


def signalfd(signals: Iterable[int], flags: int = SFD_CLOEXEC | SFD_NONBLOCK) -> int:
    """A descriptor that reads 128-byte siginfo records; block the signals first."""
    mask = ctypes.c_uint64(sum(1 << (number - 1) for number in signals))
    fd = _signalfd(-1, ctypes.byref(mask), 8, flags)
    if fd < 0:
        raise_errno()
    return fd
