"""Removing a container: out of sight in one step (its folder is renamed, its name is free), its bytes afterwards.

A daemon that is killed in between finds the left-overs at its start: folders below tmp/, and active
snapshots of no container.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress

import trio

from dockpy.errors import Conflict, DockpyError
from dockpy.supervisor import pause, restart
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.shims import Lost

log = logging.getLogger(__name__)

KILL_WITHIN = 10.0


async def remove(containers: Containers, container: Container, *, force: bool) -> None:
    """Returns once the container's name is free and no list shows it."""
    if container.removing:
        raise Conflict(f"removal of container {container.name} is already in progress")
    if container.state.running and not force:
        raise Conflict(
            f'cannot remove container "/{container.name}": container is running: '
            "stop the container before removing or force remove"
        )
    if container.state.restarting and not force:
        raise Conflict(
            f'cannot remove container "/{container.name}": container is restarting: '
            "stop the container before removing or force remove"
        )
    container.removing = True
    try:
        async with container.lock:
            restart.cancel(container)
            if container.state.running:
                await _kill(containers, container)
            take_away(containers, container)
    except BaseException:
        container.removing = False
        raise  # else it stays so: whoever waited for the lock meets a container that is gone


async def _kill(containers: Containers, container: Container) -> None:
    gone = container.exits.add()
    if container.shim is not None:
        with suppress(Lost):  # it ends in this very moment
            containers.publish(container, "kill", signal="9")  # before the exit tells of itself
            await container.shim.ask(lambda link: link.kill(9, everyone=True))
    if not await pause.killed(containers, container, gone, KILL_WITHIN):
        raise DockpyError(
            f'could not kill container "/{container.name}": it is still there after {KILL_WITHIN:.0f} s'
        )


def take_away(containers: Containers, container: Container) -> None:
    """The one step. Nothing when somebody else has done it."""
    if container not in containers.all():
        return
    container.removing = True
    restart.cancel(container)
    container.drop_pending()
    aside = None
    try:
        aside = containers.folders.discard(container.id)
    except OSError as error:
        log.error("the folder of container %s stays for now: %s", container.id[:12], error)
    containers.forget(container)
    containers.publish(container, "destroy")
    container.exits.release(container.outcome)
    container.removals.release(container.outcome)
    containers.aside(_delete, containers, container.id, aside)


async def _delete(containers: Containers, container_id: str, aside: str | None) -> None:
    await trio.to_thread.run_sync(
        delete_files, containers, container_id, aside, limiter=containers.disk
    )


def delete_files(containers: Containers, container_id: str, aside: str | None) -> None:
    """Blocking; what cannot be deleted is told in the log and tried again at the next start."""
    try:
        containers.snapshots.remove(container_id)
    except (DockpyError, OSError) as error:
        log.error("the snapshot of container %s could not be removed: %s", container_id[:12], error)
    if aside is not None:
        # Everything in there was written by daemon and shim, never by the container.
        shutil.rmtree(aside, ignore_errors=True)
