"""`system check` for containers: folders, records, snapshots, logs, sockets, and what belongs to nobody.

Blocking, in a worker thread; whatever concerns the containers in memory is asked and repaired in trio's
thread (`here`), where a create or a removal is one step: so nothing is taken for a leftover that is on
its way.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import trio

from dockpy import files
from dockpy.damaged import STALE, Empty, Finding, is_left_over, load_object
from dockpy.errors import DockpyError, InvalidParameter, NotFound, Unavailable
from dockpy.images.check import ImageCheck, Progress
from dockpy.paths import Paths
from dockpy.shim import logcheck
from dockpy.storage import remove
from dockpy.supervisor import names
from dockpy.supervisor.adopt import shim_lives
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.mend import mend_now
from dockpy.supervisor.records import Broken, Record, State
from dockpy.supervisor.remove import delete_files

T = TypeVar("T")

MOMENT = 0.5  # seconds that a shim takes at most to put its socket away

# What a container's folder may hold that is a JSON object, and is made again by itself.
_PASSING = ("exit.json", "shim.json", "health.json")


def check(
    containers: Containers, paths: Paths, progress: Progress, *, content: bool
) -> Iterator[Finding]:
    """Everything that is wrong in the store; a repair is to be done before the next finding is asked for.

    `content`: the bytes of layers' files, too.
    """
    shelf = containers.folders.damaged
    images = ImageCheck(containers.images, shelf, progress, content=content)
    yield from images.findings()
    yield from _Check(containers, paths).findings()


def here(call: Callable[[], T]) -> T:
    return trio.from_thread.run_sync(call)


def in_trio(call: Callable[[], object]) -> Callable[[], object]:
    return lambda: here(call)


class _Check:
    def __init__(self, containers: Containers, paths: Paths) -> None:
        self._containers = containers
        self._folders = containers.folders
        self._paths = paths

    def findings(self) -> Iterator[Finding]:
        for container in here(self._containers.all):
            yield from self._container(container)
        for name in sorted(os.listdir(self._folders.root)):
            if here(partial(self._is_strange, name)):
                yield from self._stranger(name)
        yield from self._snapshots()
        yield from self._sockets()
        yield from self._temporaries()

    def _known(self, container_id: str) -> bool:
        return any(container.id == container_id for container in self._containers.all())

    def _is_strange(self, name: str) -> bool:
        return not self._known(name) and os.path.lexists(self._folders.bundle(name))

    # ------------------------------------------------------------------------- a container

    def _container(self, container: Container) -> Iterator[Finding]:
        bundle = self._folders.bundle(container.id)
        name = container.name
        if not os.path.isdir(bundle):
            if here(partial(self._known, container.id)):
                repair = in_trio(partial(self._write_folder, container))
                yield Finding("container", name, "its folder is gone", "it is made again", repair)
            return
        for file in ("container.json", "state.json", "restart.json"):
            problem = self._record_problem(container, file)
            if problem and here(partial(self._known, container.id)):
                repair = in_trio(partial(self._rewrite, container, file, problem))
                yield Finding("record", f"{bundle}/{file}", problem, "it is written again", repair)
        for file in _PASSING:
            try:
                load_object(f"{bundle}/{file}")
            except (FileNotFoundError, Empty):
                continue
            except InvalidParameter as error:
                repair = partial(self._folders.set_aside, container.id, file, str(error))
                yield Finding("record", f"{bundle}/{file}", str(error), "it is set aside", repair)
        yield from self._files_of(container)
        yield from self._log(container, f"{bundle}/log")

    def _record_problem(self, container: Container, file: str) -> str:
        path = f"{self._folders.bundle(container.id)}/{file}"
        try:
            raw = load_object(path)
            if file == "container.json" and Record.from_json(raw).id != container.id:
                return "it is of another container"
            if file == "state.json":
                State.from_json(raw)
            if file == "restart.json" and not all(type(value) is bool for value in raw.values()):
                return "it does not hold begun and stopped"
        except FileNotFoundError:
            return "it is missing" if file == "container.json" else ""
        except InvalidParameter as error:
            return "" if isinstance(error, Empty) and file == "state.json" else str(error)
        return ""

    def _write_folder(self, container: Container) -> None:
        if self._known(container.id) and not os.path.isdir(self._folders.bundle(container.id)):
            self._folders.create(container.record, durable=True)
            self._containers.save_state(container)

    def _rewrite(self, container: Container, file: str, problem: str) -> None:
        if not self._known(container.id):
            return
        if os.path.lexists(f"{self._folders.bundle(container.id)}/{file}"):
            self._folders.set_aside(container.id, file, problem)
        if file == "container.json":
            self._folders.write_record(container.record, durable=True)
            return
        container.wish = None
        self._containers.save_state(container)

    def _files_of(self, container: Container) -> Iterator[Finding]:
        snapshots = self._containers.snapshots
        if container.id not in set(snapshots.keys()):
            if here(partial(self._known, container.id)):
                problem = "what it has written is gone"
                yield Finding("container", container.name, problem, "remove it: dockpy rm -f")
            return
        if not snapshots.whole(container.id):
            if container.id in set(snapshots.keys()):  # else it has just been removed
                yield Finding(
                    "container",
                    container.name,
                    "a layer that it stands on is gone",
                    "its image is unpacked again",
                    partial(mend_now, self._containers, container),
                )
            return
        try:
            snapshots.trees(container.id)
        except NotFound:
            return  # it has just been removed
        except Unavailable as error:
            yield Finding(
                "container", container.name, str(error), "the table of owners is set aside",
                partial(snapshots.set_table_aside, container.id),
            )  # fmt: skip

    def _log(self, container: Container, folder: str) -> Iterator[Finding]:
        before = here(partial(_at_rest, container))
        if before is None:
            return  # it is being written
        try:
            serial, problem = logcheck.problem(folder)
        except FileNotFoundError:
            return  # rotated, packed or removed
        if problem and here(partial(_at_rest, container)) == before:
            remedy = "its end is cut where it is whole, or it is set aside"
            repair = in_trio(partial(self._mend_log, container, folder, serial))
            yield Finding("log", f"{folder}/{serial}", problem, remedy, repair)

    def _mend_log(self, container: Container, folder: str, serial: int) -> None:
        if container.state.live or container.lock.locked():
            return
        for path in logcheck.mend(folder, serial):
            name = f"{container.id}-log-{os.path.basename(path)}"
            self._folders.damaged.set_aside(path, name, "its log does not fit")

    # ------------------------------------------------------------------- nobody's folders

    def _stranger(self, name: str) -> Iterator[Finding]:
        path = self._folders.bundle(name)
        repair: Callable[[], object]
        if re.fullmatch("[0-9a-f]{64}", name) is None:
            repair = partial(self._folders.damaged.set_aside, path, name, "no container's folder")
            yield Finding("leftover", path, "no container's folder", "it is set aside", repair)
            return
        loaded = self._folders.read(name)
        if not isinstance(loaded, Broken):
            problem = f"its name, {loaded[0].name}, is another container's"
            repair = in_trio(partial(self._take_in, *loaded))
            yield Finding("container", name, problem, "it gets another name", repair)
        elif shim_lives(self._containers, name):
            problem = f"it runs and cannot be reached, its record is damaged: {loaded.reason}"
            yield Finding("container", name, problem, "kill its processes")
        elif loaded.written:
            repair = partial(self._folders.set_aside_whole, loaded)
            yield Finding(
                "container", name, f"its record: {loaded.reason}", "it is set aside", repair
            )
        else:
            repair = partial(self._delete, name)
            yield Finding("leftover", path, "a folder without a record", "it is removed", repair)

    def _take_in(self, record: Record, state: State) -> None:
        if self._known(record.id):
            return
        if record.name in self._containers.names:
            other = names.pick(self._containers.names, random.Random(os.urandom(8)))
            record = replace(record, name=other)
            self._folders.write_record(record, durable=True)
        self._containers.names.add(record.id, record.name)
        self._containers.add(Container(record, state))

    def _delete(self, name: str) -> None:
        aside = here(lambda: None if self._known(name) else self._folders.discard(name))
        if aside is not None:
            delete_files(self._containers, name, aside)

    def _snapshots(self) -> Iterator[Finding]:
        for key in sorted(self._containers.snapshots.keys()):
            if here(partial(self._belongs, key)):
                continue
            repair = partial(self._delete_snapshot, key)
            yield Finding("leftover", key, "a snapshot of no container", "it is removed", repair)

    def _belongs(self, key: str) -> bool:
        keys = self._containers.snapshots.keys()
        if self._known(key) or self._folders.is_aside(key) or key not in keys:
            return True
        return os.path.exists(self._folders.bundle(key)) or self._being_deleted(key)

    def _being_deleted(self, key: str) -> bool:
        return os.path.exists(f"{self._folders.tmp}/container-{key}")

    def _delete_snapshot(self, key: str) -> None:
        if not here(partial(self._belongs, key)):
            delete_files(self._containers, key, None)

    # ------------------------------------------------------------------------- leftovers

    def _sockets(self) -> Iterator[Finding]:
        folder = f"{self._containers.host.run}/s"
        strange = [name for name in os.listdir(folder) if not here(partial(self._serves, name))]
        if strange:
            time.sleep(MOMENT)  # a shim that ends removes its own
        for name in strange:
            path = f"{folder}/{name}"
            if os.path.lexists(path) and not here(partial(self._serves, name)):
                repair = in_trio(partial(self._unlink_socket, path))
                yield Finding("leftover", path, "no container's socket", "it is removed", repair)

    def _serves(self, name: str) -> bool:
        stem = name.partition(".")[0]
        return any(
            container.id[:16] == stem and (container.state.live or container.lock.locked())
            for container in self._containers.all()
        )

    def _unlink_socket(self, path: str) -> None:
        if not self._serves(os.path.basename(path)):
            files.unlink_if_exists(path)

    def _temporaries(self) -> Iterator[Finding]:
        store, snapshots = self._paths.store, self._paths.snapshots
        folders = [store, self._paths.data, snapshots, f"{snapshots}/chains", f"{snapshots}/o"]
        folders += [self._folders.bundle(container.id) for container in here(self._containers.all)]
        for folder in dict.fromkeys(folders):
            try:
                partial_files = list(files.partial_files(folder))
            except FileNotFoundError:
                continue
            for path in partial_files:
                if is_left_over(path):
                    repair = partial(files.unlink_if_exists, path)
                    yield Finding("leftover", path, "half written", "it is removed", repair)
        for name in os.listdir(self._folders.tmp):
            path = f"{self._folders.tmp}/{name}"
            if _age(path) > STALE:
                repair = partial(self._delete_aside, name)
                yield Finding("leftover", path, "half removed", "it is removed", repair)

    def _delete_aside(self, name: str) -> None:
        path = f"{self._folders.tmp}/{name}"
        if name.startswith("container-"):
            delete_files(self._containers, name[len("container-") :], path)
        remove.remove_path(path)


def _at_rest(container: Container) -> str | None:
    """The run whose log nobody writes any more; None while somebody may."""
    busy = container.state.live or container.lock.locked()
    return None if busy else container.state.started


def _age(path: str) -> float:
    """Seconds since it was put there; 0 when it is gone."""
    try:
        return time.time() - os.lstat(path).st_ctime
    except FileNotFoundError:
        return 0.0


def repaired(finding: Finding) -> tuple[bool, str]:
    """Does it; whether it is done, and else why not."""
    if finding.repair is None:
        return False, ""
    try:
        finding.repair()
    except (DockpyError, OSError) as error:
        return False, str(error)
    return True, ""
