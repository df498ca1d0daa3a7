"""What a container takes on the disk."""

from __future__ import annotations

import trio

from dockpy.errors import NotFound
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers


async def sizes_of(containers: Containers, container: Container) -> tuple[int, int]:
    """docker's SizeRw and SizeRootFs: what it has written, and that with its image."""

    def usage() -> tuple[int, int]:
        snapshots = containers.snapshots
        own = snapshots.usage(container.id).size
        chain = snapshots.parent_of(container.id)
        below = 0
        if chain is not None:
            try:
                below = containers.images.resolve(container.record.image_id).size
            except NotFound:
                below = snapshots.chain_usage(chain).size
        return own, own + below

    return await trio.to_thread.run_sync(usage, limiter=containers.disk)
