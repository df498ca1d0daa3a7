"""Processes: clone, pidfds, prctl, what survives an execve, session keyrings."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

from dockpy.linux.libc import prototype, raise_errno, syscall

CLONE_PIDFD = 0x1000
SIGCHLD = 17
CLONE_PARENT = 0x8000
CLONE_INTO_CGROUP = 0x200000000

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLOSE_RANGE_CLOEXEC = 4
KEYCTL_JOIN_SESSION_KEYRING = 1
FD_MAX = 0xFFFFFFFF

_ulong = ctypes.c_ulong
_prctl = prototype("prctl", ctypes.c_int, _ulong, _ulong, _ulong, _ulong)
_prctl_name = prototype("prctl", ctypes.c_int, ctypes.c_char_p, _ulong, _ulong, _ulong)
_clone = syscall(
    "clone", _ulong, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), _ulong, _ulong, locked=True
)
_clone3 = syscall("clone3", ctypes.c_void_p, ctypes.c_size_t, locked=True)
_pidfd_open = syscall("pidfd_open", ctypes.c_int, ctypes.c_uint)
_pidfd_send_signal = syscall(
    "pidfd_send_signal", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint
)
_close_range = syscall("close_range", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_keyctl_join = syscall("keyctl", ctypes.c_int, ctypes.c_char_p)


def clone(flags: int) -> tuple[int, int]:
    """fork(2) with namespace flags: (pid, pidfd); (0, -1) in the child. pidfd is -1 before 5.2.

    For a single-threaded process only: neither libc's nor the interpreter's fork hooks run. What
    they repair (locks held by other threads, lists of threads) is not there, and running them
    from here costs the child 0.3 ms. CLONE_PARENT makes the child a sibling: our parent's child.
    """
    pidfd = ctypes.c_int(-1)
    result = _clone(flags | CLONE_PIDFD | SIGCHLD, None, ctypes.byref(pidfd), 0, 0)
    if result < 0:
        raise_errno()
    return (result, pidfd.value) if result else (0, -1)


def clone_into(flags: int, group: int) -> tuple[int, int]:
    """clone, with the child born in the control group (of version 2) whose folder is open as `group`.

    Linux 5.7 (ENOSYS, EINVAL, E2BIG before); what else it says is what joining that group would.
    """
    pidfd = ctypes.c_int(-1)
    # struct clone_args: a sibling's signal is its parent's.
    args = (ctypes.c_uint64 * 11)(
        flags | CLONE_PIDFD | CLONE_INTO_CGROUP, ctypes.addressof(pidfd), 0, 0,
        0 if flags & CLONE_PARENT else SIGCHLD, 0, 0, 0, 0, 0, group,
    )  # fmt: skip
    result = _clone3(ctypes.addressof(args), ctypes.sizeof(args))
    if result < 0:
        raise_errno()
    return (result, pidfd.value) if result else (0, -1)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    result = _prctl(option, arg2, arg3, arg4, arg5)
    if result < 0:
        raise_errno()
    return result


def set_name(name: str) -> None:
    """The name `ps -o comm` shows: at most 15 bytes."""
    if _prctl_name(PR_SET_NAME, name.encode()[:15], 0, 0, 0) < 0:
        raise_errno()


def pidfd_open(pid: int, flags: int = 0) -> int:
    fd = _pidfd_open(pid, flags)
    if fd < 0:
        raise_errno()
    return fd


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    if _pidfd_send_signal(pidfd, signum, None, 0) < 0:
        raise_errno()


def close_range(first: int, last: int = FD_MAX, flags: int = 0) -> None:
    """Closes all descriptors from `first` to `last`, or marks them close-on-exec; on any kernel."""
    if first > last or _close_range(first, last, flags) == 0:
        return
    if ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
        raise_errno()
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if not first <= fd <= last:
            continue
        try:
            if flags & CLOSE_RANGE_CLOEXEC:
                fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            else:
                os.close(fd)
        except OSError:  # the descriptor of the listing itself
            pass


def join_session_keyring(name: str) -> None:
    """A new session keyring, so that the keys of who started us are not the container's."""
    if _keyctl_join(KEYCTL_JOIN_SESSION_KEYRING, name.encode()) < 0:
        raise_errno()
