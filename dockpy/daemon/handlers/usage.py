"""pause, unpause, stats: what a container does to the machine, and standing still."""

from __future__ import annotations

import trio

from dockpy.api import query as q
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.router import Handler
from dockpy.errors import InvalidParameter
from dockpy.supervisor import stats
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.pause import pause, unpause


class UsageHandlers:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._sampler = stats.Sampler(containers)

    def table(self) -> dict[str, Handler]:
        return {
            "container_pause": self.pause,
            "container_unpause": self.unpause,
            "container_stats": self.stats,
        }

    def _named(self, exchange: Exchange) -> Container:
        return self._containers.get(exchange.names["id"])

    async def pause(self, exchange: Exchange) -> None:
        await exchange.body()
        await pause(self._containers, self._named(exchange))
        await exchange.reply(204)

    async def unpause(self, exchange: Exchange) -> None:
        await exchange.body()
        await unpause(self._containers, self._named(exchange))
        await exchange.reply(204)

    async def stats(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        stream = q.boolean(exchange.query, "stream", default=True)
        once = q.boolean(exchange.query, "one-shot")
        if stream and once:
            raise InvalidParameter("cannot have stream=true and one-shot=true")
        await exchange.body()
        before = await self._sampler.once(container)
        if not stream:
            if once or not container.state.running:
                await exchange.reply(200, stats.to_json(container, before, None))
                return
            # A share of the processors needs two moments.
            await exchange.while_connected(lambda: trio.sleep(stats.ROUND))
            sample = await self._sampler.once(container)
            await exchange.reply(200, stats.to_json(container, sample, before))
            return
        await exchange.begin()
        await exchange.write_line(stats.to_json(container, before, None))
        while container in self._containers.all():
            sample = await exchange.while_connected(lambda: self._sampler.next(container))
            await exchange.write_line(stats.to_json(container, sample, before))
            before = sample
        await exchange.end()
