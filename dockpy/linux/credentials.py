"""Capabilities and seccomp: what a process gives up before the workload runs.

Sets of capabilities are bit masks here; their names are in `dockpy.linux.capabilities`.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from dockpy.linux.libc import raise_errno, syscall
from dockpy.linux.processes import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    prctl,
)

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
BPF_INSTRUCTION = 8  # sizeof(struct sock_filter)


class sock_fprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_capset = syscall("capset", ctypes.c_char_p, ctypes.c_char_p)
_capget = syscall("capget", ctypes.c_char_p, ctypes.c_char_p)
_seccomp = syscall("seccomp", ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(sock_fprog))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "=6I",
        *(effective & low, permitted & low, inheritable & low),
        *(effective >> high, permitted >> high, inheritable >> high),
    )
    if _capset(header, data) < 0:
        raise_errno()


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of the caller."""
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    buffer = ctypes.create_string_buffer(24)
    if _capget(header, buffer) < 0:
        raise_errno()
    e0, p0, i0, e1, p1, i1 = struct.unpack("=6I", buffer.raw)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def last_cap() -> int:
    """The highest capability this kernel knows."""
    for number in range(63, -1, -1):
        try:
            prctl(PR_CAPBSET_READ, number)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return number
    return -1


def drop_bounding(keep: int) -> None:
    """Takes everything but `keep` out of the bounding set (needs CAP_SETPCAP where it changes)."""
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # beyond the last one this kernel knows
            if prctl(PR_CAPBSET_READ, number):
                raise


def set_ambient(mask: int) -> None:
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        if mask >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def seccomp(operation: int, flags: int, program: bytes) -> int:
    """Installs a BPF `program` (whole instructions of 8 bytes); the descriptor with NEW_LISTENER,
    else 0.
    """
    fprog = sock_fprog(len(program) // BPF_INSTRUCTION, program)
    result = _seccomp(operation, flags, ctypes.byref(fprog))
    if result < 0:
        raise_errno()
    return result
