"""The server's codec on bytes alone."""

from __future__ import annotations

import pytest

from dockpy.http.codec import BadRequest, ServerCodec
from dockpy.http.messages import Body, Closed, EndOfRequest, NeedData, Request


def codec_with(data: bytes) -> ServerCodec:
    codec = ServerCodec()
    codec.receive(data)
    return codec


def test_a_request_is_told_in_three_steps() -> None:
    codec = codec_with(
        b"POST /v1.43/x?a=1&a=2&b HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\nhi"
    )
    request = codec.next_event()
    assert isinstance(request, Request)
    assert (request.method, request.path) == ("POST", "/v1.43/x")
    assert request.query == {"a": "1", "b": ""}
    assert request.query_lists["a"] == ("1", "2")
    body = codec.next_event()
    assert isinstance(body, Body)
    assert body.data == b"hi"
    assert isinstance(codec.next_event(), EndOfRequest)


def test_a_pipelined_request_waits_for_the_reply_to_the_first() -> None:
    one = b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n"
    codec = codec_with(one + one.replace(b"/a", b"/b"))
    assert isinstance(codec.next_event(), Request)
    assert isinstance(codec.next_event(), EndOfRequest)
    codec.head(204, [])
    codec.end()
    assert codec.reusable()
    second = codec.next_event()
    assert isinstance(second, Request)
    assert second.path == "/b"


def test_half_a_head_is_seen_as_such() -> None:
    codec = codec_with(b"GET /a HT")
    assert isinstance(codec.next_event(), NeedData)
    assert codec.mid_request
    assert not ServerCodec().mid_request


def test_the_end_of_a_quiet_connection_is_no_error() -> None:
    codec = codec_with(b"")
    assert isinstance(codec.next_event(), Closed)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: d\r\nX: " + b"a" * 200_000, 431),
        (b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_has_a_status(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        codec_with(data).next_event()
    assert caught.value.status == status


def test_a_file_can_be_sent_between_chunk_borders() -> None:
    codec = codec_with(b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n")
    codec.next_event()
    codec.next_event()
    assert b"chunked" in codec.head(200, [("Content-Type", "x")]).lower()
    before, after = codec.data_frame(300_000)
    assert before == b"493e0\r\n"
    assert after == b"\r\n"
    assert codec.end() == b"0\r\n\r\n"


def test_what_follows_the_request_belongs_to_the_next_protocol() -> None:
    codec = codec_with(
        b"POST /attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Length: 0\r\n\r\nstdin"
    )
    request = codec.next_event()
    assert isinstance(request, Request)
    assert request.upgrade == "tcp"
    assert isinstance(codec.next_event(), EndOfRequest)
    assert codec.leftover() == b"stdin"
