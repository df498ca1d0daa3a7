"""Requests to the daemon over its unix socket; starts one (client.birth) where none answers.

One `Connection` keeps one socket alive between requests; streams and hijacked connections get
their own. Only the person's own daemon is ever started; a host named with -H or DOCKER_HOST is not.
"""

from __future__ import annotations

import _socket
import os

from dockpy import fastjson, reexec
from dockpy.client.errors import ApiError, CommandError, Disconnected, NoDaemon, NoName
from dockpy.client.peer import is_ours, unix
from dockpy.http import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dockpy.paths import Paths

READ = 256 << 10
MAX_BODY = 256 << 20
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


def quote(text: str, keep: str = "") -> str:
    """Percent-encoding of a path segment or query value (urllib costs too much to import)."""
    safe = _SAFE | frozenset(keep.encode())
    return "".join(
        chr(byte) if byte in safe else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )


def target(path: str, query: Mapping[str, object] | None = None) -> str:
    """`path` with the query values that are neither None nor empty nor False; True is 1, each of a list stands
    by itself.
    """
    if path.startswith("/containers//"):
        raise NoName
    pairs = []
    for name, value in (query or {}).items():
        if value is None or value is False or value == "":
            continue
        for one in value if isinstance(value, list) else (value,):
            text = "1" if one is True else str(one)
            pairs.append(f"{name}={quote(text)}")
    return path + "?" + "&".join(pairs) if pairs else path


class Response:
    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Stream:
    """A response whose body comes by and by. Closing it closes the socket."""

    __slots__ = ("_reader", "head", "socket")

    def __init__(
        self, sock: _socket.socket, reader: plain.ResponseReader, head: plain.Head
    ) -> None:
        self.socket = sock
        self._reader = reader
        self.head = head

    def pieces(self) -> Iterator[bytes]:
        while True:
            piece = self.piece()
            if not piece:
                return
            yield piece

    def piece(self) -> bytes:
        """The next piece; b"" at the end. Blocks."""
        while True:
            piece = self._reader.body()
            if piece:
                return piece
            if self._reader.over:
                return b""
            self.receive()

    def receive(self) -> None:
        data = self.socket.recv(READ)
        try:
            if data:
                self._reader.feed(data)
            else:
                self._reader.feed_eof()
        except plain.ProtocolError as error:
            raise Disconnected(f"the daemon's answer was cut short: {error}") from None

    def whole(self) -> bytes:
        parts, total = [], 0
        for piece in self.pieces():
            total += len(piece)
            if total > MAX_BODY:
                raise Disconnected("the daemon's answer is too long")
            parts.append(piece)
        return b"".join(parts)

    def buffered(self) -> bytes:
        """The pieces that have arrived already."""
        parts: list[bytes] = []
        while True:
            piece = self._reader.body()
            if not piece:
                return b"".join(parts)
            parts.append(piece)

    @property
    def over(self) -> bool:
        return self._reader.over

    def leftover(self) -> bytes:
        return self._reader.leftover()

    @property
    def reusable(self) -> bool:
        return self._reader.reusable

    def close(self) -> None:
        self.socket.close()


def _tcp(host: str, port: int) -> _socket.socket:
    error: OSError = OSError("no address")
    for family, kind, protocol, _, address in _socket.getaddrinfo(
        host, port, 0, _socket.SOCK_STREAM
    ):
        try:
            sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, protocol)
            sock.connect(address)
            return sock
        except OSError as failed:
            error = failed
    raise error


class Endpoint:
    """Where the daemon is, and how to reach it."""

    def __init__(self, host: str, environ: Mapping[str, str]) -> None:
        self.host = host
        self.start = True  # whether the user's own daemon is started where none answers
        self._met = False  # a client that was served once goes on with whatever replaces its daemon
        self._environ = environ

    @property
    def own(self) -> bool:
        """Whether it is this user's own daemon, which may be started."""
        return not self.host

    def connect(self) -> _socket.socket:
        if self.own:
            return self._connect_own()
        scheme, _, rest = self.host.partition("://")
        try:
            if scheme == "unix":
                return unix(rest or "/var/run/docker.sock")
            if scheme == "tcp":
                name, _, port = rest.split("/")[0].rpartition(":")
                return _tcp(name.strip("[]") or rest, int(port or "2375"))
        except (OSError, ValueError):
            raise NoDaemon(
                f"Cannot connect to the Docker daemon at {self.host}. Is the docker daemon running?"
            ) from None
        raise NoDaemon(
            f"the host {self.host} is not served by this build: name a unix:// or tcp:// one"
        )

    def _connect_own(self) -> _socket.socket:
        from dockpy.paths import NoHome, Paths, store_of

        try:
            paths = Paths(store_of(self._environ, os.geteuid()))
        except NoHome as error:
            raise NoDaemon(str(error)) from None
        sock = self._recorded(paths)
        if sock is not None:
            self._met = True
            return sock
        if not self.start:
            raise NoDaemon("no daemon is running")
        from dockpy.client import birth

        build = None if self._met else reexec.build_id()
        path = birth.ensure(paths, self._environ, build=build)
        try:
            sock = unix(path)
            if is_ours(sock):
                self._met = True
                return sock
            sock.close()
            raise NoDaemon(f"the daemon at unix://{path} is another user's")
        except OSError as error:
            raise NoDaemon(
                f"Cannot connect to the dockpy daemon at unix://{path}: {error.strerror}"
            ) from None

    def _recorded(self, paths: Paths) -> _socket.socket | None:
        """A connection to the daemon that the store names, when it lives and is ours."""
        try:
            fd = os.open(paths.daemon_json, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            record = fastjson.loads(os.read(fd, 1 << 16))
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)
        if not isinstance(record, dict):
            return None
        path = record.get("socket")
        if not isinstance(path, str):
            return None
        try:
            sock = unix(path)
        except OSError:
            return None
        # Of another build: which of the two has to go is for the lock's holder to find out.
        other = self.start and not self._met and record.get("build") != reexec.build_id()
        if other or not is_ours(sock):
            sock.close()
            return None
        return sock


class Connection:
    def __init__(self, endpoint: Endpoint, headers: Callable[[], dict[str, str]]) -> None:
        self.endpoint = endpoint
        self.headers = headers
        self._idle: _socket.socket | None = None

    def open(
        self,
        method: str,
        where: str,
        *,
        json: object = None,
        headers: dict[str, str] | None = None,
        fresh: bool = False,
    ) -> Opened:
        """Sends one request, on the idle connection or a new one; the answer is awaited by
        `Opened.head`.
        """
        fields = self.headers()
        body = None
        if json is not None:
            body = fastjson.dumps(json)
            fields["Content-Type"] = "application/json"
        if headers:
            fields.update(headers)
        data = plain.request(method, where, fields, body)
        reused = self._idle is not None and not fresh
        if fresh or self._idle is None:
            sock = self.endpoint.connect()
        else:
            sock, self._idle = self._idle, None
        try:
            sock.sendall(data)
        except OSError as error:
            sock.close()
            if not reused:
                raise Disconnected(f"the daemon closed the connection: {error.strerror}") from None
            sock = self.endpoint.connect()
            sock.sendall(data)
            reused = False
        return Opened(
            sock, method, data if reused and method in ("GET", "HEAD") else None, self.endpoint
        )

    def stream(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        json: object = None,
        headers: dict[str, str] | None = None,
        fresh: bool = True,
    ) -> Stream:
        """The open answer; ApiError when it is a refusal."""
        return self.open(
            method, target(path, query), json=json, headers=headers, fresh=fresh
        ).stream()

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        json: object = None,
        headers: dict[str, str] | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> Response:
        """`meanwhile` is called when the request is on its way: what is to be done while the daemon works."""
        opened = self.open(method, target(path, query), json=json, headers=headers)
        if meanwhile is not None:
            meanwhile()
        stream = opened.stream()
        body = stream.whole()
        if stream.reusable and self._idle is None:
            self._idle = stream.socket
        else:
            stream.close()
        return Response(stream.head.status, stream.head.headers, body)

    def get(self, path: str, query: Mapping[str, object] | None = None) -> object:
        return decoded(self.request("GET", path, query).body)

    def post(
        self,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        json: object = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> object:
        body = self.request("POST", path, query, json=json, meanwhile=meanwhile).body
        return decoded(body) if body else None

    def close(self) -> None:
        if self._idle is not None:
            self._idle.close()
            self._idle = None


class Opened:
    """A request under way."""

    __slots__ = ("_again", "_endpoint", "_method", "socket")

    def __init__(
        self, sock: _socket.socket, method: str, again: bytes | None, endpoint: Endpoint
    ) -> None:
        self.socket = sock
        self._method = method
        self._again = again  # sent once more when a kept connection turns out to be closed
        self._endpoint = endpoint

    def stream(self) -> Stream:
        reader = plain.ResponseReader(self._method)
        got_any = False
        while reader.head is None:
            try:
                data = self.socket.recv(READ)
            except ConnectionError:
                data = b""
            if not data:
                self.socket.close()
                if self._again is None or got_any:
                    raise Disconnected("the daemon closed the connection before it answered")
                self.socket = self._endpoint.connect()
                self.socket.sendall(self._again)
                self._again = None
                continue
            got_any = True
            try:
                reader.feed(data)
            except plain.ProtocolError as error:
                self.socket.close()
                raise Disconnected(f"what answers is no docker daemon: {error}") from None
        stream = Stream(self.socket, reader, reader.head)
        if reader.head.status >= 400:
            body = stream.whole()
            stream.close()
            raise ApiError(reader.head.status, _message(body, reader.head))
        return stream


def _message(body: bytes, head: plain.Head) -> str:
    try:
        raw = fastjson.loads(body)
    except ValueError:
        raw = None
    if isinstance(raw, dict) and isinstance(raw.get("message"), str):
        return str(raw["message"])
    return body.decode("utf-8", "replace").strip() or f"{head.status} {head.reason}"


def decoded(body: bytes) -> object:
    try:
        return fastjson.loads(body)
    except ValueError as error:
        raise CommandError(f"the daemon's answer is not JSON: {error}") from None
