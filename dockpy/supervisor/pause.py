"""pause and unpause: the freezer of the container's control group, else SIGSTOP for each of its processes.

What was done is in `paused.json` before it is done, so that a later daemon can undo exactly that: of
processes that stood still before, none is woken. SIGSTOP can be seen inside (a parent may wait for
it), the freezer cannot; the daemon's log and `info` say which of them it is.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time

import trio

from dockpy import files
from dockpy.damaged import Empty, load_object
from dockpy.errors import Conflict, DockpyError, InvalidParameter, sentence
from dockpy.linux import cgroup
from dockpy.linux.processes import pidfd_open, pidfd_send_signal
from dockpy.linux.proctable import Process, Table, process
from dockpy.supervisor.container import Container, Waiter
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.records import changed

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds: a process in the middle of a slow system call stops late
TURN = 0.003
LOOK = 0.1  # seconds between two looks at what holds back a SIGKILL
FREEZER, SIGNALS = "freezer", "signals"
GONE = ("Z", "X")


def freezer_of(containers: Containers, container: Container) -> str | None:
    """The folder of the container's own control group that can stand still."""
    groups, path = containers.groups, container.state.group
    return groups.folder(path, "freezer" if groups.version == 1 else "")


def note_path(bundle: str) -> str:
    return f"{bundle}/paused.json"


async def pause(containers: Containers, container: Container) -> None:
    """Returns when nothing of the container runs."""
    async with container.lock:
        if container.state.restarting:
            raise Conflict(
                f"Container {container.id} is restarting, wait until the container is running"
            )
        if not container.state.running:
            raise Conflict(f"Container {container.id} is not running")
        if container.state.paused:
            raise Conflict(f"Container {container.id} is already paused")
        try:
            await gather(containers, container)
            folder = freezer_of(containers, container)
            if folder is not None:
                _write_note(containers, container, FREEZER, [])
                await trio.to_thread.run_sync(_freeze, folder)
            else:
                log.warning(
                    "container %s is paused by SIGSTOP: it has no control group of its own",
                    container.id[:12],
                )
                await trio.to_thread.run_sync(_stop, containers, container)
        except (DockpyError, OSError) as error:
            await resume(containers, container)
            if _over(container):
                raise Conflict(f"Container {container.id} is not running") from None
            raise DockpyError(
                f"cannot pause container {container.name}: {sentence(error)}"
            ) from None
        if _over(container):
            return
        container.state = changed(container.state, frozen=True)
        containers.save_state(container)
        containers.then.follow(containers, container)
    containers.publish(container, "pause")


async def unpause(containers: Containers, container: Container) -> None:
    async with container.lock:
        if not container.state.paused:
            raise DockpyError(f"Container {container.id} is not paused")
        await wake(containers, container)


async def wake(containers: Containers, container: Container) -> None:
    """unpause for who knows that it is paused, as a kill does."""
    await resume(containers, container)
    if container.state.paused:
        container.state = changed(container.state, frozen=False)
        containers.save_state(container)
        containers.then.follow(containers, container)
        containers.publish(container, "unpause")


async def killed(
    containers: Containers, container: Container, gone: Waiter, patience: float
) -> bool:
    """Whether a container that SIGKILL was sent to has ended within so many seconds.

    The freezer of version 1 holds back even that signal, and a pause may come after it: both are undone.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_awake, containers, container)
        with trio.move_on_after(patience):
            await gone.wait()
        nursery.cancel_scope.cancel()
    return gone.ready.is_set()


async def _keep_awake(containers: Containers, container: Container) -> None:
    while True:
        folder = freezer_of(containers, container)
        if container.state.paused or (folder is not None and cgroup.frozen(folder)):
            await wake(containers, container)
        await trio.sleep(LOOK)


async def resume(containers: Containers, container: Container) -> None:
    """Whatever stands still because of us goes on."""
    note = _read_note(containers, container)
    folder = freezer_of(containers, container)
    try:
        if folder is not None:
            cgroup.thaw(folder)
        if note is not None:
            await trio.to_thread.run_sync(_go_on, note)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended
    files.unlink_if_exists(note_path(containers.folders.bundle(container.id)))


def found(containers: Containers, container: Container) -> bool:
    """Whether a container that a new daemon has found stands still, whatever the dead one has noted."""
    note = _read_note(containers, container)
    folder = freezer_of(containers, container)
    if folder is not None and cgroup.frozen(folder):
        return True
    return note is not None and any(_stands(pid, start) for pid, start in note)


def _over(container: Container) -> bool:
    """Whether it has ended meanwhile."""
    return not container.state.running


def _freeze(folder: str) -> None:
    if not cgroup.freeze(folder, PATIENCE):
        raise _restless()


def _restless() -> DockpyError:
    return DockpyError(f"it does not stand still within {PATIENCE:.0f} s")


async def gather(containers: Containers, container: Container) -> None:
    """A control group for a container that runs without one, where one can be made."""
    groups = containers.groups
    if container.state.group or not groups.version:
        return
    path = groups.path(container.id)
    await trio.to_thread.run_sync(groups.make, path, [])
    if _over(container):
        groups.removed(path)
        return
    # On disk before anything is in it: whoever comes after us finds and removes it.
    container.state = changed(container.state, group=path)
    containers.save_state(container)
    shim = containers.shim_pid(container)

    def pids() -> list[int]:
        return [one.pid for one in members(container, Table(), shim) if one.state not in GONE]

    await trio.to_thread.run_sync(groups.gather, path, pids)
    if container.state.group == path:
        containers.watch_memory(container)


# -------------------------------------------------------------------------------- by signals


def members(container: Container, table: Table, shim: int) -> list[Process]:
    """The container's processes, parents before their children.

    All descend from its first one or from an exec's. In the host's pid namespace orphans become the
    shim's, beside whatever the shim itself has made.
    """
    execs = tuple(container.execs.values())  # in one step: others come meanwhile, in trio's thread
    roots = [container.state.pid, *(ex.pid for ex in execs if ex.running)]
    if container.record.host_config.pid_mode == "host" and shim:
        roots += [
            child.pid
            for child in table.below(shim)
            if child.parent == shim and child.name not in (b"dockpy-shim", b"dockpy-waiting")
        ]
    result: dict[int, Process] = {}
    for pid in roots:
        if pid in table.by_pid and pid not in result:
            for member in (table.by_pid[pid], *table.below(pid)):
                result[member.pid] = member
    return list(result.values())


def _stop(containers: Containers, container: Container) -> None:
    """Parents first, and again until a look finds nobody new and all at rest: who stands still
    cannot fork. Blocks.
    """
    # Somebody else's SIGSTOP is somebody else's to end.
    others: set[tuple[int, int]] = set()
    stopped: list[tuple[int, int]] = []
    shim = containers.shim_pid(container)
    deadline = time.monotonic() + PATIENCE
    looks = 0
    while time.monotonic() < deadline:
        every = members(container, Table(), shim)
        if looks == 0:
            others = {(one.pid, one.start) for one in every if one.state == "T"}
        fresh = [
            one
            for one in every
            if one.state not in GONE and (one.pid, one.start) not in (*others, *stopped)
        ]
        if fresh:
            stopped += [(one.pid, one.start) for one in fresh]
            _write_note(containers, container, SIGNALS, stopped)
            for one in fresh:
                _signal(one.pid, one.start, signal.SIGSTOP)
        elif all(one.state in (*GONE, "T", "t") for one in every):
            return
        looks += 1
        time.sleep(TURN)
    raise _restless()


def _go_on(stopped: list[tuple[int, int]]) -> None:
    """Children first: a parent that looks finds them running again."""
    for pid, start in reversed(stopped):
        if _stands(pid, start):
            _signal(pid, start, signal.SIGCONT)


def _stands(pid: int, start: int) -> bool:
    one = process(pid)
    return one is not None and one.start == start and one.state in ("T", "t")


def _signal(pid: int, start: int, number: int) -> None:
    """To that process and no later one of the same number."""
    try:
        fd = pidfd_open(pid)
    except OSError:  # it has ended, or the kernel is older than 5.3
        one = process(pid)
        if one is not None and one.start == start:
            os.kill(pid, number)
        return
    try:
        one = process(pid)
        if one is not None and one.start == start:
            pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def _write_note(
    containers: Containers, container: Container, how: str, stopped: list[tuple[int, int]]
) -> None:
    note = {"boot": containers.host.boot, "how": how, "stopped": stopped}
    path = note_path(containers.folders.bundle(container.id))
    files.write_atomic(path, json.dumps(note).encode(), durable=False)


def _read_note(containers: Containers, container: Container) -> list[tuple[int, int]] | None:
    """(pid, start) of what was stopped by signals; None without a note of this boot."""
    path = note_path(containers.folders.bundle(container.id))
    try:
        raw = load_object(path)
    except (FileNotFoundError, Empty):
        return None
    except InvalidParameter as error:
        containers.folders.set_aside(container.id, os.path.basename(path), str(error))
        return None
    try:
        if raw["boot"] != containers.host.boot:
            return None
        return [(int(pid), int(start)) for pid, start in raw["stopped"]]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it lacks something, or holds another type: {error}"
        containers.folders.set_aside(container.id, os.path.basename(path), reason)
        return None
