"""A container's beginning: a fork of the shim that prepares all, and then is the container's first process.

It opens log and socket, reads the specification and builds the container: more than a megabyte of memory
touched, which the shim, who lives for days, does not have. It was cloned into a new pid namespace for that,
so that no further fork is needed (each costs a millisecond: 400 pages are copied because they are touched).
And beforehand, so that it is there when the message comes. Where that cannot be (Start.fresh), another one
makes the process as its sibling, says so, and ends.

  shim                             worker
   | -- clone(CLONE_NEWPID …) -----> | waits
   | -- start message -------------> | log, socket, shim.json, pipes
   | <-- values + descriptors ------ | everything else is closed, namespaces, mounts, pivot
   | <-- console, {"pid"} ---------- | (runtime.conversation)
   | <-- {"exec"} or why not ------- | execve: the line ends
   | shim.json, event "started"
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums; no stub
import _socket
import marshal
import os
import struct
import sys
import time

from dockpy import files
from dockpy.errors import sentence
from dockpy.fastjson import dumps, loads
from dockpy.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS
from dockpy.runtime import groups
from dockpy.runtime.conversation import announce, converse
from dockpy.runtime.errors import CREATE, StartFailed, start_failed, strerror
from dockpy.shim.clients import send_away
from dockpy.shim.control import listening
from dockpy.shim.exit import prepare_shim, shim_path, start_ticks, write_exit, write_shim
from dockpy.shim.kill import kill_children
from dockpy.shim.logwriter import open_writer, rfc3339_nano
from dockpy.shim.packets import (
    NotStarted,
    close_others,
    decode,
    receive_raw,
    send_packet,
    send_raw,
)
from dockpy.shim.stdio import make_pipes
from dockpy.shim.worker import LONGEST, WORKER_DIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from dockpy.shim.protocol import Start
    from dockpy.shim.worker import Launcher


# Of a container by default; its mount and cgroup namespaces are made when it is known where.
USUAL = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET
FLAGS = {
    "pid": CLONE_NEWPID,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "network": CLONE_NEWNET,
}


class Worker:
    """One that waits for its start message at the other end of `line`; OSError when it cannot be made.

    `made`: its namespaces, none or with CLONE_NEWPID.
    """

    def __init__(
        self, launcher: Launcher, made: int, group: str | None = None, *, early: bool = False
    ) -> None:
        """`group`: of version 2, to be born in. `early`: there is time, the message is yet to come."""
        folders = groups.open_groups(group)
        self.made = made
        self.line, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        shim = os.getpid()
        try:
            self.pid, pidfd = groups.clone(made, folders)
            if self.pid == 0:
                if early:
                    _get_ready(launcher)
                _work(theirs, launcher, shim, made, None if group is None else folders)
            if pidfd >= 0:
                os.close(pidfd)
        finally:
            theirs.close()
            for fd in folders:
                os.close(fd)

    def dismiss(self) -> None:
        """Its end is found, like that of any child, when it has come."""
        self.line.close()


def expect(launcher: Launcher) -> Worker | None:
    """The usual one, before it is known for what; None where that cannot be made."""
    try:
        return Worker(launcher, USUAL, early=True)
    except OSError:
        return None


class Born:
    """What the shim keeps of it."""

    def __init__(self, values: Any, fds: list[int]) -> None:
        self.start: dict[str, Any]  # the start message
        self.start, self.state, listeners, logs = values
        self.listener = fds[0] if listeners else None
        self.log = fds[listeners : listeners + logs]  # with `state`: resume_writer
        self.streams = fds[listeners + logs :]
        self.pid = 0
        self.ticks = 0
        self.time = 0
        self._record = ""

    def note(self, pid: int) -> None:
        """It may run; `keep` or `forget` follows."""
        self.pid = pid
        self.ticks = start_ticks(pid)
        self.time = time.time_ns()
        self._record = prepare_shim(self.start, os.getpid(), (pid, self.ticks))

    def keep(self) -> None:
        os.rename(self._record, shim_path(self.start["bundle"]))

    def forget(self) -> None:
        if self._record:
            files.unlink_if_exists(self._record)


def bear(
    packet: bytes, fds: Sequence[int], launcher: Launcher, worker: Worker | None
) -> Born | None:
    """Starts the container of a start message (`packet`, shim.packets.decode) by the one that was expected,
    if any; shim.json tells of it then. None when that failed, which has been written and told then.
    """
    try:
        worker = _informed(packet, fds, launcher, worker)
    except OSError as error:
        _failed(packet, fds, start_failed(CREATE, f"clone: {strerror(error)}"))
        return None
    try:
        return _begun(worker)
    except StartFailed as failure:
        _failed(packet, fds, failure)
    except OSError as error:  # a full disk
        _failed(packet, fds, start_failed(CREATE, sentence(error)))
    finally:
        worker.line.close()
    return None


def _informed(
    packet: bytes, fds: Sequence[int], launcher: Launcher, worker: Worker | None
) -> Worker:
    """The one that was expected where it serves, else a new one; the message is on its way to it."""
    wanted, group = _head(packet)
    group = group if groups.unified() else None  # else it is joined on the way
    if worker is not None:
        if not worker.made & ~wanted and group is None:
            try:
                send_raw(worker.line, packet, fds)
                return worker
            except BrokenPipeError:
                pass  # somebody has killed it
        worker.dismiss()
    worker = Worker(launcher, wanted, group)
    send_raw(worker.line, packet, fds)
    return worker


def _begun(worker: Worker) -> Born:
    line = worker.line
    prepared, got = _receive(line)
    values = marshal.loads(prepared) if prepared else None
    if values is None:
        if prepared:
            converse(line, worker.pid, -1, CREATE)  # which raises what the worker says
        raise StartFailed(WORKER_DIED, 128)
    born = Born(values, got)
    try:
        created = converse(line, worker.pid, -1, CREATE, meanwhile=born.note)
    except StartFailed:
        born.forget()
        raise
    if created.pidfd >= 0:
        os.close(created.pidfd)
    if created.console is not None:
        born.streams = [created.console]
    born.keep()
    return born


def _head(packet: bytes) -> tuple[int, str | None]:
    """The namespaces that its worker may have, and Start.group: read without the rest, which a shim does not
    parse.
    """
    end = packet.find(b',"start":')
    head = loads(packet[:end] + b"}") if end > 0 else None
    if not isinstance(head, dict) or "pid" not in head.get("fresh", ()):
        return 0, None
    return sum(FLAGS.get(kind, 0) for kind in head["fresh"]), head.get("group")


def _receive(line: _socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = line.recvmsg(LONGEST, _socket.CMSG_SPACE(32), _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for _, _, content in ancillary:
        fds += struct.unpack(f"{len(content) // 4}i", content)
    return data, fds


def _failed(packet: bytes, fds: Sequence[int], failure: StartFailed) -> None:
    """Exit file, event, and the clients' end; what may have been started is ended."""
    from dockpy.shim import protocol

    kill_children()
    raw, fds = decode(packet, list(fds))
    start = protocol.Start.from_json(raw["start"], fds[1:])
    write_exit(
        start.bundle, start.boot, failure.code, "", rfc3339_nano(time.time_ns()), str(failure)
    )
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fds[0])
    try:
        send_packet(control, {"event": "failed", "code": failure.code, "message": failure.message})
    except OSError:
        pass  # a daemon that has died meanwhile stops nothing: its successor finds the records
    for attachment in start.attachments:
        send_away(attachment)
    try:
        os.unlink(start.socket)
    except FileNotFoundError:
        pass


# -------------------------------------------------------------------------------------- the worker


def _get_ready(launcher: Launcher) -> None:
    try:
        launcher.warm()
    except Exception:
        import traceback

        traceback.print_exc()


def _work(
    line: _socket.socket, launcher: Launcher, shim: int, made: int, folders: list[int] | None
) -> NoReturn:
    """`folders`: of the control group, where it was cloned for that, as groups.clone has left them."""
    prepared = False
    try:
        _signal.set_wakeup_fd(-1)
        close_others([line.fileno(), *(folders or ())])
        packet = receive_raw(line)
        if packet is None:
            os._exit(0)
        raw, fds = decode(*packet)
        start, stdio = _prepare(line, raw["start"], fds, shim)
        prepared = True
        size = start.console_size
        if made:
            joined = _open_groups(raw.get("group")) if folders is None else folders
            launcher.become(line.fileno(), made, joined, start.bundle, stdio, size)
        announce(line, *launcher.create(start.bundle, stdio, size))
    except (NotStarted, OSError, ValueError) as error:
        if not prepared:
            line.send(marshal.dumps(None))
        code = error.code if isinstance(error, NotStarted) else 128
        message = sentence(error) if isinstance(error, OSError) else str(error)
        line.send(dumps({"code": code, "message": message}))
    except BaseException:
        import traceback  # loaded by the keeper; not before the shim's own code, which is to lie close

        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:  # also where the daemon's log is on a full disk: nobody may return from here
            os._exit(0)


def _open_groups(group: str | None) -> list[int]:
    try:
        return groups.open_groups(group)
    except OSError as error:
        reason = f"the control group {group} is not there: {strerror(error)}"
        raise NotStarted(128, str(start_failed(CREATE, reason))) from None


def _prepare(
    line: _socket.socket, raw: Mapping[str, Any], fds: list[int], shim: int
) -> tuple[Start, tuple[int, int, int] | None]:
    """What the shim needs of it is sent; the start message, and the process's end of its streams."""
    from dockpy.shim import protocol

    start = protocol.Start.from_json(raw, fds[1:])
    listener = listening(start.socket)
    writer = open_writer(start.log, start.bundle, start.id)
    # Before there is a process, so that whoever comes after a crash of all others knows of this shim.
    write_shim(raw, shim)
    theirs, ours = (None, ()) if start.tty else make_pipes(start.open_stdin)
    parts = (
        () if listener is None else (listener.fileno(),),
        () if writer is None else writer.descriptors(),
        ours,
    )
    state = None if writer is None else writer.state()
    values: Any = (raw, state, len(parts[0]), len(parts[1]))
    send_raw(line, marshal.dumps(values), [fd for part in parts for fd in part])
    return start, theirs
