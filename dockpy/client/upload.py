"""A request whose body is a file or a pipe: load and import.

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
    from collections.abc import Iterator, Mapping

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
