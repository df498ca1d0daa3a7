"""Attaching by websocket, with real containers."""

from __future__ import annotations

import os
import socket
from functools import partial

from dockpy.http.websocket import BINARY, CLOSE, PING
from tests.daemon.conftest import Engine, eventually, kill, read_all
from tests.http.test_websocket import sent

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def opened(engine: Engine, path: str, early: bytes = b"") -> tuple[socket.socket, bytes]:
    sock = engine.connect()
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        + early
    )
    got = b""
    while b"\r\n\r\n" not in got:
        part = sock.recv(4096)
        assert part, got
        got += part
    head, _, rest = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    return sock, rest


def messages(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        assert data[0] & 0xF0 == 0x80
        found.append((data[0] & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return found


def test_both_ways_pings_and_the_goodbye(engine: Engine) -> None:
    container = engine.create("head", "-c", "100005", OpenStdin=True)
    sock, rest = opened(
        engine, f"/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1",
        sent(BINARY, b"early"),
    )  # fmt: skip
    with sock:
        engine.ask("POST", f"/containers/{container}/start")
        sock.sendall(sent(PING, b"?") + sent(BINARY, b"x" * 100_000))
        got = messages(rest + read_all(sock))
    assert b"".join(data for kind, data in got if kind == BINARY) == b"early" + b"x" * 100_000
    assert (10, b"?") in got and got[-1] == (CLOSE, b"\x03\xe8")
    assert engine.wait(container) == 0


def test_the_clients_goodbye_ends_standard_input(engine: Engine) -> None:
    container = engine.create("cat", OpenStdin=True, StdinOnce=True, AttachStdin=True)
    engine.ask("POST", f"/containers/{container}/start")
    sock, _ = opened(engine, f"/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1")
    with sock:
        sock.sendall(sent(BINARY, b"text") + sent(CLOSE, b"\x03\xe8"))
        assert messages(read_all(sock))[-1] == (CLOSE, b"\x03\xe8")
    assert engine.wait(container) == 0


def test_the_backlog_is_not_multiplexed(engine: Engine) -> None:
    container = engine.create("sh", "-c", "echo out")
    engine.ask("POST", f"/containers/{container}/start")
    assert engine.wait(container) == 0
    sock, rest = opened(engine, f"/containers/{container}/attach/ws?logs=1&stdout=1")
    with sock:
        assert messages(rest + read_all(sock)) == [(BINARY, b"out\n"), (CLOSE, b"\x03\xe8")]


def test_what_breaks_the_protocol_is_told_so(engine: Engine) -> None:
    container = engine.create("sleep", "100")
    engine.ask("POST", f"/containers/{container}/start")
    path = f"/containers/{container}/attach/ws?stream=1&stdout=1"
    sock, rest = opened(engine, path)
    with sock:
        sock.sendall(b"\x82\x01x")
        assert messages(rest + read_all(sock)) == [(CLOSE, b"\x03\xea")]
    assert engine.ask("GET", path).status == 400
    assert engine.ask("GET", "/containers/no-such/attach/ws").status == 404
    assert engine.ask("DELETE", f"/containers/{container}?force=1").status == 204


def test_a_daemon_that_is_stopped_says_goodbye_and_one_that_is_killed_cuts(engine: Engine) -> None:
    """The container goes on, and the next daemon attaches to it."""
    container = engine.create("cat", OpenStdin=True)
    engine.ask("POST", f"/containers/{container}/start")
    path = f"/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1"
    for goodbye in ([(CLOSE, b"\x03\xe9")], []):
        sock, _ = opened(engine, path)
        with sock:
            sock.sendall(sent(BINARY, b"text"))
            sock.settimeout(5)
            echo = sock.recv(100)
            record = engine.record()
            if goodbye:
                engine.ask("POST", "/dockpy/stop")
                eventually(partial(gone, record["keeper"]["pid"]))
            else:
                kill(record["daemon"]["pid"])
            assert messages(echo + read_all(sock)) == [(BINARY, b"text"), *goodbye]
        engine.start()
        assert engine.state(container)["Running"] is True


def gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")
