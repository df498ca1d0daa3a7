"""The containers' control groups: where this daemon may make some, and one's life. Blocking, short.

Each is below one group of this store's, so that two stores of one host do not meet: below our own where
that is ours alone to divide (a service of systemd with Delegate), else at the root of the tree, for who
may write there. Of version 1 only the latter can be: its trees are not delegated.

A container gets its group at its start. Of version 1 joining one takes 10 ms and more, so there only where
something asks for it: a limit at the start, pause or new limits later (`gather`).
"""

from __future__ import annotations

import logging
import os
import posixpath
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dockpy.errors import DockpyError
from dockpy.linux import cgroup
from dockpy.linux.proctable import process
from dockpy.supervisor.limits import Support, Write

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds in which what was killed must have ended
WEIGHTS = ("io.bfq.weight", "io.weight", "blkio.bfq.weight", "blkio.weight")
# Version 2 has both weights in one file.
DEVICE_WEIGHTS = ("io.bfq.weight", "io.weight", "blkio.bfq.weight_device", "blkio.weight_device")


@dataclass(frozen=True)
class Groups:
    """`version` 0: none can be made here. Paths of groups begin at the roots of the trees."""

    version: int = 0
    base: str = ""
    roots: Mapping[str, str] = field(default_factory=dict)  # controller → its tree's root folder
    # One makes or removes the store's own group at a time: a group made below one that is made again in
    # this moment would inherit no processors, and take no process.
    _shape: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def always(self) -> bool:
        """Whether every container gets one at its start."""
        return self.version == 2

    def path(self, container_id: str, parent: str = "") -> str:
        above = posixpath.normpath("/" + parent.lstrip("/")) if parent else self.base
        return posixpath.join(above, container_id)

    def folder(self, path: str, controller: str) -> str | None:
        """Of the group `path` ("": none) for that controller; None where it is not held by it."""
        root = self.roots.get(controller) if path else None
        return None if root is None else root + path

    def folders(self, path: str) -> list[str]:
        return sorted({root + path for root in self.roots.values()}) if path else []

    def make(self, path: str, writes: Sequence[Write]) -> None:
        """The group, new and with these limits. DockpyError: which of them the kernel refuses."""
        try:
            for root in set(self.roots.values()):
                if os.path.exists(root + path):
                    self.end(path)  # of an earlier run; its counters are not ours
                with self._shape:
                    self._make_one(root, path)
            self.limit(path, writes)
        except OSError as error:
            raise DockpyError(
                f"cannot make the control group {path}: {error.strerror} ({error.filename})"
            ) from None

    def _make_one(self, root: str, path: str) -> None:
        if not path.startswith(self.base + "/"):
            cgroup.make_below(root, path)
            return
        # What lies above our own is not ours to give controllers to.
        for attempt in range(3):
            if not os.path.exists(root + self.base):
                _base(root, self.base)
            try:
                cgroup.make_below(root + self.base, path[len(self.base) :])
                return
            except FileNotFoundError:  # another container was the last one in it (`leave`)
                if attempt == 2:
                    raise

    def limit(self, path: str, writes: Sequence[Write]) -> None:
        for controller, name, text in writes:
            folder = self.folder(path, controller)
            if folder is None:
                log.warning(
                    "%s is not set for %s: this host has no controller for it any more", name, path
                )
                continue
            try:
                cgroup.write(folder, name, text)
            except OSError as error:
                raise DockpyError(f'failed to write "{text}" to "{folder}/{name}": {error.strerror}') from None  # fmt: skip

    def gather(self, path: str, members: Callable[[], Iterable[int]]) -> None:
        """Brings the processes of a container that runs into `path`, until a look finds none outside.

        What is made by those inside is inside too, so that a busy container does not keep us here.
        """
        folders = self.folders(path)
        tried: set[int] = set()
        while all(map(os.path.isdir, folders)):  # else all of it has ended
            new = set(members()) - tried
            # They go into all trees one after the other: who is in the last one is in each.
            new -= cgroup.members(folders[-1])
            new = {pid for pid in new if os.path.exists(f"/proc/{pid}")}
            if not new:
                return
            tried |= new
            for pid in new:
                for folder in folders:
                    cgroup.join(folder, pid)

    def end(self, path: str) -> None:
        """Kills what is left in it, and removes it."""
        deadline = time.monotonic() + PATIENCE
        for folder in self.folders(path):
            while not cgroup.remove(folder):
                cgroup.thaw(folder)
                cgroup.kill(folder)
                if time.monotonic() > deadline:
                    log.error("the control group %s stays: it has processes", folder)
                    break
                time.sleep(cgroup.TURN)
        self.leave()

    def removed(self, path: str) -> bool:
        """`end` for one that is empty, as it should be: False where it is not."""
        gone = [cgroup.remove(folder) for folder in self.folders(path)]
        self.leave()
        return all(gone)

    def sweep(self) -> None:
        """Removes empty ones that a dead daemon has left; before one can have been made for a start."""
        for root in set(self.roots.values()):
            try:
                names = [entry.name for entry in os.scandir(root + self.base) if entry.is_dir()]
            except FileNotFoundError:
                continue
            for name in names:
                if len(name) == 64:
                    cgroup.remove(f"{root}{self.base}/{name}")

    def leave(self) -> None:
        """Removes this store's own one, where no container has one below it and it is not systemd's."""
        for root in set(self.roots.values()):
            try:
                with self._shape:
                    os.rmdir(root + self.base)
            except OSError:
                pass  # in use, also by ourselves

    def oom_kills(self, path: str) -> int:
        """How many processes in it the kernel has killed for want of memory."""
        folder = self.folder(path, "memory")
        if folder is None:
            return 0
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return cgroup.numbers(folder, name).get("oom_kill", 0)

    def support(self) -> Support:
        """Which limits can be had: those whose files are there."""
        count = len(os.sched_getaffinity(0))
        if not self.version:
            return Support(processors=count)

        def there(controller: str, name: str) -> bool:
            folder = self.folder(self.base, controller)
            return folder is not None and os.path.exists(f"{folder}/{name}")

        def text(name: str) -> str:
            folder = self.folder(self.base, "cpuset")
            return "" if folder is None else cgroup.read(folder, name)

        two = self.version == 2
        block = "io" if two else "blkio"
        return Support(
            version=self.version,
            memory=there("memory", "memory.max" if two else "memory.limit_in_bytes"),
            swap=there("memory", "memory.swap.max" if two else "memory.memsw.limit_in_bytes"),
            reservation=there("memory", "memory.low" if two else "memory.soft_limit_in_bytes"),
            swappiness=there("memory", "memory.swappiness"),
            oom_disable=there("memory", "memory.oom_control"),
            pids=there("pids", "pids.max"),
            shares=there("cpu", "cpu.weight" if two else "cpu.shares"),
            cfs=there("cpu", "cpu.max" if two else "cpu.cfs_quota_us"),
            cpuset=there("cpuset", "cpuset.cpus"),
            throttle=there(block, "io.max" if two else "blkio.throttle.read_bps_device"),
            # Of version 1; all groups of a tree have these files or none has.
            realtime=there("cpu", "cpu.rt_runtime_us"),
            weight=next((name for name in WEIGHTS if there(block, name)), ""),
            weight_device=next((name for name in DEVICE_WEIGHTS if there(block, name)), ""),
            cpus=text("cpuset.cpus.effective" if two else "cpuset.cpus"),
            mems=text("cpuset.mems.effective" if two else "cpuset.mems"),
            processors=count,
        )


def find(store: str, keeper: int, mount: str = cgroup.MOUNT) -> Groups:
    """By trying. Moves this process and the keeper where they have to make room."""
    version = cgroup.version(mount)
    name = f"/dockpy-{zlib.crc32(os.fsencode(os.path.realpath(store))):08x}"
    if version == 2:
        own = cgroup.own()
        base = cgroup.divide(own, lambda pid: _is_ours(pid, keeper), mount) if own else None
        if base is None:
            folder = _base(mount, name)
            if folder is None:
                return Groups()
            cgroup.enable(folder)
            base = name
        held = cgroup.enabled(mount + base)
        return Groups(2, base, {"": mount, **dict.fromkeys(held, mount)})
    roots = {kind: root for kind, root in cgroup.mounted(mount).items() if _base(root, name)}
    return Groups(1, name, roots) if roots else Groups()


def _is_ours(pid: int, keeper: int) -> bool:
    """This process, the keeper, or what it has forked: shims, and who waits to be one."""
    while pid not in (os.getpid(), keeper):
        found = process(pid)
        if found is None:
            return pid != 0  # it has ended; 0: in a pid namespace that we do not see
        if not found.name.startswith(b"dockpy-"):
            return False
        pid = found.parent
    return True


def _base(root: str, path: str) -> str | None:
    """The folder of a group that others can be made in; None where we may not make it."""
    if not os.access(root, os.W_OK):
        return None
    try:
        folder = cgroup.make_below(root, path)
        _count_below(folder)
    except OSError as error:
        log.info("no control groups below %s: %s", root, error)
        return None
    return folder


def _count_below(folder: str) -> None:
    """What is used in groups below one of version 1 counts there only since Linux 5.11."""
    if os.path.exists(f"{folder}/memory.use_hierarchy"):
        if cgroup.number(folder, "memory.use_hierarchy") == 0:
            cgroup.write(folder, "memory.use_hierarchy", "1")
