"""Finds the handler of a request by the table in api/routes."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Callable

from dockpy.api.routes import RouteTable, split_version
from dockpy.daemon.exchange import Exchange

Handler = Callable[[Exchange], Awaitable[None]]


class Router:
    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._table = RouteTable()

    async def dispatch(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method == "OPTIONS":
            await exchange.reply(200)
            return
        exchange.version, path = split_version(request.path)
        name, exchange.names = self._table.find(request.method, path)
        await self._handlers[name](exchange)
