"""`POST /dockpy/check?repair=1&content=1`, ours: the store is looked through, and mended; a JSON line for each finding."""

from __future__ import annotations

import time

import trio

from dockpy.api import query as q
from dockpy.daemon.exchange import Exchange, Threaded
from dockpy.daemon.router import Handler
from dockpy.errors import Conflict, DockpyError
from dockpy.paths import Paths
from dockpy.supervisor.containers import Containers

EVERY = 0.2  # seconds between two lines that tell how far it is


class CheckHandlers:
    def __init__(self, containers: Containers, paths: Paths) -> None:
        self._containers = containers
        self._paths = paths
        self._one = trio.CapacityLimiter(1)

    def table(self) -> dict[str, Handler]:
        return {"dockpy_check": self.check}

    async def check(self, exchange: Exchange) -> None:
        repair, content = (q.boolean(exchange.query, name) for name in ("repair", "content"))
        if self._one.borrowed_tokens:
            raise Conflict("this store is being checked already")
        wire = exchange.threaded()
        await trio.to_thread.run_sync(self._work, wire, repair, content, limiter=self._one)

    def _work(self, wire: Threaded, repair: bool, content: bool) -> None:
        from dockpy.supervisor import check

        told = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told >= EVERY:
                told = time.monotonic()
                wire.write_line({"progress": {"current": done, "total": total}})

        wire.begin()
        try:
            for finding in check.check(self._containers, self._paths, progress, content=content):
                done, why = check.repaired(finding) if repair else (False, "")
                line = {
                    "Kind": finding.kind,
                    "Subject": finding.subject,
                    "Problem": finding.problem,
                    "Remedy": finding.remedy,
                    "Automatic": finding.repair is not None,
                    "Repaired": done,
                }
                wire.write_line({**line, "Error": why} if why else line)
        except (DockpyError, OSError) as error:
            if isinstance(error, ConnectionError):
                raise
            wire.write_line({"errorDetail": {"message": str(error)}, "error": str(error)})
        wire.end()
