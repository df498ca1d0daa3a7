"""`/dockpy/limit`, ours: how much images may take on disk; and the tasks that see to it, and to `storage.keep-blobs`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import trio

from dockpy.daemon.exchange import Exchange
from dockpy.daemon.router import Handler
from dockpy.errors import DockpyError, InvalidParameter
from dockpy.images.quota import Quota
from dockpy.images.remaking import Thinning
from dockpy.supervisor.containers import Containers

log = logging.getLogger("dockpy.quota")

T = TypeVar("T")

# Seconds between two looks, while there is a limit, at whether something has come.
EVERY = 3.0


class QuotaHandlers:
    def __init__(self, containers: Containers, path: str) -> None:
        self._containers = containers
        self._thinning = Thinning(containers.images)
        self._quota = Quota(path, containers.images, self._in_use, self._thinning.thin)
        self._changed = trio.Event()

    def table(self) -> dict[str, Handler]:
        return {"dockpy_limit": self.tell, "dockpy_limit_set": self.set}

    def _in_use(self, identifier: str) -> bool:
        """Asked in a worker thread: the containers are looked at in trio's."""
        return trio.from_thread.run_sync(
            lambda: any(one.record.image_id == identifier for one in self._containers.all())
        )

    async def tell(self, exchange: Exchange) -> None:
        used = await self._do(self._quota.used)
        await exchange.reply(200, {"Limit": self._quota.limit, "Used": used})

    async def set(self, exchange: Exchange) -> None:
        """Body {"Limit": bytes or null}; answers as `tell`, after what had to go has gone."""
        raw = await exchange.json()
        limit = raw.get("Limit") if isinstance(raw, dict) else -1
        if limit is not None and (
            not isinstance(limit, int) or isinstance(limit, bool) or limit < 0
        ):
            raise InvalidParameter("a limit is a number of bytes, or null for none")
        await self._do(lambda: self._quota.set(limit))
        self._changed.set()
        await self._keep()
        await self.tell(exchange)

    async def keep_for_ever(self) -> None:
        seen = -1
        while True:
            if self._quota.limit is None:
                self._changed = trio.Event()
                await self._changed.wait()
            if self._containers.images.index.written != seen:
                seen = self._containers.images.index.written
                try:
                    await self._keep()
                    if self._quota.put_off:
                        seen = -1
                except (DockpyError, OSError) as error:  # a damaged index, a full disk
                    log.error("images are not held to their limit: %s", error)
            await trio.sleep(EVERY)

    async def thin_for_ever(self) -> None:
        """Drops the blobs of layers that are unpacked, whenever images have come."""
        seen = -1
        try:
            while True:
                written = self._containers.images.index.written
                if written != seen:
                    try:
                        # Long for a large image, and safe to be cut anywhere.
                        await trio.to_thread.run_sync(self._thinning.thin, abandon_on_cancel=True)
                        seen = -1 if self._thinning.put_off else written
                    except (DockpyError, OSError) as error:
                        log.error("blobs are kept: %s", error)
                await trio.sleep(EVERY)
        finally:
            self._thinning.stop()

    async def _keep(self) -> None:
        for image in await self._do(self._quota.keep):
            self._containers.events.publish("image", "delete", image.id, {"name": image.id})

    async def _do(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._containers.disk)
