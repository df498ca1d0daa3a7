"""What daemon and keeper say to each other; and the daemon's end of the line.

SOCK_SEQPACKET, one JSON object a datagram, descriptors by SCM_RIGHTS (shim/protocol has the datagrams).

  daemon -> keeper  {"op":"shim","seq":n,"group":g,"fresh":[…],"start":{…}} + [control, attachments' descriptors]
  keeper -> daemon  {"seq":n,"pid":p} + [pidfd]   or   {"seq":n,"error":"…"}
  keeper -> daemon  {"op":"listen"} + [socket]    the socket's file had vanished: here is the new listener; clients
                                                  may wait at those before, for FORMER seconds
  daemon -> keeper  {"op":"stop"}                 the daemon's end is meant: keeper ends with it

When the keeper dies without an answer, the shim may or may not exist: the control socket tells. It
is at its end (ShimLink.receive gives None) exactly when nobody has been started; then ask the next
keeper.
"""

from __future__ import annotations

import _socket
from dataclasses import dataclass

from dockpy.shim.packets import BadMessage, close_all, receive_packet, send_packet
from dockpy.shim.protocol import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    Answer: TypeAlias = "Born | NotBorn | NewListener"

# In which whoever had found the socket's file before it was deleted has been accepted.
FORMER = 10.0


@dataclass(frozen=True)
class Born:
    """Shim of request `seq`; `pidfd` is the daemon's to watch and to close."""

    seq: int
    pid: int
    pidfd: int


@dataclass(frozen=True)
class NotBorn:
    seq: int
    error: str


@dataclass(frozen=True)
class NewListener:
    """A listening socket in place of the one whose file was deleted: accept here (too)."""

    fd: int


class KeeperLink:
    """The daemon's end; non-blocking, `fileno()` is for wait_readable.

    `start_shim` raises BlockingIOError (wait_writable, again), BrokenPipeError or ConnectionResetError
    when the keeper is gone. `receive` gives None then: keeper.takeover.spawn makes the next one.
    Descriptors passed stay the caller's to close once the call has returned.
    """

    def __init__(self, fd: int) -> None:
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        self._sock.setblocking(False)
        self._seq = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def start_shim(self, start: Start, control: int) -> int:
        """Asks for a shim; returns the `seq` that Born or NotBorn will carry. See ShimLink.pair."""
        fds: list[int] = []
        message = start.to_json(fds)
        seq = self._seq + 1
        head = {"op": "shim", "seq": seq, "group": start.group, "fresh": start.fresh}
        send_packet(self._sock, {**head, "start": message}, [control, *fds])
        self._seq = seq
        return seq

    def stop(self) -> None:
        send_packet(self._sock, {"op": "stop"})

    def receive(self) -> Answer | None:
        """The next answer; BlockingIOError when there is none yet; None when the keeper is gone."""
        packet = receive_packet(self._sock)
        if packet is None:
            return None
        raw, fds = packet
        try:
            if raw.get("op") == "listen" and len(fds) == 1:
                return NewListener(fds.pop())
            if "error" in raw:
                return NotBorn(int(raw["seq"]), str(raw["error"]))
            if len(fds) != 1:
                raise BadMessage("a keeper's answer without its descriptor")
            return Born(int(raw["seq"]), int(raw["pid"]), fds.pop())
        finally:
            close_all(fds)
