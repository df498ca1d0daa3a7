"""The server's side of RFC 6455: its own examples, frames cut anywhere, what a client must not send."""

from __future__ import annotations

import pytest

from dockpy.errors import InvalidParameter
from dockpy.http.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    BadFrame,
    Reader,
    accept,
    close,
    frame,
)

MASK = b"\x37\xfa\x21\x3d"
HEADERS = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def sent(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame as a client sends it."""
    plain = frame(opcode, payload)
    start = len(plain) - len(payload)
    masked = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    first = plain[0] if final else plain[0] & 0x7F
    return bytes((first, plain[1] | 0x80)) + plain[2:start] + MASK + masked


def test_the_handshake_of_the_rfc() -> None:
    agreed = dict(accept(HEADERS))
    assert agreed["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert "Sec-WebSocket-Protocol" not in agreed
    chosen = dict(accept({**HEADERS, "sec-websocket-protocol": "chat, superchat"}))
    assert chosen["Sec-WebSocket-Protocol"] == "chat"


@pytest.mark.parametrize(
    "wrong",
    [
        {"upgrade": "tcp"},
        {"connection": "close"},
        {"sec-websocket-version": "8"},
        {"sec-websocket-key": ""},
        {"sec-websocket-key": "c2hvcnQ="},
        {"sec-websocket-key": "not base64 at all, but 24"},
    ],
)
def test_what_is_no_handshake(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter):
        accept({**HEADERS, **wrong})


def test_frames_of_the_rfc() -> None:
    assert frame(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert frame(BINARY, b"x" * 256)[:4] == bytes.fromhex("827e0100")
    assert frame(BINARY, b"x" * 65536)[:10] == bytes.fromhex("827f0000000000010000")
    assert close(1000) == bytes.fromhex("880203e8")
    assert Reader().feed(bytes.fromhex("818537fa213d7f9f4d5158")) == [(BINARY, b"Hello")]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 4096, 1 << 20])
def test_frames_cut_anywhere(step: int) -> None:
    large = bytes(range(256)) * 300
    data = (
        sent(TEXT, b"one ", final=False)
        + sent(PING, b"there?")
        + sent(CONTINUATION, b"two ", final=False)
        + sent(CONTINUATION, b"")
        + sent(BINARY, large)
        + sent(CLOSE, b"\x03\xe8bye")
    )
    reader, text, control = Reader(), b"", []
    for at in range(0, len(data), step):
        for opcode, piece in reader.feed(data[at : at + step]):
            if opcode == BINARY:
                text += piece
            else:
                control.append((opcode, piece))
    assert text == b"one two " + large
    assert control == [(PING, b"there?"), (CLOSE, b"\x03\xe8bye")]


@pytest.mark.parametrize(
    "data",
    [
        frame(BINARY, b"unmasked"),
        b"\xc2" + sent(BINARY, b"x")[1:],
        sent(3, b"x"),
        sent(PING, b"x", final=False),
        sent(PING, b"x" * 126),
        sent(CONTINUATION, b"x"),
        sent(TEXT, b"x", final=False) + sent(TEXT, b"x"),
        b"\x82\xff" + b"\xff" * 8 + MASK,
    ],
)
def test_what_a_client_must_not_send(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Reader().feed(data)


def test_a_long_frame_is_not_waited_for() -> None:
    reader = Reader()
    head = b"\x82\xff" + (1 << 40).to_bytes(8, "big") + MASK
    assert reader.feed(head) == []
    assert reader.feed(MASK) == [(BINARY, bytes(4))]
