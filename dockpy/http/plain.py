"""The client's own HTTP/1.1 reader: bytes in, a head and body pieces out, no I/O, no imports.

Knows Content-Length, chunked, until-close and the 101 hand-over. The peer is our daemon or one
that the user named, so the limits guard against accidents and a hostile far end alike.
"""

from __future__ import annotations

MAX_HEAD = 64 << 10
MAX_LINE = 4096


class ProtocolError(Exception):
    """The far end does not speak HTTP/1.1 as RFC 9112 has it."""


class Head:
    """Status and headers (names in lower case; of repeated ones the last)."""

    __slots__ = ("headers", "reason", "status")

    def __init__(self, status: int, reason: str, headers: dict[str, str]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers


class ResponseReader:
    """One response: `feed` bytes (`feed_eof` at the end of the stream), then `head`, then `body`
    until it is over.

    `body()` gives the next piece, b"" when more input is needed; `over` tells the end. What was fed
    beyond the end (or beyond the head of a 101) is in `leftover()`.
    """

    __slots__ = (
        "_buffer",
        "_chunked",
        "_eof",
        "_left",
        "_method",
        "_state",
        "_until_close",
        "head",
    )

    def __init__(self, method: str) -> None:
        self._method = method
        self._buffer = b""
        self._state = "head"
        self._left = 0
        self._chunked = False
        self._until_close = False
        self._eof = False
        self.head: Head | None = None

    @property
    def over(self) -> bool:
        return self._state == "over"

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        head = self.head
        return (
            self._state == "over"
            and head is not None
            and not self._until_close
            and head.status != 101
            and head.headers.get("connection", "").lower() != "close"
        )

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._state == "head":
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD:
                    raise ProtocolError("the head of the response does not end")
                return
            raw, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._begin(_parse_head(raw))

    def feed_eof(self) -> None:
        self._eof = True
        if self._until_close and self._state != "over":
            if not self._buffer:
                self._state = "over"
        elif self._state not in ("over",):
            raise ProtocolError("the connection ended in the middle of a response")

    def _begin(self, head: Head) -> None:
        if 100 <= head.status < 200 and head.status != 101:
            return  # an interim response: the real head follows
        self.head = head
        headers = head.headers
        if head.status == 101 or self._method == "HEAD" or head.status in (204, 304):
            self._state = "over"
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._state = "size"
        elif "content-length" in headers:
            text = headers["content-length"]
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                raise ProtocolError("the response has a bad Content-Length")
            self._left = int(text)
            self._state = "data" if self._left else "over"
        else:
            self._until_close = True
            self._state = "data"

    def body(self) -> bytes:
        """The next piece of the body; b"" when there is none yet, or no more."""
        while True:
            if self._state == "data":
                return self._data()
            if self._state == "size":
                line = self._line()
                if line is None:
                    return b""
                digits = line.partition(b";")[0].strip()
                try:
                    if not digits or digits[:1] in b"+-_" or b"_" in digits:
                        raise ValueError
                    self._left = int(digits, 16)
                except ValueError:
                    raise ProtocolError("the response has a bad chunk size") from None
                self._chunked = True
                self._state = "data" if self._left else "trailer"
            elif self._state == "gap":
                line = self._line()
                if line is None:
                    return b""
                if line:
                    raise ProtocolError("the response has a chunk longer than its size")
                self._state = "size"
            elif self._state == "trailer":
                line = self._line()
                if line is None:
                    return b""
                if not line:
                    self._state = "over"
            else:
                return b""

    def _data(self) -> bytes:
        if self._until_close:
            piece, self._buffer = self._buffer, b""
            if self._eof:
                self._state = "over"
            return piece
        piece = self._buffer[: self._left]
        self._buffer = self._buffer[len(piece) :]
        self._left -= len(piece)
        if not self._left:
            self._state = "gap" if self._chunked else "over"
        return piece

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE:
                raise ProtocolError("a line of the response does not end")
            return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def leftover(self) -> bytes:
        piece, self._buffer = self._buffer, b""
        return piece


def _parse_head(raw: bytes) -> Head:
    lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code, _, reason = rest.partition(" ")
    if (
        not version.startswith("HTTP/1.")
        or len(code) != 3
        or not (code.isascii() and code.isdigit())
    ):
        raise ProtocolError("the far end does not speak HTTP/1.1")
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ProtocolError("the response has a bad header line")
        headers[name.lower()] = value.strip()
    return Head(int(code), reason, headers)


def request(
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes | None = None,
    *,
    sized: bool = False,
) -> bytes:
    """One request as bytes; `target` and header values must be free of control characters.

    With `sized`, a Content-Length stands in `headers`, and the caller sends that much after this.
    """
    lines = [f"{method} {target} HTTP/1.1", "Host: dockpy", "User-Agent: dockpy"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None and not sized:
        lines.append(f"Content-Length: {len(body)}")
    elif method == "POST" and not sized and "Transfer-Encoding" not in headers:
        lines.append("Content-Length: 0")
    head = "\r\n".join(lines)
    if (
        any(ord(letter) < 32 and letter not in "\r\n" for letter in head)
        or head.count("\n") != len(lines) - 1
    ):
        raise ValueError("a request line holds a control character")
    return head.encode("latin-1") + b"\r\n\r\n" + (body or b"")
