"""All containers in memory, what they stand on, and the one place where their states change.

Every change of state is here or in `start`/`remove`; each is told to waiters, events and the disk in
that order, between two awaits.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Callable

import trio

from dockpy.api.times import ZERO, now
from dockpy.damaged import Empty, load_object
from dockpy.errors import InvalidParameter, NotFound
from dockpy.images import builtin
from dockpy.images.image import Image
from dockpy.images.store import ImageStore
from dockpy.oci.digest import ChainID
from dockpy.shim.protocol import Detached, ExecExit, ExecFailed, ExecStarted, Exit, Failed, Started
from dockpy.storage.snapshot import Snapshotter
from dockpy.supervisor import restart
from dockpy.supervisor.container import Container, Exec, Outcome
from dockpy.supervisor.events import Events
from dockpy.supervisor.groups import Groups
from dockpy.supervisor.oom import OomWatch
from dockpy.supervisor.records import Folders, Names, changed
from dockpy.supervisor.shims import Keeper, Shim, ShimEvent

log = logging.getLogger(__name__)

# Exec records of a container are forgotten some time after their end, as in docker.
EXEC_KEPT = 300.0
# How many exit codes of containers that removed themselves are remembered.
DEPARTED_KEPT = 1000
SAVED_AGAIN = 1.0  # seconds, after a full disk


@dataclass(frozen=True)
class Host:
    """Where the daemon runs."""

    run: str
    tier: str  # single, subuid or root
    boot: str


@dataclass(frozen=True)
class Consequences:
    """What follows from a change of state, in modules that stand on this one."""

    remove: Callable[[Containers, Container], None]  # of a --rm container that has ended
    start: Callable[[Containers, Container], Awaitable[None]]  # again, of a restarting one
    begin: Callable[[Containers, Container], None]  # a run: health checks
    follow: Callable[[Containers, Container], None]  # any other change: health checks


class Containers:
    def __init__(
        self,
        *,
        nursery: trio.Nursery,
        host: Host,
        folders: Folders,
        images: ImageStore,
        image_index: str,
        snapshots: Snapshotter,
        keeper: Keeper,
        groups: Groups,
        events: Events,
        then: Consequences,
    ) -> None:
        self.nursery = nursery
        self.host = host
        self.folders = folders
        self.images = images
        self._image_index = image_index
        self.snapshots = snapshots
        self.keeper = keeper
        self.groups = groups
        self.can = groups.support()
        groups.leave()  # until there is a first container
        self._starving = OomWatch(groups, nursery)
        self.events = events
        self.names = Names()
        self.execs: dict[str, Exec] = {}
        self._by_id: dict[str, Container] = {}
        self._unsaved: set[str] = set()  # whose states the disk had no room for
        # What `run --rm` asks for again when the daemon died between an exit and its answer.
        self.departed: dict[str, Outcome] = {}
        self.then = then
        self._resolved: dict[str, tuple[object, Image]] = {}
        # Several unpacks at once only make the disk seek.
        self.disk = trio.CapacityLimiter(4)

    # -------------------------------------------------------------------------------- index

    def get(self, reference: str) -> Container:
        return self._by_id[self.names.find(reference)]

    def add(self, container: Container) -> None:
        """The name must have been taken before (Names.add)."""
        self._by_id[container.id] = container

    def forget(self, container: Container) -> None:
        del self._by_id[container.id]
        if container.record.host_config.auto_remove:
            self.departed[container.id] = container.outcome
            while len(self.departed) > DEPARTED_KEPT:
                del self.departed[next(iter(self.departed))]
        self.names.remove(container.id, container.name)
        for exec_id in container.execs:
            self.execs.pop(exec_id, None)

    def all(self) -> list[Container]:
        return list(self._by_id.values())

    def paused(self) -> int:
        return sum(container.state.paused for container in self._by_id.values())

    def running(self) -> int:
        return sum(container.state.running for container in self._by_id.values())

    def busy(self) -> bool:
        return any(
            container.state.live or container.lock.locked() for container in self._by_id.values()
        )

    def shim_pid(self, container: Container) -> int:
        """From the record that the shim itself keeps; 0 when none runs."""
        if not container.state.running:
            return 0
        try:
            raw = load_object(f"{self.folders.bundle(container.id)}/shim.json")
        except (OSError, InvalidParameter):
            return 0
        pid = raw.get("pid")
        return pid if isinstance(pid, int) else 0

    def using(self, image_id: str) -> list[str]:
        """Ids of the containers made from an image, running ones first."""
        users = [
            container for container in self._by_id.values() if container.record.image_id == image_id
        ]
        return [
            container.id
            for container in sorted(users, key=lambda container: not container.state.running)
        ]

    # ------------------------------------------------------------------------------- images

    async def resolve_image(self, reference: str) -> Image:
        """The image of that name; from memory as long as the store's index file is the same."""
        stamp = self._image_stamp()
        known = self._resolved.get(reference)
        if known is not None and known[0] == stamp:
            return known[1]
        image = await trio.to_thread.run_sync(self._find_image, reference, limiter=self.disk)
        stamp = self._image_stamp()
        if len(self._resolved) > 1000:
            self._resolved.clear()
        self._resolved[reference] = (stamp, image)
        return image

    def _find_image(self, reference: str) -> Image:
        """Blocking: builtin images are made when they are first asked for."""
        return builtin.ensure(self.images, reference) or self.images.resolve(reference)

    def _image_stamp(self) -> object:
        try:
            status = os.stat(self._image_index)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    async def unpacked(self, image: Image) -> ChainID | None:
        if image.chain_ids and self.snapshots.has(image.chain_ids[-1]):
            return image.chain_ids[-1]
        return await trio.to_thread.run_sync(self.images.unpack, image, limiter=self.disk)

    # ------------------------------------------------------------------------------- events

    def aside(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Starts a task beside the requests; its failure is told in the log, and ends nothing else."""
        self.nursery.start_soon(_unharmed, task, args)

    def publish(self, container: Container, action: str, **attributes: str) -> None:
        record = container.record
        self.events.publish(
            "container",
            action,
            record.id,
            {
                **record.config.labels,
                "image": record.config.image,
                "name": record.name,
                **attributes,
            },
        )

    # -------------------------------------------------------------------------- shim events

    def follow(self, container: Container, shim: Shim) -> None:
        """Makes `shim` the container's, and reads what it tells until it ends."""
        container.shim = shim
        self.nursery.start_soon(shim.read)
        self.watch_memory(container)

    def teller(self, container: Container) -> Callable[[ShimEvent], None]:
        """What a Shim of this container shall call; it knows by itself which shim has spoken."""
        ended = False

        def tell(event: ShimEvent) -> None:
            nonlocal ended
            if isinstance(event, Exit):
                ended = True
                self.exited(container, event.code, event.finished, event.oom, event.error)
            elif isinstance(event, (Started, Failed)):
                # Noted here, not by who waits in `start`: the next message may be the exit already.
                if isinstance(event, Started):
                    self.started(container, event)
                ended = ended or isinstance(event, Failed)
                if container.starting is not None:
                    container.starting.send_nowait(event)
            elif isinstance(event, (ExecStarted, ExecFailed, ExecExit)):
                self._exec_event(container, event)
            elif isinstance(event, Detached):
                if event.exec is None:
                    self.publish(container, "detach")
                else:
                    self.publish(container, "exec_detach", execID=event.exec)
            elif not ended:
                ended = True
                if container.starting is not None:
                    container.starting.send_nowait(None)
                else:
                    self.lost(container)

        return tell

    def started(self, container: Container, event: Started) -> None:
        container.unstarted = False
        container.state = changed(
            container.state,
            status="running",
            pid=event.pid,
            pid_start=event.start,
            boot=self.host.boot,
            exit_code=0,
            error="",
            oom=False,
            started=now(),
            finished=ZERO,
            stopped=False,
            frozen=False,
            begun=True,
        )
        self.save_state(container)
        self.publish(container, "start")
        self.then.begin(self, container)

    def lost(self, container: Container) -> None:
        """The shim is gone without a word: its exit file has the truth; without one it was killed, and all with it."""
        if not container.state.running:
            return
        told = read_exit(self.folders, container.id, self.host.boot)
        if told is None:
            self.exited(container, 137, now(), False, "the container's shim was killed")
        else:
            self.exited(container, told.code, told.finished, told.oom, told.error)

    def exited(
        self, container: Container, code: int, finished: str, oom: bool, error: str = ""
    ) -> None:
        if not container.state.running:
            return
        started, ran = container.state.started, restart.ran_for(container.state, self.host.boot)
        container.shim = None
        oom = self._leave_group(container) or oom
        told = container.state.oom
        container.state = changed(
            container.state,
            status="exited",
            pid=0,
            exit_code=code,
            finished=finished,
            oom=oom or told,
            error=error,
        )
        self._decide(container, code, ran)
        for exec_ in tuple(container.execs.values()):
            if exec_.running:
                self.exec_over(container, exec_, 137)
            elif not exec_.started:
                del container.execs[exec_.id], self.execs[exec_.id]
        self.then.follow(self, container)
        removed = container.record.host_config.auto_remove and not container.being_restarted
        if not removed:
            self.save_state(container)
        self.release(container)
        if oom and not told:
            self.publish(container, "oom")
        self.publish(
            container, "die", exitCode=str(code), execDuration=_seconds_between(started, finished)
        )
        if removed:
            self.then.remove(self, container)
        elif container.state.restarting:
            restart.schedule(self, container)

    def watch_memory(self, container: Container) -> None:
        """Tells when the kernel ends a process of it for want of memory, also what nobody has told yet."""
        path = container.state.group
        if not path or self._starving.watched(path):
            return
        if not container.state.oom and self.groups.oom_kills(path):
            self._starved(container)
        self._starving.begin(path, lambda: self._starved(container))

    def _starved(self, container: Container) -> None:
        container.state = changed(container.state, oom=True)
        self.save_state(container)
        self.publish(container, "oom")

    def _leave_group(self, container: Container) -> bool:
        """Its run is over. Whether a process of it was killed for want of memory."""
        path, groups = container.state.group, self.groups
        if not path:
            return False
        self._starving.end(path)
        oom = groups.oom_kills(path) > 0
        container.state = changed(container.state, group="")
        try:
            over = groups.removed(path)
        except OSError as error:
            log.error("the control group %s stays: %s", path, error)
            return oom
        if not over:
            self.aside(trio.to_thread.run_sync, groups.end, path)
        return oom

    def _decide(self, container: Container, code: int, ran: float) -> None:
        """Exited, or on the way to the next start."""
        policy = container.record.host_config.restart_policy
        if not container.being_restarted and restart.again(policy, container.state, code):
            container.state = restart.waiting(container.state, ran, self.host.boot)

    def failed(self, container: Container, code: int, text: str) -> None:
        """A start that came to nothing: the first one is its caller's trouble, a later one counts as
        a run that ended at once.
        """
        was = container.state
        status = "exited" if was.restarting else was.status
        told = read_exit(self.folders, container.id, self.host.boot)
        if was.restarting and told is not None:
            was = changed(was, finished=told.finished)
        self._leave_group(container)
        was = changed(was, group="")
        container.state = changed(was, status=status, exit_code=code, error=text, pid=0)
        container.unstarted = True
        container.drop_pending()
        if was.restarting:
            self._decide(container, code, 0.0)
        self.save_state(container)
        self.release(container)
        if container.record.host_config.auto_remove:
            self.then.remove(self, container)
        elif container.state.restarting:
            restart.schedule(self, container)

    def release(self, container: Container) -> None:
        """Those who wait for its end."""
        container.exits.release(container.outcome)

    def save_state(self, container: Container) -> None:
        state = container.state
        try:
            if not restart.none(container.record):
                wish = (state.begun, state.stopped)
                if wish != container.wish:
                    self.folders.write_wish(container.id, state)
                    container.wish = wish
            self.folders.write_state(container.id, state)
        except OSError as error:
            log.error(
                "the state of container %s could not be written: %s", container.id[:12], error
            )
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and container.id not in self._unsaved:
                self._unsaved.add(container.id)
                self.nursery.start_soon(self._save_later, container)

    async def _save_later(self, container: Container) -> None:
        """What a user has decided must not be forgotten because a disk was full at that moment."""
        await trio.sleep(SAVED_AGAIN)
        self._unsaved.discard(container.id)
        if self._by_id.get(container.id) is container:
            self.save_state(container)

    # -------------------------------------------------------------------------------- execs

    def exec(self, exec_id: str) -> tuple[Container, Exec]:
        exec_ = self.execs.get(exec_id)
        if exec_ is None:
            matches = [
                known for known in self.execs if len(exec_id) >= 4 and known.startswith(exec_id)
            ]
            if len(matches) != 1:
                raise NotFound(f"No such exec instance: {exec_id}")
            exec_ = self.execs[matches[0]]
        return self._by_id[exec_.container_id], exec_

    def _exec_event(self, container: Container, event: ExecStarted | ExecFailed | ExecExit) -> None:
        exec_ = container.execs.get(event.exec)
        if exec_ is None or exec_.exit_code is not None:
            return
        if isinstance(event, ExecStarted):
            exec_.running, exec_.pid = True, event.pid
        else:
            # An exec that did not start is 126 in docker, unless nothing was found (127).
            failed = isinstance(event, ExecFailed) and event.code == 128
            self.exec_over(container, exec_, 126 if failed else event.code)

    def exec_over(self, container: Container, exec_: Exec, code: int) -> None:
        exec_.running, exec_.exit_code = False, code
        exec_.over.set()
        self.publish(container, "exec_die", execID=exec_.id, exitCode=str(code))
        self.aside(self._forget_exec, container, exec_)

    async def _forget_exec(self, container: Container, exec_: Exec) -> None:
        await trio.sleep(EXEC_KEPT)
        container.execs.pop(exec_.id, None)
        self.execs.pop(exec_.id, None)


@dataclass(frozen=True)
class ExitFile:
    code: int
    finished: str
    started: str
    oom: bool
    error: str


def read_exit(folders: Folders, container_id: str, boot: str) -> ExitFile | None:
    """What the shim left; None when it left nothing, or another boot's shim did."""
    try:
        raw = load_object(f"{folders.bundle(container_id)}/exit.json")
        if not isinstance(raw.get("boot"), str) or type(raw.get("code")) is not int:
            raise InvalidParameter("it does not hold boot and code")
    except (FileNotFoundError, Empty):
        return None
    except InvalidParameter as error:
        folders.set_aside(container_id, "exit.json", str(error))
        return None
    if raw["boot"] != boot:
        return None
    return ExitFile(
        raw["code"],
        str(raw.get("finished") or now()),
        str(raw.get("started") or ""),
        bool(raw.get("oom")),
        str(raw.get("error") or ""),
    )


def _seconds_between(started: str, finished: str) -> str:
    try:
        begin = time.mktime(time.strptime(started[:19], "%Y-%m-%dT%H:%M:%S"))
        end = time.mktime(time.strptime(finished[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return "0"
    return str(max(int(end - begin), 0))


async def _unharmed(task: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
    try:
        await task(*args)
    except Exception:
        log.exception("a task of the daemon has failed: %s", getattr(task, "__qualname__", task))
