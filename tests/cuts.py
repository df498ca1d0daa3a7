"""Cuts a process off before its n-th write to the disk: what a kill, or a power cut of a disk that keeps order, leaves.

A tracer of its own follows the process and all its threads; a seccomp filter stops them at just those
system calls that change a disk, so all else runs at its own speed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable

from dockpy.linux import credentials, processes
from dockpy.runtime.syscalls import numbers

WRITES = (
    "write pwrite64 fsync fdatasync syncfs ftruncate rename renameat renameat2 unlink unlinkat mkdir mkdirat "
    "rmdir symlink symlinkat link linkat mknod mknodat"
).split()

_TRACEME, _CONT, _SETOPTIONS = 0, 7, 0x4200
_FORK, _VFORK, _CLONE, _SECCOMP, _EXITKILL = 1 << 1, 1 << 2, 1 << 3, 1 << 7, 1 << 20
_EVENT_SECCOMP = 7
_WALL = 0x40000000
_RET_TRACE, _RET_ALLOW = 0x7FF00000, 0x7FFF0000
CUT, DONE = 42, 0

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_ptrace.restype = ctypes.c_long


def cut(work: Callable[[], None], at: int) -> bool:
    """Runs `work` in a process that is killed when it begins its write number `at` (from 1); whether it was.

    AssertionError when it fails by itself.
    """
    tracer = os.fork()
    if tracer == 0:
        status = 1
        try:
            status = _trace(work, at)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(tracer, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (CUT, DONE), f"the work itself failed ({code})"
    return code == CUT


def _trace(work: Callable[[], None], at: int) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _call(_TRACEME, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            _filter()
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.waitpid(child, 0)
    _call(_SETOPTIONS, child, _FORK | _VFORK | _CLONE | _SECCOMP | _EXITKILL)
    _call(_CONT, child, 0)
    count = 0
    while True:
        tid, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            if tid == child:
                return DONE if status == 0 else 1
            continue
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_SECCOMP:
            count += 1
            if count == at:
                os.kill(child, signal.SIGKILL)
                while os.waitpid(-1, _WALL)[0] != child:
                    pass
                return CUT
        passed_on = 0 if event or number in (signal.SIGSTOP, signal.SIGTRAP) else number
        try:
            _call(_CONT, tid, passed_on)
        except ProcessLookupError:
            continue  # ended meanwhile


def _call(request: int, pid: int, data: int) -> None:
    if _ptrace(request, pid, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _filter() -> None:
    known = numbers({"x86_64": "x86_64", "aarch64": "aarch64"}[os.uname().machine])
    wanted = [known[name] for name in WRITES if name in known]
    lines = [(0x20, 0, 0, 0)]  # the call's number
    lines += [(0x15, len(wanted) - at, 0, number) for at, number in enumerate(wanted)]
    lines += [(0x06, 0, 0, _RET_ALLOW), (0x06, 0, 0, _RET_TRACE)]
    processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
    program = b"".join(struct.pack("=HBBI", *line) for line in lines)
    credentials.seccomp(credentials.SECCOMP_SET_MODE_FILTER, 0, program)
