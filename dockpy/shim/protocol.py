"""What the daemon and a shim say to each other, as values; and the daemon's end of the line.

Control socket: SOCK_SEQPACKET, one JSON object a datagram, descriptors by SCM_RIGHTS. The daemon
asks `{"seq":n,"op":…}`, the shim answers `{"seq":n,"ok":true,…}` or `{"seq":n,"error":…,"kind":…}`,
and tells events `{"event":…}` unasked. Descriptors are plain ints on both sides here; only the wire
speaks of indexes into the descriptors of its datagram (a start message: after the control socket).

  daemon                         keeper                      shim
    | -- start + [control, fds] --> | -- fork, fork ----------> |
    | <------- pid + pidfd -------- |                           |  shim.json, pipes, create
    | <-- event started | failed ------------------------------ |
    | -- attach, exec, resize, kill, state --> (answers) ------ |
    | <-- event exec-started … exec-exit … exit (after exit.json) |

An object longer than a datagram may be travels in a memfd: `{"memfd":true}`, last descriptor.
"""

from __future__ import annotations

import _socket
import os
import signal
import time
from dataclasses import dataclass, field

from dockpy.shim.packets import Attachment as Attachment
from dockpy.shim.packets import BadMessage as BadMessage
from dockpy.shim.packets import NotStarted as NotStarted
from dockpy.shim.packets import Sinks as Sinks
from dockpy.shim.packets import close_all, receive_packet, send_packet, size_from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from typing_extensions import TypeAlias

    Message: TypeAlias = (
        "Reply | Refusal | Started | Failed | ExecStarted | ExecFailed | ExecExit | Exit | Detached"
    )


@dataclass(frozen=True)
class LogConfig:
    driver: str = "local"  # local, json-file or none
    folder: str = ""  # of the local driver: <bundle>/log
    max_size: int = 20_000_000  # 0: unlimited
    max_file: int = 5
    extra: str = ""  # of json-file: the attributes of every line, an object of JSON, or nothing


@dataclass(frozen=True)
class Start:
    """All that a shim is told; the OCI spec is `<bundle>/config.json`."""

    id: str
    bundle: str
    socket: str
    boot: str
    log: LogConfig = LogConfig()
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    console_size: tuple[int, int] | None = None  # height, width
    attachments: tuple[Attachment, ...] = ()
    stop_on_shim_death: bool = True
    # For what the shim ends by itself (shim.ending): after `timeout` seconds (0: never), or with
    # `lease` when the last of `attachments` has gone.
    timeout: float = 0.0
    lease: bool = False
    stop_signal: int = 15
    stop_timeout: float = 10.0  # seconds until SIGKILL; negative: never
    # What is to be known before the specification is read (shim.birth), so in the message's head: the
    # namespaces that it makes, none where it makes or joins a user namespace; the container's control group.
    fresh: tuple[str, ...] = ()
    group: str | None = None

    def to_json(self, fds: list[int]) -> dict[str, object]:
        return {
            "id": self.id,
            "bundle": self.bundle,
            "socket": self.socket,
            "boot": self.boot,
            "log": {
                "driver": self.log.driver,
                "folder": self.log.folder,
                "max_size": self.log.max_size,
                "max_file": self.log.max_file,
                "extra": self.log.extra,
            },
            "tty": self.tty,
            "open_stdin": self.open_stdin,
            "stdin_once": self.stdin_once,
            "console_size": self.console_size,
            "attachments": [attachment.to_json(fds) for attachment in self.attachments],
            "stop_on_shim_death": self.stop_on_shim_death,
            "timeout": self.timeout,
            "lease": self.lease,
            "stop_signal": self.stop_signal,
            "stop_timeout": self.stop_timeout,
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any], fds: Sequence[int]) -> Start:
        log = raw["log"]
        return Start(
            str(raw["id"]),
            str(raw["bundle"]),
            str(raw["socket"]),
            str(raw["boot"]),
            LogConfig(
                str(log["driver"]),
                str(log.get("folder") or ""),
                int(log.get("max_size") or 0),
                int(log.get("max_file") or 1),
                str(log.get("extra") or ""),
            ),
            bool(raw.get("tty")),
            bool(raw.get("open_stdin")),
            bool(raw.get("stdin_once")),
            size_from_json(raw.get("console_size")),
            tuple(Attachment.from_json(item, fds) for item in raw.get("attachments") or ()),
            bool(raw.get("stop_on_shim_death", True)),
            float(raw.get("timeout") or 0),
            bool(raw.get("lease")),
            int(raw.get("stop_signal") or 15),
            float(raw.get("stop_timeout", 10)),
        )


# ------------------------------------------------------------------------------ what a shim says


@dataclass(frozen=True)
class Reply:
    """The answer to request `seq`; `fields` holds what the op returns."""

    seq: int
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """Request `seq` could not be done. kind: not-found, not-running, invalid, failed."""

    seq: int
    error: str
    kind: str


@dataclass(frozen=True)
class Started:
    pid: int
    start: int  # clock ticks after boot (ids.start_time)
    shim: int  # the shim's own pid


@dataclass(frozen=True)
class Failed:
    """The container's process could not be started; no Exit follows. code: 126, 127 or 128."""

    code: int
    message: str


@dataclass(frozen=True)
class ExecStarted:
    exec: str
    pid: int


@dataclass(frozen=True)
class ExecFailed:
    exec: str
    code: int
    message: str


@dataclass(frozen=True)
class ExecExit:
    exec: str
    code: int


@dataclass(frozen=True)
class Exit:
    """The container's process has ended and `<bundle>/exit.json` is written."""

    code: int
    finished: str  # RFC 3339, nanoseconds
    oom: bool = False
    error: str = ""  # why the shim has ended it


@dataclass(frozen=True)
class Detached:
    """A client typed its detach keys. exec: None for the container's own streams."""

    exec: str | None = None


def message_from_json(raw: Mapping[str, Any]) -> Message | None:
    """None for an event of a newer shim that this build does not know."""
    try:
        event = raw.get("event")
        if event is None:
            if "error" in raw:
                return Refusal(int(raw["seq"]), str(raw["error"]), str(raw.get("kind") or "failed"))
            return Reply(int(raw["seq"]), raw)
        if event == "started":
            return Started(int(raw["pid"]), int(raw["start"]), int(raw["shim"]))
        if event == "failed":
            return Failed(int(raw["code"]), str(raw["message"]))
        if event == "exec-started":
            return ExecStarted(str(raw["exec"]), int(raw["pid"]))
        if event == "exec-failed":
            return ExecFailed(str(raw["exec"]), int(raw["code"]), str(raw["message"]))
        if event == "exec-exit":
            return ExecExit(str(raw["exec"]), int(raw["code"]))
        if event == "exit":
            return Exit(
                int(raw["code"]),
                str(raw["finished"]),
                bool(raw.get("oom")),
                str(raw.get("error") or ""),
            )
        if event == "detached":
            return Detached(raw.get("exec"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadMessage(f"a shim's message lacks {error}") from None
    return None


# --------------------------------------------------------------------------- the daemon's end


class ShimLink:
    """The daemon's end of a shim's control socket; non-blocking, `fileno()` is for wait_readable.

    A request returns its `seq`; its Reply or Refusal comes out of `receive` like every event.
    Requests raise BlockingIOError when the socket is full (wait_writable, ask again) and
    BrokenPipeError or ConnectionResetError when the shim is gone. Descriptors that are passed stay
    the caller's to close, once the call has returned. `receive` returns None at the end of the
    shim: look at exit.json then. All events before the end are readable even when the shim is long
    dead.
    """

    def __init__(self, sock: _socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._seq = 0

    @classmethod
    def pair(cls) -> tuple[ShimLink, int]:
        """A new link and the descriptor to start the shim with (KeeperLink.start_shim; then close
        it).
        """
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        return cls(ours), theirs.detach()

    @classmethod
    def connect(cls, path: str) -> ShimLink:
        """To a running shim, by the socket in its shim.json (a later daemon's way). See also
        `reach`.
        """
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    @classmethod
    def reach(cls, path: str, pid: int, patience: float = 2.0) -> ShimLink:
        """connect, for a shim known to live: when its socket was deleted, it is told to make it
        again. Blocks for up to `patience` seconds; OSError when it cannot be reached.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                return cls.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise
            os.kill(pid, signal.SIGHUP)
            time.sleep(0.01)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def receive(self) -> Message | None:
        """The next message; BlockingIOError when there is none yet; None at the end."""
        while True:
            packet = receive_packet(self._sock)
            if packet is None:
                return None
            raw, fds = packet
            close_all(fds)
            message = message_from_json(raw)
            if message is not None:
                return message

    def attach(self, attachment: Attachment) -> int:
        fds: list[int] = []
        return self._request("attach", {"attachment": attachment.to_json(fds)}, fds)

    def exec(
        self,
        exec_id: str,
        process: Mapping[str, object],
        *,
        tty: bool = False,
        console_size: tuple[int, int] | None = None,
        attachments: Sequence[Attachment] = (),
        detach: bool = False,
        about: str = "",
        group: str | None = None,
    ) -> int:
        """Answered when the process has started or failed (a Refusal then); its events come as
        well. `about` is what `state` tells a next daemon, with the exit code; without it nothing
        is kept once the end was told. `group`: the container's control group, if it has one.
        """
        fds: list[int] = []
        fields = {
            "exec": exec_id,
            "process": process,
            "tty": tty,
            "console_size": console_size,
            "attachments": [attachment.to_json(fds) for attachment in attachments],
            "detach": detach,
            "about": about,
            "group": group,
        }
        return self._request("exec", fields, fds)

    def resize(self, height: int, width: int, *, exec_id: str | None = None) -> int:
        return self._request("resize", {"exec": exec_id, "h": height, "w": width})

    def kill(self, signal: int, *, exec_id: str | None = None, everyone: bool = False) -> int:
        return self._request("kill", {"exec": exec_id, "signal": signal, "all": everyone})

    def state(self, *, about: bool = False) -> int:
        """The Reply's fields: pid, start, code (None while it runs), execs {id: {pid, code, about}};
        with `about` also those of the last execs whose end has been told.
        """
        return self._request("state", {"about": about})

    def grown(self, position: tuple[int, int]) -> int:
        """Replied once the log has grown beyond that (a reader's `position()`), or will not any
        more.
        """
        return self._request("grown", {"position": position})

    def _request(self, op: str, fields: Mapping[str, object], fds: Sequence[int] = ()) -> int:
        seq = self._seq + 1
        send_packet(self._sock, {"seq": seq, "op": op, **fields}, fds)
        self._seq = seq
        return seq
