"""inotify(7), as much of it as is needed: that something of ours was deleted, that a file of the kernel says more."""

from __future__ import annotations

import ctypes
import os
import sys

from dockpy.linux.libc import prototype, raise_errno

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC

_inotify_init1 = prototype("inotify_init1", ctypes.c_int)
_inotify_add_watch = prototype("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_inotify_rm_watch = prototype("inotify_rm_watch", ctypes.c_int, ctypes.c_int)


def inotify_init1(flags: int = IN_NONBLOCK | IN_CLOEXEC) -> int:
    """EMFILE beyond fs.inotify.max_user_instances."""
    fd = _inotify_init1(flags)
    if fd < 0:
        raise_errno()
    return fd


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    watch = _inotify_add_watch(fd, os.fsencode(path), mask)
    if watch < 0:
        raise_errno(path)
    return watch


def inotify_rm_watch(fd: int, watch: int) -> None:
    """Nothing where the kernel has done it: the file is gone."""
    _inotify_rm_watch(fd, watch)


def watches(data: bytes) -> list[int]:
    """Of the events that one read(2) of an inotify descriptor has given."""
    found, at = [], 0
    while at < len(data):
        found.append(int.from_bytes(data[at : at + 4], sys.byteorder, signed=True))
        at += 16 + int.from_bytes(data[at + 12 : at + 16], sys.byteorder)
    return found
