"""`GET /events`: the past that is remembered, and then the present until the client has enough."""

from __future__ import annotations

import time

import trio

from dockpy.api import query as q
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.router import Handler
from dockpy.supervisor.events import Events, Overtaken, matches

FILTERS = frozenset(
    [
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    ]
)


class EventHandlers:
    def __init__(self, events: Events) -> None:
        self._events = events

    def table(self) -> dict[str, Handler]:
        return {"events": self.events}

    async def events(self, exchange: Exchange) -> None:
        filters = q.filters(exchange.query, FILTERS)
        since = q.timestamp(exchange.query.get("since", ""), "since")
        until = q.timestamp(exchange.query.get("until", ""), "until")
        listener = self._events.listen(filters, exchange.version)
        try:
            # Nothing awaits before this: what is past ends where the listener begins.
            past = (
                b"".join(
                    event.line(exchange.version)
                    for event in self._events.past(since, until)
                    if matches(event, filters)
                )
                if since is not None or until is not None
                else b""
            )
            await exchange.begin()
            await exchange.write(past)

            async def follow() -> None:
                while True:
                    await exchange.write(await listener.next())

            seconds = float("inf") if until is None else (until - time.time_ns()) / 1e9
            if seconds > 0:
                with trio.move_on_after(seconds):
                    await exchange.while_connected(follow)
        except Overtaken:
            exchange.broken = True  # a torn body: what is missing must not look like an end
            return
        finally:
            listener.close()
        await exchange.end()
