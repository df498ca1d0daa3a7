"""A daemon's first act: find every container of the store and what became of those that ran.

The exit file is the truth; without one the shim is asked; without a shim the container was killed
(137), or the machine was switched off under it (255). Then what an interrupted daemon left is removed.
"""

from __future__ import annotations

import json
import logging
import os

import trio

from dockpy import files, ids
from dockpy.api.times import now
from dockpy.errors import DockpyError
from dockpy.shim.protocol import ShimLink
from dockpy.supervisor import monitor, pause, restart
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers, read_exit
from dockpy.supervisor.records import Broken, changed
from dockpy.supervisor.remove import delete_files, take_away
from dockpy.supervisor.shims import Shim

log = logging.getLogger(__name__)


async def adopt(containers: Containers, *, start: bool) -> None:
    """Returns when every container's state is known; left-overs are deleted in the background.

    start: this is no daemon's revival, so restart policies may start what does not run.
    """
    for loaded in containers.folders.load():
        if isinstance(loaded, Broken):
            _broken(containers, loaded)
            continue
        record, state = loaded
        container = Container(record, state)
        try:
            containers.names.add(record.id, record.name)
        except DockpyError as error:
            log.error("container %s is left alone: %s", record.id[:12], error)
            continue
        containers.add(container)
    async with trio.open_nursery() as nursery:
        for container in containers.all():
            nursery.start_soon(_adopt_whole, containers, container)
    containers.groups.sweep()
    for container in containers.all():
        restart.resume(containers, container, start=start)
    containers.nursery.start_soon(_clean, containers)


def _broken(containers: Containers, broken: Broken) -> None:
    if not broken.written:
        log.warning("removing an interrupted create: %s", broken.id[:12])
        containers.folders.discard(broken.id)
        return
    log.error(
        "container %s is left alone, its record cannot be read: %s", broken.id[:12], broken.reason
    )


async def _adopt_whole(containers: Containers, container: Container) -> None:
    await _adopt(containers, container)
    await monitor.adopt(containers, container)


async def _adopt(containers: Containers, container: Container) -> None:
    bundle = containers.folders.bundle(container.id)
    boot = containers.host.boot
    told = _shim_file(bundle)
    if told is not None and told.get("boot") == boot:
        finished = read_exit(bundle, boot)
        if (
            finished is not None
            and not container.state.running
            and finished.finished == container.state.finished
        ):
            return  # a run whose end is recorded already
        if finished is not None and told.get("init") is None:
            if container.state.exit_code != finished.code or not container.state.error:
                containers.failed(container, finished.code, finished.error)
            return
        _suppose_running(containers, container, told)
        if finished is None and await _connect(containers, container, str(told.get("socket"))):
            return
        containers.lost(container)
    elif container.state.running:
        code, error = (
            (255, "the machine was switched off")
            if container.state.boot != boot
            else (137, "no shim")
        )
        containers.exited(container, code, now(), False, error)
    elif container.record.host_config.auto_remove and container.state.status == "exited":
        take_away(containers, container)


def _shim_file(bundle: str) -> dict[str, object] | None:
    return _json(f"{bundle}/shim.json")


def _json(path: str) -> dict[str, object] | None:
    try:
        raw = json.loads(files.read_bytes(path))
    except (OSError, ValueError):
        return None
    return raw if isinstance(raw, dict) else None


def _suppose_running(containers: Containers, container: Container, told: dict[str, object]) -> None:
    """A daemon that died right after a start may not have noted it."""
    if container.state.running:
        return
    init = told.get("init")
    spec = _json(f"{containers.folders.bundle(container.id)}/config.json")
    linux = (spec or {}).get("linux")
    group = linux.get("cgroupsPath") if isinstance(linux, dict) else None
    pid, start = (init.get("pid"), init.get("start")) if isinstance(init, dict) else (0, 0)
    container.state = changed(
        container.state,
        status="running",
        pid=int(str(pid or 0)),
        pid_start=int(str(start or 0)),
        boot=containers.host.boot,
        started=now(),
        exit_code=0,
        error="",
        begun=True,
        group=str(group or ""),
    )


async def _connect(containers: Containers, container: Container, socket: str) -> bool:
    """Whether its shim lives; then it is followed again."""
    link = _open(containers, container, socket)
    if link is None:
        return False
    shim = Shim(link, containers.teller(container))
    containers.follow(container, shim)
    try:
        reply = await shim.ask(lambda asked: asked.state())
    except DockpyError as error:
        log.warning("the shim of container %s: %s", container.id[:12], error)
        return container.shim is shim
    pid, start = reply.fields.get("pid"), reply.fields.get("start")
    if pid and container.state.running:
        container.state = changed(container.state, pid=int(pid), pid_start=int(start or 0))
        frozen = pause.found(containers, container)
        if frozen != container.state.frozen:
            container.state = changed(container.state, frozen=frozen)
            containers.save_state(container)
    code = reply.fields.get("code")
    if code is not None:
        finished = read_exit(containers.folders.bundle(container.id), containers.host.boot)
        containers.exited(
            container,
            int(code),
            finished.finished if finished else now(),
            finished.oom if finished else False,
        )
    return True


def _open(containers: Containers, container: Container, socket: str) -> ShimLink | None:
    for path in (socket, f"{containers.host.run}/s/{container.id[:16]}.sock"):
        try:
            return ShimLink.connect(path)
        except OSError:
            continue
    told = _shim_file(containers.folders.bundle(container.id)) or {}
    pid, start = int(str(told.get("pid") or 0)), int(str(told.get("start") or 0))
    if pid and ids.alive(pid, start):
        log.error(
            "the shim of container %s lives (pid %d), but its socket does not answer",
            container.id[:12],
            pid,
        )
    return None


async def _clean(containers: Containers) -> None:
    # Looked at here, between two awaits: a create in progress shows either nothing or all of itself.
    known = {container.id for container in containers.all()}
    keys = containers.snapshots.keys()
    orphans = [key for key in keys if len(key) == 64 and key not in known]
    await trio.to_thread.run_sync(_clean_disk, containers, known, orphans, limiter=containers.disk)


def _clean_disk(containers: Containers, known: set[str], orphans: list[str]) -> None:
    folders = containers.folders
    try:
        left = os.listdir(folders.tmp)
    except FileNotFoundError:
        left = []
    for name in left:
        if name.startswith("container-"):
            delete_files(containers, name[len("container-") :], f"{folders.tmp}/{name}")
    for container_id in known:
        for path in _partial(folders.bundle(container_id)):
            files.unlink_if_exists(path)
    for key in orphans:
        if not os.path.exists(
            folders.bundle(key)
        ):  # else: a record that cannot be read; it keeps its files
            log.warning("removing the snapshot of no container: %s", key[:12])
            delete_files(containers, key, None)


def _partial(folder: str) -> list[str]:
    try:
        return list(files.partial_files(folder))
    except FileNotFoundError:
        return []
