"""The server's side of a websocket (RFC 6455) as pure functions and one reader: no sockets.

Messages are a stream of bytes here, as docker has it: what a frame holds is passed on as it comes, so no
frame's length costs memory. Extensions are never agreed on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

from dockpy.errors import InvalidParameter

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, GOING_AWAY, PROTOCOL_ERROR = 1000, 1001, 1002
MOST_CONTROL = 125  # §5.5


class BadFrame(ValueError):
    """The client broke the protocol; the connection is to be closed with PROTOCOL_ERROR."""


def accept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers that agree to a client's handshake (§4.2); InvalidParameter for one that is none.

    Of the protocols that it can speak none means anything here: the first is taken, since browsers insist on an answer.
    """
    tokens = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in tokens:
        raise InvalidParameter("not websocket protocol")
    if headers.get("sec-websocket-version", "").strip() != "13":
        raise InvalidParameter("missing or bad WebSocket Version: 13 is served")
    key = headers.get("sec-websocket-key", "").strip()
    try:
        whole = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise InvalidParameter(
            "mismatch challenge/response: Sec-WebSocket-Key is 16 bytes in base64"
        )
    # The RFC's own constant; the hash protects nothing.
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    agreed = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", base64.b64encode(digest).decode()),
    ]
    protocol = headers.get("sec-websocket-protocol", "").partition(",")[0].strip()
    if protocol:
        agreed.append(("Sec-WebSocket-Protocol", protocol))
    return agreed


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole, final frame as a server sends it: not masked."""
    size = len(payload)
    if size < 126:
        length = bytes((size,))
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes((0x80 | opcode,)) + length + payload


def close(code: int) -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big"))


class Reader:
    """Splits what a client sends into (opcode, piece) pairs: BINARY for whatever is data, else a whole control frame."""

    __slots__ = ("_buffer", "_done", "_fragmented", "_left", "_mask")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # bytes of the data frame at hand that are still to come
        self._done = 0  # bytes of it that were passed on
        self._mask = b""
        self._fragmented = False  # whether a message is to be continued

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """BadFrame for what a client must not send."""
        data = self._buffer + data
        self._buffer = b""
        found: list[tuple[int, bytes]] = []
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                found.append((BINARY, unmasked(piece, self._mask, self._done)))
                at += len(piece)
                self._left -= len(piece)
                self._done += len(piece)
                continue
            head = self._head(data, at)
            if head is None:
                self._buffer = data[at:]
                break
            opcode, size, start = head
            self._mask = data[start - 4 : start]
            if opcode >= CLOSE:
                if len(data) < start + size:
                    self._buffer = data[at:]
                    break
                found.append((opcode, unmasked(data[start : start + size], self._mask, 0)))
                at = start + size
                continue
            self._fragmented = not data[at] & 0x80
            self._left, self._done, at = size, 0, start
        return found

    def _head(self, data: bytes, at: int) -> tuple[int, int, int] | None:
        """Opcode, length and where the payload begins; None before the head is whole (§5.2)."""
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        opcode = first & 0x0F
        if first & 0x70:
            raise BadFrame("an extension that was not agreed on")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise BadFrame(f"unknown opcode {opcode}")
        if not second & 0x80:
            raise BadFrame("a client's frame is masked")
        size = second & 0x7F
        if opcode >= CLOSE:
            if size > MOST_CONTROL or not first & 0x80:
                raise BadFrame("a control frame is short and whole")
        elif self._fragmented != (opcode == CONTINUATION):
            raise BadFrame("a message's parts are out of order")
        more = {126: 2, 127: 8}.get(size, 0)
        start = at + 2 + more + 4
        if len(data) < start:
            return None
        if more:
            size = int.from_bytes(data[at + 2 : at + 2 + more], "big")
        if size >> 63:
            raise BadFrame("a frame's length has 63 bits")
        return opcode, size, start


def unmasked(piece: bytes, mask: bytes, offset: int) -> bytes:
    """`piece`, which stands `offset` bytes into its frame, without the mask (§5.3)."""
    turn = offset % 4
    whole = ((mask[turn:] + mask[:turn]) * (len(piece) // 4 + 1))[: len(piece)]
    number = int.from_bytes(piece, "little") ^ int.from_bytes(whole, "little")
    return number.to_bytes(len(piece), "little")
