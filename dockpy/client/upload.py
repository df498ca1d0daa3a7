"""Requests with large bodies: a file or a pipe (load, import), an archive made on the way (cp).

Our own daemon is lent the descriptor of a file, as attach lends streams (hijack.py), and reads it where it
lies; everybody else is sent its bytes.
"""

from __future__ import annotations

import _socket
import os
import stat
import sys

from dockpy.client.connection import READ, Connection, Opened, Stream, target
from dockpy.http import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHUNK = 256 << 10
_SENDFILE = 1 << 30


def lend(
    connection: Connection, path: str, query: Mapping[str, object], fd: int
) -> Iterator[bytes] | None:
    """POST with a regular file as descriptor, and what comes back; None where bytes must be sent."""
    if not connection.endpoint.own or not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    where = target(path, {**query, "fds": "archive"})
    headers = {"Connection": "Upgrade", "Upgrade": "dockpy-fds"}
    stream = connection.open("POST", where, headers=headers, fresh=True).stream()
    if stream.head.headers.get("upgrade", "").lower() != "dockpy-fds":
        stream.close()
        return None
    descriptor = fd.to_bytes(4, sys.byteorder)
    stream.socket.sendmsg([b"F"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)])
    return _rest(stream)


def _rest(stream: Stream) -> Iterator[bytes]:
    try:
        data = stream.leftover() or stream.socket.recv(READ)
        while data:
            yield data
            data = stream.socket.recv(READ)
    finally:
        stream.close()


def post(connection: Connection, where: str, fd: int) -> Stream:
    """POST of all that can be read from `fd`: by sendfile from a file, else in chunks."""
    headers = {**connection.headers(), "Content-Type": "application/x-tar"}
    sock = connection.endpoint.connect()
    try:
        facts = os.fstat(fd)
        try:
            if stat.S_ISREG(facts.st_mode):
                at = os.lseek(fd, 0, os.SEEK_CUR)
                left = max(facts.st_size - at, 0)
                sock.sendall(
                    plain.request(
                        "POST", where, {**headers, "Content-Length": str(left)}, b"", sized=True
                    )
                )
                while left:
                    sent = os.sendfile(sock.fileno(), fd, None, min(left, _SENDFILE))
                    if not sent:
                        raise OSError("the file became shorter while it was sent")
                    left -= sent
            else:
                sock.sendall(
                    plain.request("POST", where, {**headers, "Transfer-Encoding": "chunked"})
                )
                while True:
                    data = os.read(fd, CHUNK)
                    sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))
                    if not data:
                        break
        except (BrokenPipeError, ConnectionResetError):
            pass  # the daemon has answered without wanting the rest: its reason is worth more
        return Opened(sock, "POST", None, connection.endpoint).stream()
    except BaseException:
        sock.close()
        raise


class Body:
    """A request's body made by and by, in chunks; larger pieces of files go by sendfile."""

    def __init__(self, connection: Connection, method: str, where: str) -> None:
        headers = {
            **connection.headers(),
            "Content-Type": "application/x-tar",
            "Transfer-Encoding": "chunked",
        }
        self.sent = 0
        self._method = method
        self._endpoint = connection.endpoint
        self._socket = connection.endpoint.connect()
        self._socket.sendall(plain.request(method, where, headers))

    def write(self, data: bytes) -> None:
        if data:
            self._socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            self.sent += len(data)

    def send(self, fd: int, offset: int, length: int) -> None:
        """A piece of a file; zeros for what it has become shorter by."""
        self._socket.sendall(b"%x\r\n" % length)
        end = offset + length
        while offset < end:
            done = os.sendfile(self._socket.fileno(), fd, offset, min(end - offset, _SENDFILE))
            if not done:
                done = min(end - offset, CHUNK)
                self._socket.sendall(bytes(done))
            offset += done
        self._socket.sendall(b"\r\n")
        self.sent += length

    def answer(self, fill: Callable[[Body], object]) -> Stream:
        """Lets `fill` write the body, and awaits what the daemon says of it."""
        try:
            try:
                fill(self)
                self._socket.sendall(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass  # the daemon has answered without wanting the rest: its reason is worth more
            return Opened(self._socket, self._method, None, self._endpoint).stream()
        except BaseException:
            self._socket.close()
            raise
