"""Namespaces: the clone flags, unshare, setns, and whose a namespace is."""

from __future__ import annotations

import ctypes
import fcntl

from dockpy.linux.libc import prototype, raise_errno

CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200  # to unshare(): root, working folder and umask of its own for this thread
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

NS_GET_USERNS = 0xB701
NS_GET_PARENT = 0xB702
NS_GET_NSTYPE = 0xB703

_unshare = prototype("unshare", ctypes.c_int)
_setns = prototype("setns", ctypes.c_int, ctypes.c_int)
_sethostname = prototype("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = prototype("setdomainname", ctypes.c_char_p, ctypes.c_size_t)


def unshare(flags: int) -> None:
    """With CLONE_NEWUSER only a single-threaded process may (EINVAL)."""
    if _unshare(flags) < 0:
        raise_errno()


def setns(fd: int, nstype: int = 0) -> None:
    """Joins the namespace `fd`, or with a pidfd (5.8) all those of that process named by
    `nstype`.
    """
    if _setns(fd, nstype) < 0:
        raise_errno()


def get_userns(fd: int) -> int:
    """A descriptor of the user namespace that owns namespace `fd`; EPERM when it is above ours."""
    return fcntl.ioctl(fd, NS_GET_USERNS)


def sethostname(name: str) -> None:
    value = name.encode()
    if _sethostname(value, len(value)) < 0:
        raise_errno()


def setdomainname(name: str) -> None:
    value = name.encode()
    if _setdomainname(value, len(value)) < 0:
        raise_errno()
