"""Docker's stream frames: eight bytes (stream, three zeros, big-endian length), then the payload.

Pure functions of bytes, shared by client, shim and daemon.
"""

from __future__ import annotations

from dockpy.errors import DockpyError

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3
EXIT = 4  # ours, to who asked for it only: one byte, the exit code
MARK = 5  # ours, as above: where in a log the reader stands
HEADER = 8


class BadFrame(DockpyError):
    """The stream is not framed, or its frames are broken."""


def header(stream: int, length: int) -> bytes:
    return bytes((stream, 0, 0, 0)) + length.to_bytes(4, "big")


def frame(stream: int, payload: bytes) -> bytes:
    return header(stream, len(payload)) + payload


class FrameReader:
    """Splits a stream of frames into (stream, piece) pairs, without waiting for a frame to be
    whole.
    """

    __slots__ = ("_buffer", "_left", "_stream")

    def __init__(self) -> None:
        self._buffer = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        pieces: list[tuple[int, bytes]] = []
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                if end - at < HEADER:
                    self._buffer = data[at:]
                    break
                if data[at] > MARK or data[at + 1 : at + 4] != b"\0\0\0":
                    raise BadFrame(f"Unrecognized input header: {data[at]}")
                self._stream = data[at]
                self._left = int.from_bytes(data[at + 4 : at + HEADER], "big")
                at += HEADER
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            pieces.append((self._stream, piece))
        return pieces

    def feed_grouped(self, data: bytes) -> list[tuple[int, bytes]]:
        """As `feed`, with neighbours of one stream joined: small frames cost one write together."""
        grouped: list[tuple[int, list[bytes]]] = []
        for stream, piece in self.feed(data):
            if grouped and grouped[-1][0] == stream:
                grouped[-1][1].append(piece)
            else:
                grouped.append((stream, [piece]))
        return [(stream, b"".join(pieces)) for stream, pieces in grouped]

    @property
    def between_frames(self) -> bool:
        return not self._left and not self._buffer
