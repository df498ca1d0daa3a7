"""Datagrams with descriptors, and attachments: what a shim itself reads and writes of its protocol.

Apart from shim.protocol, and without dataclasses, for the shims' memory: these objects are loaded before
all others, side by side, and not strewn over the pages of what a dataclass imports (see keeper).
"""

from __future__ import annotations

import _socket
import binascii
import os
import struct

from dockpy.fastjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# Far below the default wmem (208 KiB), so that a datagram always fits an empty socket buffer.
LONGEST = 1 << 16
# The kernel's SCM_MAX_FD.
MOST_FDS = 253
STREAMS = ("stdin", "stdout", "stderr")


class BadMessage(ValueError):
    """A datagram that is not of this protocol."""


class NotStarted(Exception):
    """A process could not be started; code as docker's: 126, 127 or 128."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# ------------------------------------------------------------------------------------ datagrams


def send_packet(sock: _socket.socket, obj: Mapping[str, object], fds: Sequence[int] = ()) -> None:
    """One object with descriptors; BlockingIOError when the other side does not keep up."""
    data = dumps(obj)
    memfd = -1
    if len(data) > LONGEST:
        memfd = os.memfd_create("dockpy-message", os.MFD_CLOEXEC)
        view = memoryview(data)
        while view:
            view = view[os.write(memfd, view) :]
        data = b'{"memfd":true}'
        fds = (*fds, memfd)
    try:
        send_raw(sock, data, fds)
    finally:
        if memfd >= 0:
            os.close(memfd)


def send_raw(sock: _socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """A datagram as it is."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
    sock.sendmsg([data], rights if fds else [], _socket.MSG_NOSIGNAL)


def receive_packet(sock: _socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next object and its descriptors (close-on-exec, the caller's to close); None at the
    end.
    """
    raw = receive_raw(sock)
    return None if raw is None else decode(*raw)


def receive_raw(sock: _socket.socket) -> tuple[bytes, list[int]] | None:
    """The next datagram as it is, for `decode`; None at the end."""
    while True:
        try:
            data, ancillary, flags, _ = sock.recvmsg(
                2 * LONGEST, _socket.CMSG_SPACE(4 * MOST_FDS), _socket.MSG_CMSG_CLOEXEC
            )
            break
        except ConnectionResetError:
            # The other side closed with something of ours unread. The kernel says so once, and before
            # what it had sent itself, which is still there.
            continue
    fds: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            count = len(content) // 4
            fds += struct.unpack(f"{count}i", content[: 4 * count])
    if not data:
        close_all(fds)
        return None
    if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        close_all(fds)
        raise BadMessage("datagram longer than the protocol allows")
    return data, fds


def decode(data: bytes, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
    """The object of a datagram and the descriptors that are its own; closes them when it is none."""
    try:
        obj = loads(data)
        if isinstance(obj, dict) and obj.get("memfd") is True and fds:
            memfd = fds.pop()
            try:
                obj = loads(_read_whole(memfd))
            finally:
                os.close(memfd)
        if not isinstance(obj, dict):
            raise BadMessage("not an object")
    except ValueError as error:
        close_all(fds)
        raise BadMessage(str(error)) from None
    return obj, fds


def _read_whole(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > 16 << 20:
        raise BadMessage("message longer than 16 MiB")
    return os.pread(fd, size, 0)


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


# ------------------------------------------------------------------------------------ attachments


class Sinks:
    """Descriptors of the client itself, used in place of its connection while that lives."""

    __slots__ = ("stderr", "stdin", "stdout")

    def __init__(
        self, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr


class Attachment:
    """One attached client: its connection, which streams it takes, and its own descriptors for
    some. `early`: what of stdin was read together with the request's head.
    `exit`: a last frame tells the exit code.
    """

    __slots__ = (
        "conn",
        "detach_keys",
        "early",
        "exit",
        "framed",
        "sinks",
        "stderr",
        "stdin",
        "stdout",
    )

    def __init__(
        self,
        conn: int,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        framed: bool = True,
        sinks: Sinks | None = None,
        detach_keys: str = "",
        early: bytes = b"",
        exit: bool = False,
    ) -> None:
        self.conn = conn
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.framed = framed
        self.sinks = sinks or Sinks()
        self.detach_keys = detach_keys
        self.early = early
        self.exit = exit

    def to_json(self, fds: list[int]) -> dict[str, object]:
        """For the wire; appends this attachment's descriptors to `fds`, which the indexes speak of."""

        def index(fd: int | None) -> int | None:
            if fd is None:
                return None
            fds.append(fd)
            return len(fds) - 1

        return {
            "conn": index(self.conn),
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "framed": self.framed,
            "sinks": {name: index(getattr(self.sinks, name)) for name in STREAMS},
            "detach_keys": self.detach_keys,
            "early": binascii.b2a_base64(self.early, newline=False).decode("ascii"),
            "exit": self.exit,
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any], fds: Sequence[int]) -> Attachment:
        def descriptor(value: object) -> int | None:
            if value is None:
                return None
            if not isinstance(value, int) or not 0 <= value < len(fds):
                raise BadMessage(f"no descriptor {value!r} in this datagram")
            return fds[value]

        conn = descriptor(raw["conn"])
        if conn is None:
            raise BadMessage("an attachment needs its connection")
        sinks = raw.get("sinks") or {}
        return Attachment(
            conn,
            bool(raw.get("stdin")),
            bool(raw.get("stdout")),
            bool(raw.get("stderr")),
            bool(raw.get("framed")),
            Sinks(*(descriptor(sinks.get(name)) for name in STREAMS)),
            str(raw.get("detach_keys") or ""),
            binascii.a2b_base64(raw.get("early") or b""),
            bool(raw.get("exit")),
        )


def size_from_json(raw: object) -> tuple[int, int] | None:
    """A console size, `[height, width]`; None when absent."""
    if raw is None:
        return None
    if not isinstance(raw, (list, tuple)) or len(raw) != 2:
        raise BadMessage("console_size is [height, width]")
    height, width = (min(max(int(value), 0), 65535) for value in raw)
    return height, width


def close_others(keep: Sequence[int]) -> None:
    """Every descriptor but those, and 0 to 2. No process of ours that forks has a thousand."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, 1024))
