"""What a shim has done by a fork of itself that ends at once: the making of an exec's process.

A page that a process touches is a page of its own, since counting references writes. Parsing a
specification and joining a container touch more than a megabyte, which a worker throws away; the shim,
which lives for days, gets numbers and descriptors. The fork costs half a millisecond. The process is the
worker's sibling, so the shim is its parent. (A container's own first process: see shim.birth.)
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums; no stub
import _socket
import marshal
import os
import struct
import sys
from abc import ABC, abstractmethod

from dockpy.runtime import groups
from dockpy.shim.packets import NotStarted, size_from_json
from dockpy.shim.stdio import make_pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

LONGEST = 1 << 18
WORKER_DIED = "the process that starts containers has failed; the daemon's log may say why"


class Launcher(ABC):
    """What starts processes: the runtime, or something plainer. Called in a worker."""

    def warm(self) -> None:  # noqa: B027  # most have nothing to do
        """In a caller that waits for its container: what can be done beforehand."""

    def become(
        self,
        line: int,
        made: int,
        folders: list[int],
        bundle: str,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> NoReturn:
        """The caller, alone in a new pid namespace, becomes the container's first process:
        runtime.create.become. Raises NotStarted.

        `stdio` None: the process gets a pty, of `size` (height, width).
        """
        raise NotStarted(128, "this launcher starts no containers")

    @abstractmethod
    def create(
        self, bundle: str, stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
    ) -> tuple[int, int | None]:
        """Starts the container's first process as a child of the caller's *parent*: (pid, pty's master or
        None). Raises NotStarted.
        """

    @abstractmethod
    def exec(
        self,
        bundle: str,
        process: Mapping[str, Any],
        init_pid: int,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> tuple[int, int | None]:
        """As create, a further process beside it."""


def in_worker(
    job: Callable[[], tuple[Any, Sequence[int]]], group: str | None = None
) -> tuple[Any, list[int]] | None:
    """What `job` returns in the worker (values that marshal knows, and descriptors); None when it
    was killed or failed in an unforeseen way, which is then in the daemon's log.

    In that control group, so that what the worker makes is in it: OSError when that cannot be.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    worker = os.fork() if group is None else _fork_into(group)
    if worker == 0:
        _work(theirs, job)
    theirs.close()
    data, ancillary, _, _ = ours.recvmsg(LONGEST, _socket.CMSG_SPACE(32), _socket.MSG_CMSG_CLOEXEC)
    ours.close()
    os.waitpid(worker, 0)
    fds: list[int] = []
    for _, _, content in ancillary:
        fds += struct.unpack(f"{len(content) // 4}i", content)
    return (marshal.loads(data), fds) if data else None


def _fork_into(group: str) -> int:
    folders = groups.open_groups(group)
    worker, pidfd = groups.clone(0, folders)
    if worker == 0:
        try:
            groups.join(folders)
        except OSError as error:
            try:
                sys.stderr.write(f"dockpy-shim: an exec cannot join {group}: {error}\n")
            finally:
                os._exit(1)
        return 0
    for fd in (pidfd, *folders):
        if fd >= 0:
            os.close(fd)
    return worker


def _work(line: _socket.socket, job: Callable[[], tuple[Any, Sequence[int]]]) -> NoReturn:
    try:
        _signal.set_wakeup_fd(-1)
        values, fds = job()
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        line.sendmsg([marshal.dumps(values)], rights if fds else [])
    except BaseException:
        import traceback  # loaded by the keeper; not before the shim's own code, which is to lie close

        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:  # also where the daemon's log is on a full disk: nobody may return from here
            os._exit(0)


def execute(
    bundle: str, raw: Mapping[str, Any], init_pid: int, open_stdin: bool, launcher: Launcher
) -> tuple[Any, Sequence[int]]:
    """An exec, in the worker: (pid, 0, ""), or (0, code, message) when it could not be started."""
    size = size_from_json(raw.get("console_size"))
    theirs, ours = (None, ()) if raw.get("tty") else make_pipes(open_stdin)
    try:
        pid, console = launcher.exec(bundle, raw["process"], init_pid, theirs, size)
    except (NotStarted, OSError, ValueError) as error:
        return (0, error.code if isinstance(error, NotStarted) else 126, str(error)), ()
    return (pid, 0, ""), ours if console is None else (console,)
