"""A container whose layers are not all there, as after a damaged record: its image is unpacked again beneath it."""

from __future__ import annotations

import logging

import trio

from dockpy.errors import DockpyError
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers

log = logging.getLogger(__name__)


def mend_now(containers: Containers, container: Container) -> None:
    """Blocking. NotFound when what the container had written is gone, or its image."""
    snapshots = containers.snapshots
    snapshots.upper(container.id)
    chain = containers.images.unpack(containers.images.resolve(container.record.image_id))
    snapshots.rebase(container.id, chain)


async def mend(containers: Containers, container: Container) -> None:
    """When it is needed; what cannot be mended is told in the log."""
    if containers.snapshots.whole(container.id):
        return
    try:
        await trio.to_thread.run_sync(mend_now, containers, container, limiter=containers.disk)
    except (DockpyError, OSError) as error:
        log.error("the files of container %s cannot be mended: %s", container.id[:12], error)
    else:
        log.warning("the layers of container %s were unpacked again", container.id[:12])
