"""The server's side of HTTP/1.1, sans I/O: bytes in, events out; replies in, bytes out.

The only user of h11, and never imported by the client. What the peer did wrong is a `BadRequest`
with the status that should be answered; after one of those the connection can only be closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import h11

from dockpy.http.messages import Body, Closed, EndOfRequest, Event, NeedData, Request, parse_target

# docker's own daemon takes Go's 1 MiB of headers; X-Registry-Auth tokens of clouds need some 10 KiB.
HEAD_LIMIT = 128 * 1024

_NEED_DATA = NeedData()
_END = EndOfRequest()
_CLOSED = Closed()


class BadRequest(Exception):
    """The peer does not speak HTTP/1.x as it should."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ServerCodec:
    """One connection: a sequence of requests and replies, in order."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)

    def receive(self, data: bytes) -> None:
        """Takes bytes from the peer; b"" when the peer has closed its side."""
        try:
            self._h11.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint, str(error)) from None

    def next_event(self) -> Event:
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint, str(error)) from None
        if event is h11.NEED_DATA:
            return _NEED_DATA
        if isinstance(event, h11.Request):
            path, query, lists = parse_target(event.target.decode("ascii", "replace"))
            headers = {
                name.decode("ascii"): value.decode("latin-1") for name, value in event.headers
            }
            return Request(event.method.decode("ascii"), path, query, headers, lists)
        if isinstance(event, h11.Data):
            return Body(bytes(event.data))
        if isinstance(event, h11.EndOfMessage):
            return _END
        return _CLOSED

    @property
    def mid_request(self) -> bool:
        """Whether some bytes of a request's head have arrived, and not all of it."""
        return self._h11.their_state is h11.IDLE and bool(self._h11.trailing_data[0])

    @property
    def wants_continue(self) -> bool:
        return self._h11.they_are_waiting_for_100_continue

    def go_on(self) -> bytes:
        """`100 Continue`: the client waits for it before it sends its body."""
        return self._sent(h11.InformationalResponse(status_code=100, headers=[]))

    @property
    def body_pending(self) -> bool:
        """Whether the request's body has not been read to its end."""
        return self._h11.their_state is h11.SEND_BODY

    def head(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        """The head of a reply; without a Content-Length the body goes in chunks."""
        return self._sent(
            h11.Response(status_code=status, headers=headers, reason=REASONS.get(status, b""))
        )

    def data(self, data: bytes) -> bytes:
        return self._sent(h11.Data(data=data))

    def data_frame(self, length: int) -> tuple[bytes, bytes]:
        """What goes before and after `length` body bytes that the caller moves by itself (sendfile)."""
        marker = _Length(length)
        # h11 only asks for its len(), and gives it back untouched.
        event = h11.Data(data=cast(bytes, marker))
        parts: list[object] = list(self._h11.send_with_data_passthrough(event) or [])
        at = next(i for i, part in enumerate(parts) if part is marker)
        before, after = cast("list[bytes]", parts[:at]), cast("list[bytes]", parts[at + 1 :])
        return b"".join(before), b"".join(after)

    def end(self) -> bytes:
        return self._sent(h11.EndOfMessage())

    def reusable(self) -> bool:
        """Makes ready for the next request; whether there can be one."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def leftover(self) -> bytes:
        """What the peer sent behind its request: the first bytes of the protocol it changes to."""
        return self._h11.trailing_data[0]

    def _sent(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""


class _Length:
    """Stands for body bytes that somebody else sends."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


def raw_head(status: int, reason: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """A head after which the connection is no longer HTTP."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


REASONS = {
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    206: b"Partial Content",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Request Entity Too Large",
    414: b"Request-URI Too Long",
    416: b"Requested Range Not Satisfiable",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    507: b"Insufficient Storage",
}
