"""The daemon's unix socket: accepts, receives, sends, passes descriptors. Knows no HTTP.

A plain non-blocking socket and trio's readiness calls, since a hijacked connection is handed to a
shim as a descriptor: nothing may stand between (no buffer, no wrapper that closes it).
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable
from typing import Callable

import trio

CHUNK = 1 << 16


class Connection:
    """One accepted stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket: socket.socket | None = sock
        self.farewell = b""  # what `hang_up` says, where it may be said now

    @property
    def sock(self) -> socket.socket:
        if self._socket is None:
            raise trio.ClosedResourceError("the connection was handed over")
        return self._socket

    @property
    def handed_over(self) -> bool:
        return self._socket is None

    async def receive(self, limit: int = CHUNK) -> bytes:
        """The next bytes; b"" when the peer has closed its side."""
        while True:
            try:
                return self.sock.recv(limit)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)
            except ConnectionError:
                return b""

    async def receive_descriptors(self, count: int, byte: bytes) -> list[int]:
        """The one byte that carries `count` descriptors; ConnectionError when something else comes."""
        room = socket.CMSG_SPACE(max(count, 1) * 4)
        while True:
            try:
                data, ancillary, flags, _ = self.sock.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
                break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if data != byte or len(fds) != count or flags & socket.MSG_CTRUNC:
            for fd in fds:
                os.close(fd)
            raise ConnectionError("the descriptors that were announced did not come")
        return list(fds)

    async def send(self, data: bytes) -> None:
        """All of `data`; BrokenPipeError or ConnectionResetError when the peer is gone."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        view = memoryview(data)[sent:]
        while view:
            await trio.lowlevel.wait_writable(self.sock)
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                continue

    async def send_file(self, fd: int, offset: int, length: int) -> int:
        """`length` bytes of a file from `offset`; the number that were there to be sent."""
        done = 0
        while done < length:
            try:
                sent = os.sendfile(
                    self.sock.fileno(), fd, offset + done, min(length - done, 1 << 24)
                )
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)
                continue
            if sent == 0:
                break
            done += sent
            await trio.lowlevel.checkpoint()
        return done

    async def wait_hangup(self) -> None:
        """Returns when the peer has closed its side. Bytes of a next request do not count."""
        while True:
            await trio.lowlevel.wait_readable(self.sock)
            try:
                if not self.sock.recv(1, socket.MSG_PEEK):
                    return
            except BlockingIOError:
                continue
            except ConnectionError:
                return
            # A pipelined request: readable from now on, so look again from time to time only.
            await trio.sleep(1)

    async def linger(self, seconds: float) -> None:
        """Says that nothing more comes, and reads on until the peer has understood."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        with trio.move_on_after(seconds):
            while await self.receive():
                pass

    def hand_over(self) -> socket.socket:
        """The socket itself; the caller closes it."""
        sock, self._socket = self.sock, None
        return sock

    def hang_up(self) -> None:
        """At once; whoever waits for the peer goes on as if it had closed."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                if self.farewell:
                    self._socket.send(self.farewell)
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def serve(listener: socket.socket, handle: Callable[[Connection], Awaitable[None]]) -> None:
    """Accepts until `no_more`; each connection is a task of its own and ends by itself."""
    listener.setblocking(False)
    async with trio.open_nursery() as nursery:
        while listener.fileno() >= 0:
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                with contextlib.suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(listener)
                continue
            except OSError as error:
                if error.errno not in (
                    errno.EMFILE,
                    errno.ENFILE,
                    errno.ENOMEM,
                    errno.ENOBUFS,
                    errno.ECONNABORTED,
                ):
                    raise
                await trio.sleep(0.05)
                continue
            nursery.start_soon(_handle, handle, Connection(sock))


def no_more(listener: socket.socket) -> None:
    """Closes it; `serve` ends when its last connection has."""
    trio.lowlevel.notify_closing(listener)
    listener.close()


async def _handle(handle: Callable[[Connection], Awaitable[None]], connection: Connection) -> None:
    try:
        await handle(connection)
    finally:
        connection.close()
