"""A daemon's first act: find every container of the store and what became of those that ran.

The exit file is the truth; without one the shim is asked; without a shim the container was killed
(137), or the machine was switched off under it (255). Then what an interrupted daemon left is removed.
Whatever cannot be read is set aside (dockpy.damaged) and told in the log: the rest must start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from dockpy import files, ids
from dockpy.api.times import now
from dockpy.damaged import Empty, load_object
from dockpy.errors import DockpyError, InvalidParameter
from dockpy.shim.protocol import ShimLink
from dockpy.supervisor import exec as execs
from dockpy.supervisor import monitor, pause, restart
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers, read_exit
from dockpy.supervisor.mend import mend
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
        await mend(containers, container)
        restart.resume(containers, container, start=start)
    containers.aside(_clean, containers)


def _broken(containers: Containers, broken: Broken) -> None:
    if not broken.written:
        log.warning("removing an interrupted create: %s", broken.id[:12])
        containers.folders.discard(broken.id)
        return
    if shim_lives(containers, broken.id):
        # It writes there; at the next start, when it has ended, the folder is set aside.
        log.error(
            "container %s runs and cannot be reached, its record is damaged: %s",
            broken.id[:12],
            broken.reason,
        )
        return
    containers.folders.set_aside_whole(broken)


def shim_lives(containers: Containers, container_id: str) -> bool:
    told = _shim_file(containers, container_id)
    return told is not None and told.boot == containers.host.boot and told.alive


async def _adopt_whole(containers: Containers, container: Container) -> None:
    await _adopt(containers, container)
    await monitor.adopt(containers, container)


async def _adopt(containers: Containers, container: Container) -> None:
    boot = containers.host.boot
    told = _shim_file(containers, container.id)
    if told is not None and told.boot == boot:
        finished = read_exit(containers.folders, container.id, boot)
        if not container.state.running:
            state = container.state
            if finished is not None and finished.finished == state.finished:
                return  # a run whose end is recorded already
            if finished is None and told.init is not None and told.init[1] == state.pid_start:
                return  # the same, and its exit file is damaged
        if finished is not None and told.init is None:
            if container.state.exit_code != finished.code or not container.state.error:
                containers.failed(container, finished.code, finished.error)
            return
        _suppose_running(containers, container, told)
        if finished is None and await _connect(containers, container, told):
            return
        containers.lost(container)
    elif container.state.running:
        if container.state.boot == boot and await _connect(containers, container, None):
            return  # only the file was missing
        code, error = (
            (255, "the machine was switched off")
            if container.state.boot != boot
            else (137, "no shim")
        )
        containers.exited(container, code, now(), False, error)
    elif container.record.host_config.auto_remove and container.state.status == "exited":
        take_away(containers, container)


@dataclass(frozen=True)
class _ShimFile:
    """What a shim has left about itself (shim.exit.write_shim)."""

    boot: str
    pid: int
    start: int
    socket: str
    init: tuple[int, int] | None  # pid and start time

    @property
    def alive(self) -> bool:
        return ids.alive(self.pid, self.start)

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> _ShimFile:
        boot, pid, start, socket, init = map(raw.get, ("boot", "pid", "start", "socket", "init"))
        if not (isinstance(boot, str) and isinstance(socket, str)):
            raise InvalidParameter("it does not hold boot and socket")
        if not (isinstance(pid, int) and isinstance(start, int)):
            raise InvalidParameter("it does not hold pid and start")
        if init is None:
            return cls(boot, pid, start, socket, None)
        inner = (init.get("pid"), init.get("start")) if isinstance(init, dict) else (None, None)
        if not (isinstance(inner[0], int) and isinstance(inner[1], int)):
            raise InvalidParameter("its init is no process")
        return cls(boot, pid, start, socket, (inner[0], inner[1]))


def _shim_file(containers: Containers, container_id: str) -> _ShimFile | None:
    try:
        path = f"{containers.folders.bundle(container_id)}/shim.json"
        return _ShimFile.from_json(load_object(path))
    except (FileNotFoundError, Empty):
        return None
    except InvalidParameter as error:
        containers.folders.set_aside(container_id, "shim.json", str(error))
        return None


def _suppose_running(containers: Containers, container: Container, told: _ShimFile) -> None:
    """A daemon that died right after a start may not have noted it."""
    if container.state.running:
        return
    pid, start = told.init or (0, 0)
    container.state = changed(
        container.state,
        status="running",
        pid=pid,
        pid_start=start,
        boot=containers.host.boot,
        started=now(),
        exit_code=0,
        error="",
        begun=True,
        group=_group(containers, container.id),
    )


def _group(containers: Containers, container_id: str) -> str:
    """The control group in which its run began, as its shim was told."""
    try:
        spec = load_object(f"{containers.folders.bundle(container_id)}/config.json")
    except (FileNotFoundError, Empty, InvalidParameter):
        return ""
    linux = spec.get("linux")
    path = linux.get("cgroupsPath") if isinstance(linux, dict) else None
    return path if isinstance(path, str) else ""


async def _connect(containers: Containers, container: Container, told: _ShimFile | None) -> bool:
    """Whether its shim lives; then it is followed again."""
    link = await _open(containers, container, told)
    if link is None:
        return False
    shim = Shim(link, containers.teller(container))
    containers.follow(container, shim)
    try:
        reply = await shim.ask(lambda asked: asked.state(about=True))
    except DockpyError as error:
        log.warning("the shim of container %s: %s", container.id[:12], error)
        return container.shim is shim
    execs.adopt(containers, container, reply.fields.get("execs") or {})
    pid, start = reply.fields.get("pid"), reply.fields.get("start")
    if pid and container.state.running:
        container.state = changed(container.state, pid=int(pid), pid_start=int(start or 0))
        frozen = pause.found(containers, container)
        if frozen != container.state.frozen:
            container.state = changed(container.state, frozen=frozen)
            containers.save_state(container)
    code = reply.fields.get("code")
    if code is not None:
        finished = read_exit(containers.folders, container.id, containers.host.boot)
        containers.exited(
            container,
            int(code),
            finished.finished if finished else now(),
            finished.oom if finished else False,
            finished.error if finished else "",
        )
    return True


async def _open(
    containers: Containers, container: Container, told: _ShimFile | None
) -> ShimLink | None:
    here = f"{containers.host.run}/s/{container.id[:16]}.sock"
    for path in (here,) if told is None else (told.socket, here):
        try:
            return ShimLink.connect(path)
        except (OSError, ValueError):  # ValueError: no path at all
            continue
    if told is None or not told.alive:
        return None
    try:
        # Its socket was deleted, and nobody has told it yet.
        return await trio.to_thread.run_sync(ShimLink.reach, told.socket, told.pid)
    except (OSError, ValueError):
        log.error(
            "the shim of container %s lives (pid %d), but its socket does not answer",
            container.id[:12],
            told.pid,
        )
        return None


async def _clean(containers: Containers) -> None:
    # Looked at here, between two awaits: a create in progress shows either nothing or all of itself.
    known = {container.id for container in containers.all()}
    keys = containers.snapshots.keys()
    # A snapshot stays for as long as its container's record is set aside.
    orphans = [
        key
        for key in keys
        if len(key) == 64 and key not in known and not containers.folders.is_aside(key)
    ]
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
        if not os.path.exists(folders.bundle(key)):  # else: left alone with all its files
            log.warning("removing the snapshot of no container: %s", key[:12])
            delete_files(containers, key, None)


def _partial(folder: str) -> list[str]:
    try:
        return list(files.partial_files(folder))
    except FileNotFoundError:
        return []
