"""The client's side of HTTP/1.1, sans I/O: requests in, bytes out; bytes in, replies out.

For registries and other hosts that nobody vouches for. Beside `codec`, the only user of h11, and never
imported by our own client (`plain` is its reader). What the host did wrong is a `BadResponse`; after
one of those the connection can only be closed. Heads are bounded, bodies are the caller's to bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Union

import h11

from dockpy.errors import DockpyError

HEAD_LIMIT = 64 << 10
Headers = Sequence[tuple[str, str]]


class BadResponse(DockpyError):
    """The other side does not speak HTTP/1.x as it should."""


@dataclass(frozen=True)
class Head:
    """The head of a response. Names are in lower case; what came several times is joined by ", "."""

    status: int
    reason: str
    headers: Mapping[str, str]

    @property
    def length(self) -> int | None:
        """Content-Length, where there is one (the codec has checked it)."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Data:
    """Some bytes of the response's body."""

    data: bytes


class End:
    """The response is complete."""


class Need:
    """Nothing to tell before more bytes arrive."""


Event = Union[Head, Data, End, Need]
_SILENT = "it closed the connection without an answer"
_END = End()
_NEED = Need()


class ClientCodec:
    """One connection: a sequence of requests and their replies, in order."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)

    def request(self, method: str, target: str, headers: Headers) -> bytes:
        """The head of a request. Without Content-Length and Transfer-Encoding it has no body.

        Raises ValueError where a header would end early: what comes from outside is checked before.
        """
        try:
            return (
                self._h11.send(h11.Request(method=method, target=target, headers=list(headers)))
                or b""
            )
        except h11.LocalProtocolError as error:
            raise ValueError(f"this cannot be a request: {error}") from None

    def data(self, data: bytes) -> bytes:
        return self._h11.send(h11.Data(data=data)) or b""

    def end(self) -> bytes:
        return self._h11.send(h11.EndOfMessage()) or b""

    def receive(self, data: bytes) -> None:
        """Takes bytes from the host; b"" when it has closed its side."""
        try:
            self._h11.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise _told(error) from None

    def next_event(self) -> Event:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise _told(error) from None
            if event is h11.NEED_DATA:
                return _NEED
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    raise BadResponse("it changes the protocol without having been asked")
                continue
            if isinstance(event, h11.Response):
                return _head(event)
            if isinstance(event, h11.Data):
                return Data(bytes(event.data))
            if isinstance(event, h11.EndOfMessage):
                return _END
            if isinstance(event, h11.ConnectionClosed):
                raise BadResponse(_SILENT)
            # PAUSED: a CONNECT that was granted; what follows is another protocol's.
            return _END

    @property
    def sending(self) -> bool:
        """Whether the request's body is still to be sent."""
        return self._h11.our_state is h11.SEND_BODY

    @property
    def answered(self) -> bool:
        """Whether the host has begun its reply."""
        return self._h11.their_state is not h11.SEND_RESPONSE

    def reusable(self) -> bool:
        """Makes ready for the next request; whether there can be one."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        if self._h11.trailing_data[0]:
            return False  # a reply that nobody asked for
        self._h11.start_next_cycle()
        return True

    def leftover(self) -> bytes:
        """What came behind the reply: after CONNECT, the first bytes of the tunnel."""
        return self._h11.trailing_data[0]


def _head(event: h11.Response) -> Head:
    headers: dict[str, str] = {}
    for name, value in event.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Head(event.status_code, bytes(event.reason).decode("latin-1"), headers)


def _told(error: h11.RemoteProtocolError) -> BadResponse:
    if "event type ConnectionClosed when" in str(error):
        return BadResponse(_SILENT)
    # h11 ends its sentences with the bytes that it did not like.
    return BadResponse(f"it does not speak HTTP: {str(error).partition(': ')[0]}")
