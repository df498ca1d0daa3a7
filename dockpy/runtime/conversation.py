"""What is said between a start's caller and the child until its execve (drawn in runtime.init); and the
caller's end of it.
"""

from __future__ import annotations

import _socket
import errno
import json
import os
import signal
from dataclasses import dataclass

from dockpy.linux import processes
from dockpy.runtime.errors import StartFailed, start_failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Compared, not parsed: a shim that listens (shim.birth) keeps every page it touches.
MAPPED = b"mapped"
CONSOLE = b'{"console":true}'
PID = b'{"pid":'
EXEC = b'{"exec":true}'
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
    sock: _socket.socket,
    pid: int,
    pidfd: int,
    prefix: str,
    *,
    sibling: bool = False,
    meanwhile: Callable[[int], None] | None = None,
) -> Created:
    """Listens until the program runs; StartFailed (with all children reaped) when it does not.

    With `sibling` they are children of our parent, who reaps them. `meanwhile` is called, with the pid,
    while the kernel executes the program (a millisecond): that may still fail.
    """
    console: int | None = None
    executing = False
    failure: StartFailed | None = None
    while True:
        data, rights = _receive(sock)
        if not data:
            break
        if data == EXEC:
            executing = True
            if meanwhile is not None:
                meanwhile(pid)
        elif data == CONSOLE:
            console = rights
        elif data.startswith(PID):
            # What we cloned has done its part; what it cloned is our child as well, and goes on.
            if not sibling:
                os.waitpid(pid, 0)
            if pidfd >= 0:
                os.close(pidfd)
            pid = int(data[len(PID) : -1])
            pidfd = _pidfd(pid)
        else:
            failure = _failure(prefix, json.loads(data))
    if failure is None and executing:
        return Created(pid, pidfd, console)
    how = _reap(pid, sibling)
    for fd in (pidfd, console):
        if fd is not None and fd >= 0:
            os.close(fd)
    raise failure or start_failed(prefix, f"the container's first process ended early ({how})")


def announce(sock: _socket.socket, pid: int, console: int | None) -> None:
    """Says of a process that runs already, a sibling of ours, what it would have said itself."""
    if console is not None:
        send_console(sock, console)
    sock.send(b"%b%d}" % (PID, pid))
    sock.send(EXEC)


def send_console(sock: _socket.socket, master: int) -> None:
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, "little"))
    sock.sendmsg([CONSOLE], [rights])


def _failure(prefix: str, message: dict[str, Any]) -> StartFailed:
    """One that was told with its code is a sentence already (see announce)."""
    if "code" in message:
        return StartFailed(message["message"], message["code"])
    return start_failed(prefix, message["message"])


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
