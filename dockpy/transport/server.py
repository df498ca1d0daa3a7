"""The listening side for TCP: accepts, TLS where asked for, HTTP/1.1 exchanges one after the other. Knows no API.

Everything a peer may do costs bounded time and memory: so many connections at once, so long for a head,
for a TLS handshake and for each block that it sends or takes. Bodies go by in blocks and by sendfile.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Protocol

import trio

from dockpy.errors import InvalidParameter, Unavailable
from dockpy.http.codec import REASONS, BadRequest, ServerCodec, raw_head
from dockpy.http.messages import Body, EndOfRequest, NeedData, Request
from dockpy.transport.requests import next_request
from dockpy.transport.unix import Connection

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)

BLOCK = 1 << 20
LINGER = 1.0  # see Connection.linger: else the peer gets a reset before it has read the answer
GRACE = 10.0  # what is under way at the end may take so long


@dataclass(frozen=True)
class Limits:
    """Seconds, but for `connections` and `slowest`."""

    connections: int = 512  # at once; others wait in the kernel's queue
    handshake: float = 20.0
    head: float = 30.0  # between the first byte of a head and its last
    idle: float = 180.0  # between two requests
    block: float = 60.0  # for some bytes in, and for a block out
    slowest: int = (
        60 << 10
    )  # bytes of a body that each `block` of waiting must bring, as the client's


_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED)


Available = Callable[[int], Awaitable[int]]


class PeerGone(Exception):
    """The client has closed its side, or fallen asleep, while something was owed."""


class Wire(Protocol):
    """What an exchange needs of a connection: a plain socket, or one inside TLS."""

    async def receive(self, limit: int = ...) -> bytes: ...
    async def send(self, data: bytes) -> None: ...
    async def send_file(self, fd: int, offset: int, length: int) -> int: ...
    async def linger(self, seconds: float) -> None: ...
    def close(self) -> None: ...


class TlsConnection:
    """The same as `Connection`, encrypted."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._below = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._stream = trio.SSLStream(self._below, context, server_side=True, https_compatible=True)

    async def handshake(self) -> None:
        await self._stream.do_handshake()

    async def receive(self, limit: int = BLOCK) -> bytes:
        try:
            return bytes(await self._stream.receive_some(limit))
        except trio.BrokenResourceError:
            return b""

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def send_file(self, fd: int, offset: int, length: int) -> int:
        done = 0
        while done < length:
            data = os.pread(fd, min(length - done, 1 << 18), offset + done)
            if not data:
                break
            await self._stream.send_all(data)
            done += len(data)
        return done

    async def linger(self, seconds: float) -> None:
        with trio.move_on_after(seconds), contextlib.suppress(trio.BrokenResourceError):
            await self._below.send_eof()
            while await self.receive():
                pass

    def close(self) -> None:
        self._below.socket.close()


class Exchange:
    """One request and its reply."""

    def __init__(
        self,
        wire: Wire,
        codec: ServerCodec,
        request: Request,
        base: Sequence[tuple[str, str]],
        limits: Limits,
    ) -> None:
        self.request = request
        self._wire = wire
        self._codec = codec
        self._base = base
        self._within = limits.block
        self._slowest = limits.slowest
        self._waited, self._came = 0.0, 0  # for the body, and what came meanwhile
        self._over = False  # whether the whole body has been taken
        self._cut = False
        self.begun = False  # whether the status is on its way
        self.broken = False  # whether only closing the connection can end the reply

    async def read(self, size: int = BLOCK) -> bytes:
        """The next `size` bytes of the body, fewer at its end and where it is cut off; b"" behind
        its end, PeerGone behind a cut.
        """
        if self._codec.wants_continue:
            await self._send(self._codec.go_on())
        parts: list[bytes] = []
        have = 0
        while have < size and not self._over and not self._cut:
            event = self._codec.next_event()
            if isinstance(event, Body):
                parts.append(event.data)
                have += len(event.data)
            elif isinstance(event, EndOfRequest):
                self._over = True
            elif isinstance(event, NeedData):
                data = await self._receive(size)
                if data:
                    self._codec.receive(data)
                else:
                    self._cut = True
            else:
                self._cut = True
        if self._cut and not parts:
            self.broken = True
            raise PeerGone
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _receive(self, size: int) -> bytes:
        """Some bytes; none from who has gone, sleeps, or sends one now and then to keep the connection."""
        data, before = b"", trio.current_time()
        with trio.move_on_after(self._within):
            data = await self._wire.receive(size)
        self._waited += trio.current_time() - before
        self._came += len(data)
        if self._waited > self._within:
            if self._came < self._slowest:
                return b""
            self._waited, self._came = 0.0, 0
        return data

    async def body(self, limit: int) -> bytes:
        """The whole body; InvalidParameter when it is longer than `limit` bytes."""
        parts: list[bytes] = []
        have = 0
        while True:
            part = await self.read(min(BLOCK, limit + 1))
            if not part:
                return b"".join(parts)
            parts.append(part)
            have += len(part)
            if have > limit:
                raise InvalidParameter(f"the request's body is longer than {limit} bytes")

    async def reply(
        self, status: int, headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        """`headers` may hold a Content-Length, as the answer to HEAD does."""
        every = [*self._base, *headers]
        if status not in (204, 304) and not any(n.lower() == "content-length" for n, _ in headers):
            every.append(("Content-Length", str(len(body))))
        self.begun = True
        data = self._codec.head(status, every)
        if body and self.request.method != "HEAD":
            data += self._codec.data(body)
        await self._send(data + self._codec.end())

    async def reply_file(
        self,
        status: int,
        headers: Sequence[tuple[str, str]],
        fd: int,
        offset: int,
        length: int,
        available: Available | None = None,
    ) -> None:
        """A piece of a file; PeerGone when the file has become shorter.

        Of a file that grows, `available` tells (and waits for) the end of what is there behind an offset.
        """
        every = [*self._base, *headers, ("Content-Length", str(length))]
        self.begun = True
        head = self._codec.head(status, every)
        before, after = self._codec.data_frame(length) if length else (b"", b"")
        await self._send(head + before)
        end = offset + length
        while offset < end:
            there = end if available is None else min(await available(offset), end)
            wanted = min(there - offset, BLOCK)
            sent = 0
            with trio.move_on_after(self._within):
                sent = await self._wire.send_file(fd, offset, wanted)
            if sent < wanted or not sent:
                self.broken = True
                raise PeerGone
            offset += sent
        await self._send(after + self._codec.end())

    async def begin(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """The head of a reply whose body is written in pieces."""
        self.begun = True
        await self._send(self._codec.head(status, [*self._base, *headers]))

    async def write(self, data: bytes) -> None:
        if data:
            await self._send(self._codec.data(data))

    async def end(self) -> None:
        await self._send(self._codec.end())

    async def finish(self) -> bool:
        """Reads what is left of a small body; whether the connection may serve another request."""
        if self.broken:
            return False
        if self._codec.body_pending:
            if self._codec.wants_continue:
                return False
            with trio.move_on_after(self._within) as scope:
                with contextlib.suppress(InvalidParameter, PeerGone, BadRequest):
                    await self.body(BLOCK)
            if scope.cancelled_caught:
                return False
        return not self.broken and self._codec.reusable()

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        with trio.move_on_after(self._within) as scope:
            await self._wire.send(data)
        if scope.cancelled_caught:
            self.broken = True
            raise PeerGone


_GONE = (PeerGone, ConnectionError, trio.BrokenResourceError, trio.ClosedResourceError)

Handler = Callable[[Exchange], Awaitable[None]]


class HttpServer:
    """Serves `handle` on sockets until `stop`. What `handle` raises is logged, and ends its connection."""

    def __init__(
        self,
        handle: Handler,
        *,
        base: Sequence[tuple[str, str]] = (),
        tls: ssl.SSLContext | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self._handle = handle
        self._base = tuple(base)
        self._tls = tls
        self._slots = trio.Semaphore(limits.connections)
        self._limits = limits
        self._stop = trio.Event()
        self._waiting: set[trio.CancelScope] = set()

    def stop(self) -> None:
        """No further connections and requests; what is under way may end, within GRACE."""
        self._stop.set()
        for scope in self._waiting:
            scope.cancel()

    async def run(self, listeners: Sequence[socket.socket]) -> None:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(self._accept, listener, connections)
                await self._stop.wait()
                accepting.cancel_scope.cancel()
            for listener in listeners:
                listener.close()
            connections.cancel_scope.deadline = trio.current_time() + GRACE

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        listener.setblocking(False)
        while True:
            await self._slots.acquire()
            sock = None
            try:
                while sock is None:
                    sock = await self._next(listener)
                sock.setblocking(False)
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections.start_soon(self._serve, sock)
            finally:
                if sock is None:
                    self._slots.release()

    async def _next(self, listener: socket.socket) -> socket.socket | None:
        try:
            return listener.accept()[0]
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listener)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            await trio.sleep(0.05)
        return None

    async def _serve(self, sock: socket.socket) -> None:
        try:
            wire: Wire = Connection(sock)
            if self._tls is not None:
                wire = await _encrypted(sock, self._tls, self._limits.handshake)
            try:
                await self._exchanges(wire)
            finally:
                wire.close()
        except _GONE:
            pass
        except Exception:
            log.exception("a connection was given up")
        finally:
            sock.close()
            self._slots.release()

    async def _exchanges(self, wire: Wire) -> None:
        codec = ServerCodec()
        while not self._stop.is_set():
            exchange = None
            try:
                limits = self._limits
                request = await next_request(
                    wire, codec, head=limits.head, idle=limits.idle, waiting=self._waiting
                )
                if request is None:
                    return
                exchange = Exchange(wire, codec, request, self._base, self._limits)
                await self._handle(exchange)
                again = await exchange.finish()
            except BadRequest as error:
                if exchange is None or not exchange.begun:
                    reason = REASONS.get(error.status, b"Bad Request").decode()
                    close = [("Content-Length", "0"), ("Connection", "close")]
                    await wire.send(raw_head(error.status, reason, [*self._base, *close]))
                again = False
            if not again:
                await wire.linger(LINGER)
                return


async def _encrypted(sock: socket.socket, context: ssl.SSLContext, within: float) -> TlsConnection:
    wire = TlsConnection(sock, context)
    with trio.move_on_after(within) as scope:
        await wire.handshake()
    if scope.cancelled_caught:
        raise PeerGone
    return wire


def listen(address: str) -> list[socket.socket]:
    """Sockets that listen on `host:port`; all that `host` resolves to. Blocks for names."""
    host, colon, port = address.rpartition(":")
    host = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
    if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise InvalidParameter(f"--listen {address}: HOST:PORT is wanted, such as 127.0.0.1:5000")
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, place in dict.fromkeys(found):
            listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(place)
            listener.listen(128)
    except OSError as error:
        for listener in listeners:
            listener.close()
        reason = (error.strerror or str(error)).lower()
        raise Unavailable(f"cannot listen on {address}: {reason}") from None
    return listeners
