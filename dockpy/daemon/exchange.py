"""One request and its reply: what a handler works with.

Async for the short and the waiting kind; `Threaded` for bulk (load, save, import), where one worker
thread reads and writes the connection itself, so that a gigabyte does not pass through trio's thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
from collections.abc import Awaitable, Mapping, Sequence
from typing import Callable, TypeVar

import trio

import dockpy
from dockpy.errors import InvalidParameter
from dockpy.http.codec import ServerCodec, raw_head
from dockpy.http.messages import Body, EndOfRequest, NeedData, Request
from dockpy.transport.unix import Connection

T = TypeVar("T")

JSON_LIMIT = 16 << 20  # a create with a large seccomp profile is some 100 KiB
BODY_CHUNK = 1 << 20

BASE_HEADERS: tuple[tuple[str, str], ...] = (
    ("Api-Version", dockpy.API_VERSION),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", f"Docker/{dockpy.__version__} (linux)"),
)

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
DESCRIPTORS_WITHIN = 10.0


class PeerGone(Exception):
    """The client has closed its side while it was still owed something."""


class Exchange:
    def __init__(self, connection: Connection, codec: ServerCodec, request: Request) -> None:
        self.connection = connection
        self.request = request
        self.version: tuple[int, int] = (1, 50)
        self.names: Mapping[str, str] = {}
        self._codec = codec
        self.body_read = False  # whether all of it has been taken
        self.begun = False  # whether the status is on its way
        self.broken = False  # whether only closing the connection can end the reply

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    # ------------------------------------------------------------------------------ body

    async def body(self, limit: int = JSON_LIMIT) -> bytes:
        """The whole body; InvalidParameter when it is longer than `limit`."""
        if self._codec.wants_continue:
            await self.connection.send(self._codec.go_on())
        parts: list[bytes] = []
        size = 0
        while True:
            event = self._codec.next_event()
            if isinstance(event, Body):
                size += len(event.data)
                if size > limit:
                    self.broken = True
                    raise InvalidParameter(f"the request's body is longer than {limit} bytes")
                parts.append(event.data)
            elif isinstance(event, EndOfRequest):
                self.body_read = True
                return b"".join(parts)
            elif isinstance(event, NeedData):
                data = await self.connection.receive(BODY_CHUNK)
                self._codec.receive(data)
            else:
                raise PeerGone

    async def json(self, *, empty: object = None) -> object:
        data = await self.body()
        if not data.strip():
            return empty
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidParameter(f"invalid JSON: {error}") from None

    # ----------------------------------------------------------------------------- reply

    async def reply(
        self, status: int = 200, value: object = None, *, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """A JSON value, bytes as they are, or no body for None."""
        if isinstance(value, bytes):
            body, kind = value, None
        elif value is None:
            body, kind = b"", None
        else:
            body, kind = (
                json.dumps(value, separators=(",", ":")).encode() + b"\n",
                "application/json",
            )
        every = [*BASE_HEADERS, *headers]
        if kind is not None:
            every.append(("Content-Type", kind))
        if status not in (204, 304):
            every.append(("Content-Length", str(len(body))))
        self.begun = True
        data = self._codec.head(status, every)
        if body and self.request.method != "HEAD":
            data += self._codec.data(body)
        await self.connection.send(data + self._codec.end())

    async def begin(self, content_type: str = "application/json", status: int = 200) -> None:
        """The head of a reply whose body comes in pieces; it is sent at once."""
        self.begun = True
        await self.connection.send(
            self._codec.head(status, [*BASE_HEADERS, ("Content-Type", content_type)])
        )

    async def write(self, data: bytes) -> None:
        if data:
            await self.connection.send(self._codec.data(data))

    async def write_line(self, value: object) -> None:
        await self.write(json.dumps(value, separators=(",", ":")).encode() + b"\r\n")

    async def write_file(self, header: bytes, fd: int, offset: int, length: int) -> None:
        """`header`, then a range of a file."""
        before, after = self._codec.data_frame(len(header) + length)
        await self.connection.send(before + header)
        if await self.connection.send_file(fd, offset, length) != length:
            self.broken = True
            raise PeerGone
        if after:
            await self.connection.send(after)

    async def end(self) -> None:
        await self.connection.send(self._codec.end())

    async def while_connected(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns; PeerGone as soon as the client has hung up."""
        result: list[T] = []
        failure: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self.connection.wait_hangup()
                nursery.cancel_scope.cancel()

            async def run() -> None:
                try:
                    result.append(await work())
                except Exception as error:  # raised again outside, where it is not in a group
                    failure.append(error)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            nursery.start_soon(run)
        if failure:
            raise failure[0]
        if not result:
            self.broken = True
            raise PeerGone
        return result[0]

    # ---------------------------------------------------------------------------- hijack

    async def hijack(self, *, framed: bool) -> tuple[socket.socket, dict[str, int], bytes]:
        """The connection itself, the descriptors that our own client sent, and what it had sent already.

        The caller owns both from now on. framed: whether the stream will be multiplexed.
        """
        if not self.body_read:
            await self.body()
        multiplexed = framed and self.version >= (1, 42)
        kind = MULTIPLEXED_STREAM if multiplexed else RAW_STREAM
        upgrade = self.request.upgrade
        if upgrade is not None:
            head = raw_head(101, "UPGRADED", [("Content-Type", kind), ("Connection", "Upgrade"),
                                              ("Upgrade", upgrade), *BASE_HEADERS])  # fmt: skip
        else:
            head = raw_head(200, "OK", [("Content-Type", kind), *BASE_HEADERS])
        early = self._codec.leftover()
        self.begun = self.broken = True
        await self.connection.send(head)
        sinks: dict[str, int] = {}
        if upgrade == "dockpy-fds":
            names = [name for name in self.query.get("fds", "").split(",") if name]
            if names:
                with trio.move_on_after(DESCRIPTORS_WITHIN) as scope:
                    fds = await self.connection.receive_descriptors(len(names), b"F")
                    sinks = dict(zip(names, fds))
                if scope.cancelled_caught:
                    raise PeerGone
        return self.connection.hand_over(), sinks, early

    async def switch(self, agreed: Sequence[tuple[str, str]]) -> bytes:
        """Changes to the protocol that `agreed` names, on this connection; what the client has sent of it already."""
        if not self.body_read:
            await self.body()
        early = self._codec.leftover()
        self.begun = self.broken = True
        await self.connection.send(raw_head(101, "Switching Protocols", [*agreed, *BASE_HEADERS]))
        return early

    async def borrow(self) -> Borrowed:
        """The archive that our own client lends as a descriptor, and the way to answer it."""
        sock, lent, _ = await self.hijack(framed=False)
        sock.setblocking(True)
        return Borrowed(sock, lent)

    @property
    def lends(self) -> bool:
        """Whether our own client hands over the archive itself, in place of a body."""
        return self.request.upgrade == "dockpy-fds" and self.query.get("fds") == "archive"

    def check_sinks(self) -> None:
        """InvalidParameter, while a status can still be sent."""
        names = [name for name in self.query.get("fds", "").split(",") if name]
        if len(set(names)) != len(names) or not set(names) <= {"stdin", "stdout", "stderr"}:
            raise InvalidParameter("fds= names each of stdin, stdout, stderr at most once")

    @property
    def wants_exit(self) -> bool:
        """Whether a hijacked stream may end with the exit code: our own client asks for it."""
        return self.request.upgrade == "dockpy-fds" and self.query.get("exit") == "1"

    # -------------------------------------------------------------------------- finishing

    async def finish(self) -> bool:
        """Reads what is left of a small body; whether the connection may serve another request."""
        if self.broken or self.connection.handed_over:
            return False
        if self._codec.body_pending:
            if self._codec.wants_continue:
                return False
            with contextlib.suppress(InvalidParameter, PeerGone):
                await self.body(1 << 20)
        return not self.broken and self._codec.reusable()

    def threaded(self) -> Threaded:
        return Threaded(self, self._codec, self.connection.sock)


class Threaded:
    """The same exchange for one worker thread. Everything here blocks."""

    def __init__(self, exchange: Exchange, codec: ServerCodec, sock: socket.socket) -> None:
        self._exchange = exchange
        self._codec = codec
        self._socket = sock
        self._rest = b""
        self._over = exchange.body_read

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of the body; b"" at its end; PeerGone when it was cut off."""
        if self._codec.wants_continue:
            self._send(self._codec.go_on())
        while not self._rest and not self._over:
            event = self._codec.next_event()
            if isinstance(event, Body):
                self._rest = event.data
            elif isinstance(event, EndOfRequest):
                self._over = True
                self._exchange.body_read = True
            elif isinstance(event, NeedData):
                self._codec.receive(self._receive())
            else:
                raise PeerGone
        if len(self._rest) <= size:
            data, self._rest = self._rest, b""
            return data
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def begin(
        self, content_type: str = "application/json", headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._exchange.begun = True
        every = [*BASE_HEADERS, *headers, ("Content-Type", content_type)]
        self._send(self._codec.head(200, every))

    def write(self, data: bytes | memoryview) -> None:
        if not len(data):
            return
        before, after = self._codec.data_frame(len(data))
        if len(data) < 4096:
            self._send(b"".join((before, data, after)))
            return
        self._send(before)
        self._send(data)
        self._send(after)

    def write_line(self, value: object) -> None:
        self.write(json.dumps(value, separators=(",", ":")).encode() + b"\r\n")

    def write_file(self, fd: int, offset: int, length: int) -> None:
        """A piece of a file; zeros for what it has become shorter by."""
        before, after = self._codec.data_frame(length)
        self._send(before)
        end = offset + length
        while offset < end:
            try:
                sent = os.sendfile(self._socket.fileno(), fd, offset, min(end - offset, 1 << 24))
            except BlockingIOError:
                self._wait(select.POLLOUT)
                continue
            if not sent:
                self._send(bytes(min(end - offset, 1 << 20)))
                sent = min(end - offset, 1 << 20)
            offset += sent
        self._send(after)

    def end(self) -> None:
        self._send(self._codec.end())

    def _receive(self) -> bytes:
        while True:
            try:
                return self._socket.recv(BODY_CHUNK)
            except BlockingIOError:
                self._wait(select.POLLIN)
            except ConnectionError:
                return b""

    def _send(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)

    def _wait(self, events: int) -> None:
        poller = select.poll()
        poller.register(self._socket, events)
        poller.poll()


class Borrowed:
    """A regular file of our own client's; JSON lines go back as they are, until the connection is
    closed. For one worker thread.
    """

    def __init__(self, sock: socket.socket, lent: Mapping[str, int]) -> None:
        self._socket = sock
        self._lent = lent
        self._poller = select.poll()
        self._poller.register(sock, select.POLLRDHUP)

    @property
    def file(self) -> int:
        """The descriptor; InvalidParameter when it is none of a regular file."""
        fd = self._lent["archive"]
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidParameter("only a regular file can be lent to the daemon")
        return fd

    def watch(self) -> None:
        """PeerGone when the client has hung up."""
        if self._poller.poll(0):
            raise PeerGone

    def write_line(self, value: object) -> None:
        self._socket.sendall(json.dumps(value, separators=(",", ":")).encode() + b"\r\n")

    def read(self, size: int) -> bytes:
        """The client sends nothing more."""
        return b""

    def end(self) -> None:
        """Nothing: closing says it."""

    def close(self) -> None:
        for fd in self._lent.values():
            os.close(fd)
        self._socket.close()
