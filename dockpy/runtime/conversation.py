"""The caller's end of a start: what the child says until its execve (drawn in runtime.init)."""

from __future__ import annotations

import _socket
import errno
import json
import os
import signal
from dataclasses import dataclass

from dockpy.linux import processes
from dockpy.runtime.errors import StartFailed, start_failed

LONGEST = 8192


@dataclass(frozen=True)
class Stdio:
    stdin: int
    stdout: int
    stderr: int


@dataclass(frozen=True)
class Created:
    """`pid` is a child of the caller, who reaps it. `pidfd` is -1 before Linux 5.3."""

    pid: int
    pidfd: int
    console: int | None


def converse(
    sock: _socket.socket, pid: int, pidfd: int, prefix: str, *, sibling: bool = False
) -> Created:
    """Listens until the program runs; StartFailed (with all children reaped) when it does not.

    With `sibling` they are children of our parent, who reaps them.
    """
    console: int | None = None
    executing = False
    failure: StartFailed | None = None
    while True:
        data, rights = _receive(sock)
        if not data:
            break
        message = json.loads(data)
        if "console" in message:
            console = rights
        elif "pid" in message:
            # What we cloned has done its part; what it cloned is our child as well, and goes on.
            if not sibling:
                os.waitpid(pid, 0)
            if pidfd >= 0:
                os.close(pidfd)
            pid = message["pid"]
            pidfd = _pidfd(pid)
        elif "exec" in message:
            executing = True
        else:
            failure = start_failed(prefix, message["message"])
    if failure is None and executing:
        return Created(pid, pidfd, console)
    how = _reap(pid, sibling)
    for fd in (pidfd, console):
        if fd is not None and fd >= 0:
            os.close(fd)
    raise failure or start_failed(prefix, f"the container's first process ended early ({how})")


def _receive(sock: _socket.socket) -> tuple[bytes, int | None]:
    data, ancillary, _, _ = sock.recvmsg(LONGEST, _socket.CMSG_LEN(4), _socket.MSG_CMSG_CLOEXEC)
    for _, _, content in ancillary:
        return data, int.from_bytes(content[:4], "little")
    return data, None


def _pidfd(pid: int) -> int:
    try:
        return processes.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return -1


def _reap(pid: int, sibling: bool) -> str:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if sibling:
        return "killed"
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit code {os.WEXITSTATUS(status)}"
