"""A container's beginning: a fork of the shim that prepares all, and then is the container's first process.

It opens log and socket, reads the specification and builds the container: more than a megabyte of memory
touched, which the shim, who lives for days, does not have. It was cloned into a new pid namespace for that,
so that no further fork is needed (each costs a millisecond: 400 pages are copied because they are touched).
Where that cannot be (Start.alone), it makes the process as its sibling, says so, and ends.

  shim                             worker
   | -- clone(CLONE_NEWPID) -------> | log, socket, shim.json, pipes
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

from dockpy.errors import sentence
from dockpy.fastjson import dumps, loads
from dockpy.linux.namespaces import CLONE_NEWPID
from dockpy.runtime import groups
from dockpy.runtime.conversation import announce, converse
from dockpy.runtime.errors import CREATE, StartFailed, start_failed, strerror
from dockpy.shim.clients import send_away
from dockpy.shim.control import listening
from dockpy.shim.exit import start_ticks, write_exit, write_shim
from dockpy.shim.kill import kill_children
from dockpy.shim.logwriter import open_writer, rfc3339_nano
from dockpy.shim.packets import NotStarted, decode, send_packet
from dockpy.shim.stdio import make_pipes
from dockpy.shim.worker import LONGEST, WORKER_DIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from dockpy.shim.protocol import Start
    from dockpy.shim.worker import Launcher


class Born:
    """What the shim keeps of it."""

    def __init__(self, prepared: bytes, fds: list[int], pid: int, console: int | None) -> None:
        self.start: dict[str, Any]  # the start message
        self.start, self.state, listeners, logs = marshal.loads(prepared)
        self.listener = fds[0] if listeners else None
        self.log = fds[listeners : listeners + logs]  # with `state`: resume_writer
        self.streams = fds[listeners + logs :] if console is None else [console]
        self.pid = pid
        self.ticks = start_ticks(pid)
        self.time = time.time_ns()


def bear(packet: bytes, fds: Sequence[int], launcher: Launcher) -> Born | None:
    """Starts the container of a start message (`packet`, shim.packets.decode); shim.json tells of it then.

    None when that failed, which has been written and told then.
    """
    alone, group = _head(packet)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    shim = os.getpid()
    folders: list[int] = []
    try:
        folders = groups.open_groups(group)
        worker, pidfd = groups.clone(CLONE_NEWPID if alone else 0, folders)
    except OSError as error:
        what = "clone" if folders or not group else f"opening the control group {group}"
        _failed(packet, fds, start_failed(CREATE, f"{what}: {strerror(error)}"))
        return None
    if worker == 0:
        _work(theirs, packet, fds, launcher, shim, folders if alone else None)
    theirs.close()
    for fd in (pidfd, *folders):
        if fd >= 0:
            os.close(fd)
    prepared, got = _receive(ours)
    try:
        created = converse(ours, worker, -1, CREATE)
    except StartFailed as failure:
        _failed(packet, fds, failure if prepared else StartFailed(WORKER_DIED, 128))
        return None
    finally:
        ours.close()
    if created.pidfd >= 0:
        os.close(created.pidfd)
    born = Born(prepared, got, created.pid, created.console)
    write_shim(born.start, shim, born.pid, born.ticks)
    return born


def _head(packet: bytes) -> tuple[bool, str | None]:
    """Start.alone, and then Start.group: read without the rest, which a shim does not parse."""
    end = packet.find(b',"start":')
    head = loads(packet[:end] + b"}") if end > 0 else None
    if not isinstance(head, dict):
        return False, None
    return (True, head.get("group")) if head.get("alone") else (False, None)


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


def _work(
    line: _socket.socket,
    packet: bytes,
    fds: Sequence[int],
    launcher: Launcher,
    shim: int,
    folders: list[int] | None,
) -> NoReturn:
    """`folders`: the control groups to join by one who is alone; None: by one who is not."""
    prepared = False
    try:
        _signal.set_wakeup_fd(-1)
        start, stdio = _prepare(line, packet, fds, shim)
        prepared = True
        if folders is not None:
            launcher.become(line.fileno(), folders, start.bundle, stdio, start.console_size)
        announce(line, *launcher.create(start.bundle, stdio, start.console_size))
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


def _prepare(
    line: _socket.socket, packet: bytes, fds: Sequence[int], shim: int
) -> tuple[Start, tuple[int, int, int] | None]:
    """What the shim needs of it is sent; the start message, and the process's end of its streams."""
    from dockpy.shim import protocol

    raw, fds = decode(packet, list(fds))
    start = protocol.Start.from_json(raw["start"], fds[1:])
    listener = listening(start.socket)
    writer = open_writer(start.log, start.bundle, start.id)
    # Before there is a process, so that whoever comes after a crash of all others knows of this shim.
    write_shim(raw["start"], shim, None, 0)
    theirs, ours = (None, ()) if start.tty else make_pipes(start.open_stdin)
    parts = (
        () if listener is None else (listener.fileno(),),
        () if writer is None else writer.descriptors(),
        ours,
    )
    state = None if writer is None else writer.state()
    values: Any = (raw["start"], state, len(parts[0]), len(parts[1]))
    kept: list[int] = [fd for part in parts for fd in part]
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(kept)}i", *kept))]
    line.sendmsg([marshal.dumps(values)], rights if kept else [])
    return start, theirs
