"""The next request on a connection, for every server of ours: so long for a head, and so long for none."""

from __future__ import annotations

import math
from typing import Protocol

import trio

from dockpy.http.codec import BadRequest, ServerCodec
from dockpy.http.messages import Closed, NeedData, Request

PIECE = 1 << 16


class Receiving(Protocol):
    async def receive(self, limit: int = ...) -> bytes: ...


async def next_request(
    wire: Receiving,
    codec: ServerCodec,
    *,
    head: float,
    idle: float = math.inf,
    waiting: set[trio.CancelScope] | None = None,
) -> Request | None:
    """None when the client has closed, or sent nothing for `idle` seconds; BadRequest (408) when its head takes more
    than `head` of them, as a whole: else one byte now and then keeps a connection for ever.

    Who cancels what is in `waiting` ends the wait.
    """
    now = trio.current_time
    until = math.inf
    while True:
        event = codec.next_event()
        if isinstance(event, Request):
            return event
        if isinstance(event, Closed):
            return None
        if not isinstance(event, NeedData):
            continue
        if codec.mid_request:
            until = min(until, now() + head)
        scopes = set() if waiting is None else waiting
        with trio.move_on_at(min(until, now() + idle)) as scope:
            scopes.add(scope)
            try:
                data = await wire.receive(PIECE)
            finally:
                scopes.discard(scope)
        if scope.cancelled_caught:
            if now() >= until:
                raise BadRequest(408, "the request's head took too long")
            return None
        codec.receive(data)
        if not data and not codec.mid_request:
            return None
