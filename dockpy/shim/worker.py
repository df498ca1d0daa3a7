"""What a shim has done by a fork of itself that ends at once: the making of processes.

A page that a process touches is a page of its own, since counting references writes. Parsing a start
message and a specification, opening log and socket, building a container touch more than a megabyte,
which a worker throws away; the shim, which lives for days, gets numbers and descriptors. The fork costs
half a millisecond. Processes are made as the worker's siblings, so the shim is their parent.

  shim                        worker                          container
   | -- fork ------------------> | log, socket, shim.json, pipes
   |                             | -- clone(CLONE_PARENT) -----> |
   |                             | shim.json, event "started"    |
   | <-- values + descriptors -- | _exit
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums; no stub
import _socket
import marshal
import os
import struct
import sys
import time

from dockpy.runtime import groups
from dockpy.shim.clients import send_away
from dockpy.shim.control import listening
from dockpy.shim.exit import start_ticks, write_exit, write_shim
from dockpy.shim.logwriter import open_writer, rfc3339_nano
from dockpy.shim.packets import NotStarted, decode, send_packet, size_from_json
from dockpy.shim.stdio import make_pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn, Protocol

    class Launcher(Protocol):
        """Starts processes as children of the caller's *parent*; (pid, pty master or None).

        stdio None: the process gets a pty, of `size` (height, width). Raises NotStarted.
        """

        def create(
            self, bundle: str, stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
        ) -> tuple[int, int | None]: ...

        def exec(
            self,
            bundle: str,
            process: Mapping[str, Any],
            init_pid: int,
            stdio: tuple[int, int, int] | None,
            size: tuple[int, int] | None,
        ) -> tuple[int, int | None]: ...


LONGEST = 1 << 18


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


def begin(packet: bytes, fds: Sequence[int], launcher: Launcher) -> tuple[Any, Sequence[int]]:
    """The whole of a start, in the worker; None when it failed, which has been told and written then.

    Values: the start message, pid, its start in ticks and in ns, the state of the log's writer, how
    many descriptors are of the socket and of the log. Descriptors: of socket, log and streams.
    """
    from dockpy.shim import protocol

    raw, fds = decode(packet, list(fds))
    start = protocol.Start.from_json(raw["start"], fds[1:])
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fds[0])
    listener = listening(start.socket)
    writer = open_writer(start.log, start.bundle, start.id)
    # Before there is a process, so that whoever comes after a crash of all others knows of this shim.
    shim = os.getppid()
    write_shim(start, shim, None, 0)
    theirs, ours = (None, ()) if start.tty else make_pipes(start.open_stdin)
    try:
        pid, console = launcher.create(start.bundle, theirs, start.console_size)
    except (NotStarted, OSError, ValueError) as error:
        code = error.code if isinstance(error, NotStarted) else 128
        write_exit(start.bundle, start.boot, code, "", rfc3339_nano(time.time_ns()), str(error))
        tell(control, {"event": "failed", "code": code, "message": str(error)})
        for attachment in start.attachments:
            send_away(attachment)
        if listener is not None:
            os.unlink(start.socket)
        return None, ()
    ticks = start_ticks(pid)
    write_shim(start, shim, pid, ticks)
    tell(control, {"event": "started", "pid": pid, "start": ticks, "shim": shim})
    state = None if writer is None else writer.state()
    parts = (
        () if listener is None else (listener.detach(),),
        () if writer is None else writer.descriptors(),
        ours if console is None else (console,),
    )
    counts = len(parts[0]), len(parts[1])
    return (raw["start"], pid, ticks, time.time_ns(), state, *counts), sum(parts, ())


def tell(control: _socket.socket, event: Mapping[str, object]) -> None:
    try:
        send_packet(control, event)
    except OSError:
        pass  # a daemon that has died meanwhile stops nothing: its successor finds the records


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
