"""A request whose body is a file or a pipe: load and import."""

from __future__ import annotations

import os
import stat

from dockpy.client.connection import Connection, Opened, Stream
from dockpy.http import plain

CHUNK = 256 << 10
_SENDFILE = 1 << 30


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
