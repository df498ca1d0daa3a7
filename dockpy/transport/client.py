"""HTTP requests to other machines: connections that are kept, time-outs, bodies in pieces both ways. Knows no registry.

An `HttpClient` lives as long as one operation (a pull, a push) and closes its connections at the end.
Nothing is followed, retried or authorized here, but for one thing: a kept connection that turns out to be
closed is replaced once. What goes wrong on the way is a `TransportError`, a sentence in the form of docker's.
A response holds its connection until it is read to its end or closed:

    async with await client.request("GET", url) as response:
        async for chunk in response.chunks(): ...

Memory: one piece of at most `CHUNK` bytes a connection. Time: each wait is bounded by `Timeouts`, and a body
that trickles is given up, so nobody is kept for longer than its size deserves.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Union

import trio

from dockpy.errors import DockpyError
from dockpy.http.client_codec import BadResponse, ClientCodec, Data, End, Head, Need
from dockpy.http.url import Url
from dockpy.transport import proxies, tls
from dockpy.transport.proxies import Proxies, Proxy

CHUNK = 256 << 10
KEPT = 20.0  # seconds; registries' own limits begin at some 30
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `idle`: between two pieces of a body. `slowest`: bytes that each minute of waiting must bring."""

    connect: float = 30.0
    head: float = 60.0
    idle: float = 60.0
    whole: float = 60.0  # for a body that is read at once
    slowest: int = 60 << 10


class TransportError(DockpyError):
    """No answer, or one cut short: asking again may help."""


class NoConnection(TransportError):
    """Nobody was reached: nothing has been sent."""


class TooLong(DockpyError):
    """A body longer than what it may be: asking again does not help."""


@dataclass(frozen=True)
class Body:
    """A request's body: `pieces()` begins it, again for each attempt. Without a length it goes in chunks."""

    pieces: Callable[[], AsyncIterator[bytes]]
    length: int | None = None


Content = Union[bytes, Body, None]


class Stream(Protocol):
    """What trio's streams are, plain and TLS."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...
    async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class _Place:
    """What connections must have in common to serve for each other."""

    url: Url  # with the target "/"
    verify: bool
    proxy: Proxy | None


class _Connection:
    def __init__(self, stream: Stream, sock: trio.SocketStream) -> None:
        self.stream = stream
        self.codec = ClientCodec()
        self.idle_since = 0.0
        self._socket = sock

    @property
    def stale(self) -> bool:
        """Whether it is better not used again: too old, or the host has closed it (or says something unasked)."""
        if trio.current_time() - self.idle_since > KEPT:
            return True
        poller = select.poll()
        poller.register(self._socket.socket.fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(poller.poll(0))

    def drop(self) -> None:
        """Closes without a word: TLS's farewell would wait for the other side."""
        self._socket.socket.close()

    async def next(self, within: float) -> Head | Data | End:
        while True:
            event = self.codec.next_event()
            if not isinstance(event, Need):
                return event
            with trio.fail_after(within):
                self.codec.receive(bytes(await self.stream.receive_some(CHUNK)))


class HttpClient:
    def __init__(
        self,
        contexts: tls.TlsContexts,
        through: Proxies = proxies.NONE,
        timeouts: Timeouts = Timeouts(),
        agent: str = "dockpy",
    ) -> None:
        self._contexts = contexts
        self._proxies = through
        self.timeouts = timeouts
        self._agent = agent
        self._idle: dict[_Place, list[_Connection]] = {}

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        kept, self._idle = self._idle, {}
        for connections in kept.values():
            for connection in connections:
                connection.drop()

    async def request(
        self,
        method: str,
        url: Url,
        headers: Headers = (),
        body: Content = None,
        *,
        verify: bool = True,
    ) -> Response:
        """The head of the answer, whatever its status. `verify`: whether the host must prove its name."""
        proxy = self._proxies.proxy_for(url)
        place = _Place(Url(url.scheme, url.host, url.port), verify, proxy)
        kept = self._kept(place)
        if kept is not None:
            try:
                return await self._ask(kept, place, method, url, headers, body)
            except TransportError:
                # Closed meanwhile: once more, on a fresh one. Of a long body some may have been taken: the sender has
                # to find out.
                if isinstance(body, Body):
                    raise
        return await self._ask(
            await self._connect(method, url, place), place, method, url, headers, body
        )

    def _kept(self, place: _Place) -> _Connection | None:
        connections = self._idle.get(place, [])
        while connections:
            connection = connections.pop()
            if not connection.stale:
                return connection
            connection.drop()
        return None

    async def _ask(
        self,
        connection: _Connection,
        place: _Place,
        method: str,
        url: Url,
        headers: Headers,
        body: Content,
    ) -> Response:
        try:
            with _telling(method, url):
                await self._send(connection, place, method, url, headers, body)
                with trio.fail_after(self.timeouts.head):
                    head = await connection.next(self.timeouts.head)
        except BaseException:
            connection.drop()
            raise
        assert isinstance(head, Head)  # the codec tells heads first
        return Response(self, connection, place, method, url, head)

    async def _send(
        self,
        connection: _Connection,
        place: _Place,
        method: str,
        url: Url,
        headers: Headers,
        body: Content,
    ) -> None:
        codec, idle = connection.codec, self.timeouts.idle
        fields = [("Host", url.authority), ("User-Agent", self._agent), *headers]
        target = url.target
        if place.proxy is not None and not url.secure:
            target = str(url)
            if place.proxy.authorization:
                fields.append(("Proxy-Authorization", place.proxy.authorization))
        if isinstance(body, bytes):
            fields.append(("Content-Length", str(len(body))))
        elif body is not None and body.length is not None:
            fields.append(("Content-Length", str(body.length)))
        elif body is not None:
            fields.append(("Transfer-Encoding", "chunked"))
        elif method in ("POST", "PUT", "PATCH"):
            fields.append(("Content-Length", "0"))
        data = codec.request(method, target, fields)
        try:
            if not isinstance(body, Body):
                data += (codec.data(body) if body else b"") + codec.end()
                with trio.fail_after(idle):
                    await connection.stream.send_all(data)
                return
            with trio.fail_after(idle):
                await connection.stream.send_all(data)
            async for piece in body.pieces():
                with trio.fail_after(idle):
                    await connection.stream.send_all(codec.data(piece))
            with trio.fail_after(idle):
                await connection.stream.send_all(codec.end())
        except trio.BrokenResourceError:
            # It may have answered before it closed (413, 401): that answer is what counts.
            return

    async def _connect(self, method: str, url: Url, place: _Place) -> _Connection:
        proxy = place.proxy
        near = url if proxy is None else proxy.url
        with _telling(method, url, NoConnection, near), trio.fail_after(self.timeouts.connect):
            sock = await trio.open_tcp_stream(near.host, near.port)
            stream: Stream = sock
            try:
                if proxy is not None and proxy.url.secure:
                    stream = await self._secured(stream, proxy.url, verify=True)
                if url.secure:
                    if proxy is not None:
                        await _tunnel(stream, url, proxy, self._agent)
                    stream = await self._secured(stream, url, verify=place.verify)
            except BaseException:
                sock.socket.close()
                raise
            return _Connection(stream, sock)

    async def _secured(self, stream: Stream, url: Url, *, verify: bool) -> Stream:
        context = await trio.to_thread.run_sync(
            lambda: self._contexts.context(url.authority, verify=verify)
        )
        secured = trio.SSLStream(
            stream,  # type: ignore[type-var]  # a Stream of trio's, and so is the result
            context,
            server_hostname=url.host,
            https_compatible=True,
        )
        await secured.do_handshake()
        return secured

    def give_back(self, connection: _Connection, place: _Place) -> None:
        """A response's: keeps a connection whose reply was read to its end."""
        connection.idle_since = trio.current_time()
        self._idle.setdefault(place, []).append(connection)


class Response:
    """An answer whose body is still to be read."""

    def __init__(
        self,
        client: HttpClient,
        connection: _Connection,
        place: _Place,
        method: str,
        url: Url,
        head: Head,
    ) -> None:
        self._client = client
        self._connection: _Connection | None = connection
        self._place = place
        self._method = method
        self.url = url
        self.head = head
        self.status = head.status
        self.headers = head.headers

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece; TransportError when it is cut short or too slow."""
        limits = self._client.timeouts
        waited, came = 0.0, 0
        while self._connection is not None:
            before = trio.current_time()
            with _telling(self._method, self.url):
                event = await self._connection.next(limits.idle)
            waited += trio.current_time() - before
            if isinstance(event, Data):
                came += len(event.data)
                if waited > 60.0:
                    if came < limits.slowest:
                        raise TransportError(
                            f'{_verb(self._method)} "{self.url.shown}": only {came} bytes in a minute'
                        )
                    waited, came = 0.0, 0
                yield event.data
            elif isinstance(event, End):
                self._keep()

    async def read(self, limit: int) -> bytes:
        """The whole body; TooLong beyond `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        with _telling(self._method, self.url), trio.fail_after(self._client.timeouts.whole):
            async for chunk in self.chunks():
                size += len(chunk)
                if size > limit:
                    raise TooLong(
                        f'{_verb(self._method)} "{self.url.shown}": the answer is longer than {limit} bytes'
                    )
                parts.append(chunk)
        return b"".join(parts)

    async def drain(self, limit: int = 64 << 10) -> None:
        """Reads the rest of a short body, so that the connection can be kept; gives up a long one."""
        try:
            await self.read(limit)
        except DockpyError:
            await self.aclose()

    def _keep(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        closes = "close" in self.headers.get("connection", "").lower()
        if not closes and connection.codec.reusable():
            self._client.give_back(connection, self._place)
        else:
            connection.drop()

    async def aclose(self) -> None:
        """Gives up what was not read, and the connection with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()


async def _tunnel(stream: Stream, url: Url, proxy: Proxy, agent: str) -> None:
    """CONNECT: after it `stream` is the far host's."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    target = f"{host}:{url.port}"
    fields = [("Host", target), ("User-Agent", agent)]
    if proxy.authorization:
        fields.append(("Proxy-Authorization", proxy.authorization))
    codec = ClientCodec()
    await stream.send_all(codec.request("CONNECT", target, fields) + codec.end())
    while isinstance(event := codec.next_event(), Need):
        codec.receive(bytes(await stream.receive_some(1 << 12)))
    assert isinstance(event, Head)  # the codec tells heads first
    if not 200 <= event.status < 300:
        raise NoConnection(
            f"the proxy {proxy.url.authority} refuses to connect to {target}:"
            f" {event.status} {event.reason}".rstrip()
        )
    if codec.leftover():
        raise NoConnection(f"the proxy {proxy.url.authority} speaks before it is asked")


class _telling:  # used as a function
    """Turns what a socket, TLS or a codec says into one TransportError that names method and URL."""

    def __init__(
        self,
        method: str,
        url: Url,
        kind: type[TransportError] = TransportError,
        near: Url | None = None,
    ) -> None:
        self._where = f'{_verb(method)} "{url.shown}"'
        self._kind = kind
        self._near = near or url

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is None or (isinstance(error, DockpyError) and not isinstance(error, BadResponse)):
            return
        words = self._words(error)
        if words:
            raise self._kind(f"{self._where}: {words}") from error

    def _words(self, error: BaseException) -> str:
        dial = f"dial tcp {self._near.host}:{self._near.port}"
        if isinstance(error, trio.TooSlowError):
            return "no answer in time"
        if isinstance(error, BadResponse):
            return str(error)
        if told := tls.reason(error):
            return told
        if isinstance(error, socket.gaierror):
            return f"dial tcp: lookup {self._near.host}: no such host"
        if isinstance(error, (trio.BrokenResourceError, trio.ClosedResourceError)):
            return "the connection was cut"
        if isinstance(error, OSError):
            cause = error.__cause__
            while isinstance(cause, BaseException) and not isinstance(cause, OSError):
                nested = getattr(cause, "exceptions", None)
                cause = nested[0] if nested else cause.__cause__
            told_by = cause if isinstance(cause, OSError) else error
            words = os.strerror(told_by.errno) if told_by.errno else str(told_by)
            return f"{dial}: connect: {words.lower()}"
        return ""


def _verb(method: str) -> str:
    return method.capitalize()
