"""The client's codec on bytes alone."""

from __future__ import annotations

import pytest

from dockpy.http.client_codec import BadResponse, ClientCodec, Data, End, Head, Need


def asked(answer: bytes = b"") -> ClientCodec:
    codec = ClientCodec()
    sent = codec.request("GET", "/v2/", [("Host", "r"), ("Accept", "x")]) + codec.end()
    assert sent == b"GET /v2/ HTTP/1.1\r\nHost: r\r\nAccept: x\r\n\r\n"
    if answer:
        codec.receive(answer)
    return codec


def test_a_reply_is_told_in_three_steps_and_another_can_follow() -> None:
    codec = asked(
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 401 Nope\r\nWWW-Authenticate: a\r\nWWW-Authenticate: b\r\n"
        b"Content-Type: Text/HTML; charset=x\r\nContent-Length: 2\r\n\r\nhi"
    )
    head = codec.next_event()
    assert isinstance(head, Head)
    assert (head.status, head.reason, head.length, head.media_type) == (401, "Nope", 2, "text/html")
    assert head.headers["www-authenticate"] == "a, b"
    data = codec.next_event()
    assert isinstance(data, Data)
    assert data.data == b"hi"
    assert isinstance(codec.next_event(), End)
    assert codec.reusable()
    assert codec.request("HEAD", "/", [("Host", "r")])


def test_bytes_that_nobody_asked_for_end_a_connection() -> None:
    codec = asked(b"HTTP/1.1 204 \r\n\r\nHTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx")
    assert isinstance(codec.next_event(), Head)
    assert isinstance(codec.next_event(), End)
    assert not codec.reusable()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20),
        b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyyyyyyy\r\n" * 10000,
    ],
    ids=lambda answer: len(answer),
)
def test_what_is_not_http_is_said(answer: bytes) -> None:
    codec = asked()
    with pytest.raises(BadResponse):
        codec.receive(answer)
        while not isinstance(codec.next_event(), Need):
            pass


def test_a_cut_body_is_no_end() -> None:
    codec = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
    assert isinstance(codec.next_event(), Head)
    assert isinstance(codec.next_event(), Data)
    codec.receive(b"")
    with pytest.raises(BadResponse):
        codec.next_event()


def test_a_header_cannot_end_early() -> None:
    with pytest.raises(ValueError, match="cannot be a request"):
        ClientCodec().request("GET", "/", [("Host", "r"), ("A", "b\r\nC: d")])
    with pytest.raises(ValueError, match="cannot be a request"):
        ClientCodec().request("GET", "/ HTTP/1.1\r\n", [("Host", "r")])
