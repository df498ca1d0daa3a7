"""The init of `--init`: pid 1 in the container; forwards signals, reaps, ends as its child does.

It takes over in the process that would have executed the workload, after all confinement, and so
lives under the workload's own user, capabilities and filter. On x86-64 it then becomes 168 bytes
of machine code (pid1_code) in a sealed file of memory: nothing of the host is left in it. Where
that cannot be executed (another machine, a filter, vm.memfd_noexec) it stays a Python with the
host's interpreter and our memory in it, while everything in the container may look at pid 1, so:

- not dumpable: /proc/1/{exe,root,cwd,fd,maps,mem,environ}, ptrace and process_vm_readv want
  CAP_SYS_PTRACE over the user namespace in which the interpreter was executed, one above the
  container's (CVE-2019-5736 began with /proc/<pid>/exe);
- no descriptors: none, not even the streams, whose ends the readers wait for;
- /proc/1/cmdline and comm, readable by all, say `docker-init -- …` and no path of the host.

As docker's (tini): the workload has a process group of its own, in the foreground of its terminal.
Nothing is imported after the fork.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed lacks it; signal is its slow wrapper
import errno
import fcntl
import os

from dockpy.linux.libc import MACHINE
from dockpy.linux.processes import PR_SET_DUMPABLE, close_range, prctl
from dockpy.linux.title import set_title
from dockpy.runtime.pid1_code import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

MFD_EXEC = 0x10  # linux/memfd.h, since 6.3
ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# They tell of a fault of this process itself; waiting for them would hide it.
_FAULTS = {
    *(_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGTRAP),
    *(_signal.SIGABRT, _signal.SIGSYS),
}


def name(args: Sequence[str]) -> None:
    """What ps shows, here and in the container. While the /proc that is seen is still the host's:
    it tells where our command line lies, and is written to."""
    set_title("docker-init", "--", *args)


def supervise(
    execute: Callable[[], NoReturn], args: Sequence[str] = (), machine: str = MACHINE
) -> NoReturn:
    """Runs `execute` (reset of signals, execve, its own error reports) in a child, and is its init.

    `args` are for ps; a `machine` without code of ours keeps the interpreter. The caller is pid 1 of its pid namespace, single-threaded, and leader of its session where it
    has a terminal.
    """
    # Here, since setuid has set it to what fs.suid_dumpable says; the child inherits it until its
    # execve, which sets its own.
    prctl(PR_SET_DUMPABLE, 0)
    # SIG_IGN would reap behind our back; a blocked signal reaches a pid 1 that has no handler.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    waited = set(_signal.valid_signals()) - _FAULTS
    _signal.pthread_sigmask(_signal.SIG_SETMASK, waited)
    child = os.fork()
    if child == 0:
        _workload(execute)
    os.chdir("/")
    if machine == "x86_64":
        _become_small(child, waited, args)
    close_range(0)
    while True:
        number = _signal.sigwait(waited)
        if number == _signal.SIGCHLD:
            _reap(child)
        else:
            _forward(child, number)


def _workload(execute: Callable[[], NoReturn]) -> NoReturn:
    try:
        os.setpgid(0, 0)
        try:
            # SIGTTOU is blocked: a background group may do this then.
            os.tcsetpgrp(0, os.getpid())
        except OSError:  # not a terminal, not ours, or no stdin at all
            pass
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        execute()
    finally:
        os._exit(127)


def _become_small(child: int, waited: set[int], args: Sequence[str]) -> None:
    """execve of pid1_code; returns where something is against it. Blocked signals stay blocked."""
    mask = 0
    for number in waited:
        mask |= 1 << (number - 1)
    try:
        fd = _memory_file("docker-init")
        os.write(fd, program(child, mask))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL_SEALS)
        close_range(0, fd - 1)
        close_range(fd + 1)
        os.execve(fd, ["docker-init", "--", *args], {})
    except OSError:
        return


def _memory_file(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)  # before Linux 6.3, where it is so anyway


def _reap(child: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == child:
            # The kernel ends all others of the namespace with us.
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _forward(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except OSError:  # it has just ended, or has become another user: not ours to signal
        pass
