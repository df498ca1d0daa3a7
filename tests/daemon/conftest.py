"""A real daemon from this source tree, with a store of its own, and a plain HTTP client for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from dockpy.client import birth
from dockpy.paths import Paths

IMAGE = "dockpy.builtin/host"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        raw = json.loads(self.body)
        assert set(raw) == {"message"}
        return str(raw["message"])


class Engine:
    """The daemon of one store, by raw bytes: nothing between the test and the wire."""

    def __init__(self, store: str, patience: float = 20) -> None:
        """`patience`: seconds that one piece of an answer may take."""
        self.paths = Paths(store)
        self.socket = ""
        self._patience = patience

    def start(self) -> None:
        self.socket = birth.ensure(self.paths, {**os.environ, "DOCKPY_STORE": self.paths.store})

    def record(self) -> dict[str, dict[str, int]]:
        with open(self.paths.daemon_json, encoding="utf-8") as file:
            raw: dict[str, dict[str, int]] = json.load(file)
        return raw

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(self._patience)
        sock.connect(self.socket)
        return sock

    def raw(self, data: bytes) -> bytes:
        """Everything that comes back until the daemon closes."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        data = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return parse(self.raw(head.encode() + data), method)

    def upgrade(
        self, path: str, body: bytes = b"", protocol: str = "tcp"
    ) -> tuple[socket.socket, bytes]:
        """A hijacked connection, and what has come behind the head."""
        sock = self.connect()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        sock.sendall(head.encode() + body)
        got = b""
        while b"\r\n\r\n" not in got:
            part = sock.recv(4096)
            assert part, got
            got += part
        answer, _, rest = got.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return sock, rest

    def create(
        self, *cmd: str, name: str = "", host: dict[str, object] | None = None, **config: object
    ) -> str:
        body = {
            "Image": IMAGE,
            "Cmd": list(cmd),
            "HostConfig": {"NetworkMode": "none", **(host or {})},
            **config,
        }
        answer = self.ask("POST", f"/containers/create?name={name}", body)
        assert answer.status == 201, answer.body
        created = answer.json()
        assert isinstance(created, dict)
        assert created["Warnings"] == []
        return str(created["Id"])

    def run(
        self, *cmd: str, name: str = "", host: dict[str, object] | None = None, **config: object
    ) -> str:
        container = self.create(*cmd, name=name, host=host, **config)
        answer = self.ask("POST", f"/containers/{container}/start")
        assert answer.status == 204, answer.body
        return container

    def wait(self, container: str, condition: str = "") -> int:
        answer = self.ask("POST", f"/containers/{container}/wait?condition={condition}")
        assert answer.status == 200, answer.body
        raw = answer.json()
        assert isinstance(raw, dict)
        return int(raw["StatusCode"])

    def inspect(self, container: str) -> dict[str, object]:
        raw = self.ask("GET", f"/containers/{container}/json").json()
        assert isinstance(raw, dict)
        return raw

    def state(self, container: str) -> dict[str, object]:
        raw = self.inspect(container)["State"]
        assert isinstance(raw, dict)
        return raw

    def logs(self, container: str, query: str = "stdout=1&stderr=1") -> list[tuple[int, bytes]]:
        return frames(self.ask("GET", f"/containers/{container}/logs?{query}").body)

    def output(self, container: str, query: str = "stdout=1&stderr=1") -> bytes:
        return b"".join(data for _, data in self.logs(container, query))

    def stop(self) -> None:
        for row in self.ask("GET", "/containers/json?all=1").json():  # type: ignore[attr-defined]  # a list
            self.ask("DELETE", f"/containers/{row['Id']}?force=1")
        keeper = self.record()["keeper"]["pid"]
        self.ask("POST", "/dockpy/stop")
        eventually(lambda: not os.path.exists(f"/proc/{keeper}"))


def eventually(true: Callable[[], bool], within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{pid}") or _zombie(pid))


def _zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def read_all(sock: socket.socket) -> bytes:
    parts: list[bytes] = []
    while True:
        part = sock.recv(1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def parse(data: bytes, method: str = "GET") -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {
        key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])
    }
    if headers.get("transfer-encoding") == "chunked":
        body = dechunk(body)
    return Answer(int(lines[0].split()[1]), headers, b"" if method == "HEAD" else body)


def dechunk(data: bytes) -> bytes:
    parts = []
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        data = rest[length + 2 :]
        if length == 0:
            break
    return b"".join(parts)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        stream, length = struct.unpack(">BxxxI", data[:8])
        found.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="dockpy-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def running_engine(store: str) -> Iterator[Engine]:
    engine = Engine(store)
    engine.start()
    yield engine
    engine.start()
    engine.stop()


@pytest.fixture
def engine(running_engine: Engine) -> Iterator[Engine]:
    """The one engine of the run; whatever a test leaves is removed."""
    running_engine.start()
    yield running_engine
    running_engine.start()
    rows = running_engine.ask("GET", "/containers/json?all=1").json()
    assert isinstance(rows, list)
    for row in rows:
        running_engine.ask("DELETE", f"/containers/{row['Id']}?force=1")
