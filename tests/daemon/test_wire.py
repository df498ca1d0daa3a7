"""HTTP as clients meet it: headers, versions, errors, and clients that misbehave."""

from __future__ import annotations

import re
import time

import pytest

from tests.daemon.conftest import Engine, eventually, parse, read_all


def test_ping_has_what_clients_negotiate_by(engine: Engine) -> None:
    answer = engine.ask("GET", "/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    assert answer.headers["api-version"] == "1.50"
    assert answer.headers["ostype"] == "linux"
    assert answer.headers["builder-version"] == "1"
    assert answer.headers["server"].startswith("Docker/")
    head = engine.ask("HEAD", "/_ping")
    assert (head.status, head.headers["content-length"]) == (200, "0")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nope", None, 404),
        ("GET", "/v1.39/info", None, 400),
        ("GET", "/v1.51/info", None, 400),
        ("GET", "/vx/info", None, 404),
        ("GET", "/containers/nope/json", None, 404),
        ("POST", "/containers/create", b"{", 400),
        ("POST", "/containers/create", b"[]", 400),
        ("POST", "/containers/create", b"null", 400),
        ("POST", "/containers/create", b"[" * 100_000, 400),
        ("POST", "/containers/create", {"Image": "nope"}, 404),
        ("POST", "/containers/create?name=a/b", {"Image": "dockpy.builtin/host"}, 400),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=y", None, 500),
        ("POST", "/images/create?fromImage=UPPER&tag=y", None, 400),
        ("GET", "/swarm", None, 503),
        ("GET", "/services", None, 503),
        ("GET", "/containers/json?filters={", None, 400),
        ("GET", "/containers/json?filters=%7B%22nope%22:%5B%22x%22%5D%7D", None, 400),
        ("GET", "/images/search?term=x", None, 501),
        ("DELETE", "/networks/host", None, 403),
        ("GET", "/exec/nope/json", None, 404),
    ],
)
def test_errors_are_a_status_and_one_message(
    engine: Engine, method: str, path: str, body: object, status: int
) -> None:
    answer = engine.ask(method, path, body)
    assert answer.status == status, answer.body
    assert answer.message
    assert "Traceback" not in answer.message
    assert answer.headers["api-version"] == "1.50"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: d\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["tls", "no version", "no host", "a long head", "no chunk"],
)
def test_what_is_no_http_gets_a_400_and_the_daemon_lives(engine: Engine, data: bytes) -> None:
    answer = parse(engine.raw(data))
    assert answer.status in (400, 431)
    assert answer.message
    assert engine.ask("GET", "/_ping").status == 200


def test_a_body_that_is_too_long_is_refused(engine: Engine) -> None:
    with engine.connect() as sock:
        sock.sendall(
            b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 99999999\r\n\r\n"
        )
        try:
            while True:
                sock.sendall(b" " * 65536)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
    assert engine.ask("GET", "/_ping").status == 200


def test_pipelined_requests_are_answered_in_order(engine: Engine) -> None:
    one = b"GET %s HTTP/1.1\r\nHost: d\r\n%s\r\n"
    data = engine.raw(
        one % (b"/_ping", b"")
        + one % (b"/nope", b"")
        + one % (b"/version", b"Connection: close\r\n")
    )
    assert re.findall(rb"HTTP/1\.1 (\d+)", data) == [b"200", b"404", b"200"]


def test_a_client_that_sends_slowly_is_understood(engine: Engine) -> None:
    with engine.connect() as sock:
        for byte in b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n":
            sock.sendall(bytes((byte,)))
        assert parse(read_all(sock)).body == b"OK"


def test_clients_that_hang_up_in_the_middle_leave_nothing(engine: Engine) -> None:
    def connections() -> int:
        raw = engine.ask("GET", "/dockpy/status").json()
        assert isinstance(raw, dict)
        return int(raw["connections"])

    container = engine.create("true")
    for _ in range(5):
        with engine.connect() as sock:
            sock.sendall(
                f"POST /containers/{container}/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n".encode()
            )
            time.sleep(0.05)
        with engine.connect() as sock:
            sock.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
            time.sleep(0.05)
        with engine.connect() as sock:
            sock.sendall(
                b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 500\r\n\r\n{"
            )
    eventually(lambda: connections() == 1)


def test_a_query_of_odd_numbers_is_refused(engine: Engine) -> None:
    container = engine.run("sleep", "60")
    for path in (
        "stop?t=x",
        "stop?t=-5",
        "resize?h=a&w=1",
        "resize?h=1",
        "kill?signal=NOPE",
        "wait?condition=maybe",
    ):
        assert engine.ask("POST", f"/containers/{container}/{path}").status == 400, path


def test_continue_is_said_to_who_waits_for_it(engine: Engine) -> None:
    body = b'{"Image":"nope"}'
    with engine.connect() as sock:
        sock.sendall(
            b"POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        assert parse(read_all(sock)).status == 404
