"""Compiled filters in the real kernel: fork, install, call."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
from collections.abc import Callable

import pytest

from dockpy.oci.seccomp import Arg, Seccomp, Syscall, resolve
from dockpy.oci.seccomp_default import default_profile
from dockpy.runtime import bpf
from dockpy.runtime.syscalls import X32_BIT, numbers

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")

libc = ctypes.CDLL(None, use_errno=True)
SYSCALL = numbers("x86_64")
DEFAULT = resolve(default_profile(), (), "amd64", (6, 1))


def install(code: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    program = Program(len(code) // 8, code)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    if libc.syscall(SYSCALL["seccomp"], 1, 4, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def below(seccomp: Seccomp, body: Callable[[], int]) -> int:
    """The exit status of `body` below the filter; -N when signal N ended it."""
    code = bpf.program(seccomp)
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            install(code)
            status = body()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def error_of(number: int, *args: int) -> Callable[[], int]:
    """A body that makes one call and gives its errno (0 when it succeeds)."""

    def body() -> int:
        result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(arg) for arg in args))
        return ctypes.get_errno() if result == -1 else 0

    return body


@pytest.mark.parametrize(
    ("number", "args", "answer"),
    [
        (SYSCALL["getpid"], (), 0),
        (SYSCALL["mount"], (0, 0, 0, 0, 0), errno.EPERM),
        (SYSCALL["io_uring_setup"], (1, 0), errno.EPERM),
        (SYSCALL["clone3"], (0, 0), errno.ENOSYS),
        (SYSCALL["listns"], (0, 0, 0), errno.ENOSYS),
        (100_000, (), errno.ENOSYS),
        (SYSCALL["personality"], (0xFFFFFFFF,), 0),
        (SYSCALL["personality"], (8,), 0),
        (SYSCALL["personality"], (0x0400000,), errno.EPERM),  # ADDR_COMPAT_LAYOUT
        (SYSCALL["socket"], (socket.AF_UNIX, 1, 0), 0),
        (SYSCALL["socket"], (40, 1, 0), errno.EPERM),
        (SYSCALL["socket"], (38, 5, 0), errno.EPERM),
        (SYSCALL["socket"], (1 << 32 | 38, 5, 0), errno.EPERM),
        (SYSCALL["clone"], (0x10000000 | 17, 0, 0, 0, 0), errno.EPERM),  # CLONE_NEWUSER
        (SYSCALL["unshare"], (0x10000000,), errno.EPERM),
        (SYSCALL["setns"], (0, 0), errno.EPERM),
        (SYSCALL["keyctl"], (0, 0), errno.EPERM),
        (SYSCALL["bpf"], (0, 0, 0), errno.EPERM),
    ],
)
def test_the_default_policy_in_the_kernel(number: int, args: tuple[int, ...], answer: int) -> None:
    assert below(DEFAULT, error_of(number, *args)) == answer


def test_x32_numbers_do_not_get_round_the_policy() -> None:
    # EPERM by our filter; a kernel without x32 would say ENOSYS, one with it EFAULT.
    assert below(DEFAULT, error_of(X32_BIT | SYSCALL["mount"], 0, 0, 0, 0, 0)) == errno.EPERM


def test_threads_and_processes_can_be_made_below_the_default_policy() -> None:
    def body() -> int:
        import subprocess
        import threading

        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        return subprocess.run(["/bin/sh", "-c", "exit 7"], check=False).returncode

    assert below(DEFAULT, body) == 7


@pytest.mark.parametrize(
    ("action", "result"),
    [
        ("SCMP_ACT_KILL", -signal.SIGSYS),
        ("SCMP_ACT_KILL_THREAD", -signal.SIGSYS),
        ("SCMP_ACT_KILL_PROCESS", -signal.SIGSYS),
        ("SCMP_ACT_TRAP", -signal.SIGSYS),
        ("SCMP_ACT_ERRNO", 77),
        ("SCMP_ACT_TRACE", errno.ENOSYS),  # nobody traces
        ("SCMP_ACT_LOG", 0),
        ("SCMP_ACT_ALLOW", 0),
    ],
)
def test_every_action_in_the_kernel(action: str, result: int) -> None:
    calls = (Syscall(("getppid",), action, (), 77),)
    default = "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    assert below(Seccomp(default, (), calls), error_of(SYSCALL["getppid"])) == result


@pytest.mark.parametrize(
    ("op", "below_it", "at_it", "above_it"),
    [
        ("EQ", 0, 5, 0),
        ("NE", 5, 0, 5),
        ("LT", 5, 0, 0),
        ("LE", 5, 5, 0),
        ("GT", 0, 0, 5),
        ("GE", 0, 5, 5),
    ],
)
def test_every_comparison_of_64_bits_in_the_kernel(
    op: str, below_it: int, at_it: int, above_it: int
) -> None:
    value = 5 << 32 | 0x80000001
    calls = (Syscall(("getppid",), "SCMP_ACT_ERRNO", (Arg(2, value, "SCMP_CMP_" + op),), 5),)
    seccomp = Seccomp("SCMP_ACT_ALLOW", (), calls)
    for delta in (1, 1 << 32):
        assert below(seccomp, error_of(SYSCALL["getppid"], 9, 9, value - delta)) == below_it
        assert below(seccomp, error_of(SYSCALL["getppid"], 9, 9, value + delta)) == above_it
    assert below(seccomp, error_of(SYSCALL["getppid"], 9, 9, value)) == at_it


def test_flags_are_those_of_the_profile_or_runcs() -> None:
    assert bpf.flags(Seccomp("SCMP_ACT_ALLOW")) == 4
    assert bpf.flags(Seccomp("SCMP_ACT_ALLOW", flags=())) == 0
    both = ("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC")
    assert bpf.flags(Seccomp("SCMP_ACT_ALLOW", flags=both)) == 3
