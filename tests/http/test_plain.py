"""The client's reader of responses: every cut of the input gives the same result."""

from __future__ import annotations

import pytest

from dockpy.http.plain import MAX_HEAD, ProtocolError, ResponseReader, request


def read(
    data: bytes, step: int, method: str = "GET", *, close: bool = False
) -> tuple[ResponseReader, bytes]:
    reader = ResponseReader(method)
    body = b""
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
        while reader.head is not None:
            piece = reader.body()
            body += piece
            if not piece:
                break
    if close:
        reader.feed_eof()
    return reader, body


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: x\r\n\r\n"


@pytest.mark.parametrize("data", [LENGTH, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_body_of_known_end(data: bytes, step: int) -> None:
    reader, body = read(data, step)
    assert body == b"hello"
    assert reader.over
    assert reader.reusable


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_a_body_until_the_connection_ends(step: int) -> None:
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nhello", step, close=True)
    assert body == b"hello"
    assert reader.over
    assert not reader.reusable


@pytest.mark.parametrize("step", [1, 1000])
def test_after_101_the_rest_belongs_to_somebody_else(step: int) -> None:
    data = b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n\x01rest"
    reader = ResponseReader("POST")
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    assert reader.over
    assert reader.head is not None and reader.head.headers["upgrade"] == "tcp"
    assert reader.leftover() == b"\x01rest"
    assert not reader.reusable


def test_no_body_for_head_204_and_304() -> None:
    assert read(b"HTTP/1.1 204 No Content\r\n\r\n", 9)[0].over
    assert read(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 9)[0].over
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 9, "HEAD")[0].over


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nnocolon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000,
        b"A" * (MAX_HEAD + 5),
    ],
)
def test_what_is_no_response_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data, 100)


def test_an_early_end_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        read(LENGTH[:-1], 1000, close=True)
    with pytest.raises(ProtocolError):
        read(b"HTTP/1.1 200 OK\r\n", 1000, close=True)


def test_a_request_cannot_smuggle_lines() -> None:
    assert request("GET", "/x", {}).startswith(b"GET /x HTTP/1.1\r\nHost: ")
    for target, headers in (("/x\r\nA: b", {}), ("/x", {"A": "b\r\nC: d"}), ("/\0", {})):
        with pytest.raises(ValueError, match="control character"):
            request("GET", target, headers)
