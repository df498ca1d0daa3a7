"""Control groups as folders and files, of both versions (cgroups(7)): where they are, how they are made,
divided, stopped and removed, and their numbers.

Version 2 is one tree; of version 1 each controller has its own, so one group is several folders. A host
with both (version 2 without controllers, at /sys/fs/cgroup/unified) is taken for version 1.
"""

from __future__ import annotations

import errno
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOUNT = "/sys/fs/cgroup"
CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")  # of version 2
CONTROLLERS_1 = ("blkio", "cpu", "cpuacct", "cpuset", "freezer", "memory", "pids")
# Where the processes of ours go, in a group that is divided: such a group may have none of its own
# (cgroups(7), "no internal processes").
LEAF = "dockpy-leaf"
LONGEST = 1 << 20
TURN = 0.003  # seconds between two looks
# What a group answers whose last process has just ended, or that has been removed.
GONE = (errno.ENOENT, errno.ENODEV, errno.ESRCH)
PASSES = 20
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EBUSY, errno.ENOSPC)


def version(mount: str = MOUNT) -> int:
    """0: none that we see. Only version 2 has cgroup.controllers in its root."""
    if os.path.exists(f"{mount}/cgroup.controllers"):
        return 2
    return 1 if mounted(mount) else 0


def mounted(mount: str = MOUNT) -> dict[str, str]:
    """Of version 1: controller → folder. Several may be mounted together under names with commas."""
    found = {}
    for name in CONTROLLERS_1:
        folder = os.path.realpath(f"{mount}/{name}")
        if os.path.exists(f"{folder}/cgroup.procs"):
            found[name] = folder
    return found


def own() -> str | None:
    """This process's group of version 2, as a path from the root of the tree ("" for the root itself)."""
    for line in _read("/proc/self/cgroup").split(b"\n"):
        if line.startswith(b"0::/"):
            path = os.fsdecode(line[3:])
            # "/.." shows for a group outside of our cgroup namespace.
            return None if path.startswith("/..") else path.rstrip("/")
    return None


# --------------------------------------------------------------------------------------- files


def read(folder: str, name: str) -> str:
    return _read(f"{folder}/{name}").decode("ascii", "replace").strip()


def number(folder: str, name: str) -> int | None:
    """None for `max`, and where the controller of that file is not there."""
    try:
        text = read(folder, name)
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else None


def numbers(folder: str, name: str) -> dict[str, int]:
    """A file of `key value` lines; empty where it is not there, or its group has been removed."""
    try:
        lines = read(folder, name).split("\n")
    except OSError as error:
        if error.errno not in GONE:
            raise
        return {}
    words = [line.split() for line in lines]
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def write(folder: str, name: str, text: str) -> None:
    fd = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while True:
            data = os.read(fd, LONGEST)
            if not data:
                return b"".join(parts)
            parts.append(data)
    finally:
        os.close(fd)


def notify(folder: str, name: str, event: int) -> None:
    """Of version 1: what happens to the file `name` is told by the eventfd `event`, until that is closed
    (Documentation/admin-guide/cgroup-v1/memory.rst, 9 and 10).
    """
    fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        write(folder, "cgroup.event_control", f"{event} {fd}")
    finally:
        os.close(fd)


# -------------------------------------------------------------------------------------- making


def enabled(folder: str) -> frozenset[str]:
    """The controllers that groups below `folder` have (version 2)."""
    try:
        return frozenset(read(folder, "cgroup.subtree_control").split())
    except OSError:
        return frozenset()


def enable(folder: str) -> frozenset[str]:
    """Gives every controller there is to the groups below, as far as the kernel lets us; answers those."""
    have = enabled(folder)
    for name in read(folder, "cgroup.controllers").split():
        if name in CONTROLLERS and name not in have:
            try:
                write(folder, "cgroup.subtree_control", f"+{name}")
            except OSError as error:
                # EBUSY: it has processes. ENOENT, EOPNOTSUPP, EINVAL: this one cannot be had here.
                if error.errno not in (*_REFUSED, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
    return enabled(folder)


def divide(path: str, is_ours: Callable[[int], bool], mount: str = MOUNT) -> str | None:
    """The group below which this process may make others, when that can be its own group `path` (see
    `own`): every process in it goes into a leaf, and all must be ours. None where it may not.
    """
    if os.path.basename(path) == LEAF:
        path = os.path.dirname(path)
    folder = mount + path
    if not path or not os.access(f"{folder}/cgroup.procs", os.W_OK):
        return None
    try:
        # Again, for some of them may have forked on before they were moved.
        for _ in range(PASSES):
            pids = [int(word) for word in read(folder, "cgroup.procs").split()]
            if not all(map(is_ours, pids)):  # 0: one that we cannot see
                return None
            make(f"{folder}/{LEAF}")
            for pid in pids:
                join(f"{folder}/{LEAF}", pid)
            if not pids:
                break
        enable(folder)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return None
    return path


def make(folder: str) -> None:
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        pass


def make_below(root: str, path: str) -> str:
    """`root`/`path` with all that lies between, each with the controllers of the one above; the folder."""
    folder = root
    for name in path.strip("/").split("/"):
        if os.path.exists(f"{folder}/cgroup.subtree_control"):
            enable(folder)
        folder = f"{folder}/{name}"
        make(folder)
        _inherit_cpuset(folder)
    return folder


def _inherit_cpuset(folder: str) -> None:
    """A group of version 1 without processors and memory nodes takes no process: it gets all of those above."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if os.path.exists(f"{folder}/cpuset.memory_migrate") and not read(folder, name):
            write(folder, name, read(os.path.dirname(folder), name))


def join(folder: str, pid: int) -> None:
    """That process (0: this one) goes there; nothing when it has ended."""
    try:
        write(folder, "cgroup.procs", str(pid))
    except ProcessLookupError:
        pass


def members(folder: str) -> frozenset[int]:
    """The processes in that very group, without those that have ended; none where it is not there."""
    try:
        return frozenset(int(word) for word in read(folder, "cgroup.procs").split())
    except OSError as error:
        if error.errno not in GONE:
            raise
        return frozenset()


# ---------------------------------------------------------------------------- stopping, removing


def freeze(folder: str, patience: float) -> bool:
    """Whether all in it stand still within so many seconds. Blocks."""
    kind = 2 if os.path.exists(f"{folder}/cgroup.freeze") else 1
    write(folder, *(("cgroup.freeze", "1") if kind == 2 else ("freezer.state", "FROZEN")))
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if kind == 2 and numbers(folder, "cgroup.events").get("frozen") == 1:
            return True
        if kind == 1 and read(folder, "freezer.state") == "FROZEN":
            return True
        time.sleep(TURN)
    return False


def thaw(folder: str) -> None:
    for name, text in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
        try:
            write(folder, name, text)
        except OSError as error:
            if error.errno not in GONE:
                raise


def frozen(folder: str) -> bool:
    for name, words in (("cgroup.freeze", ("1",)), ("freezer.state", ("FROZEN", "FREEZING"))):
        try:
            if read(folder, name) in words:
                return True
        except OSError as error:
            if error.errno not in GONE:
                raise
    return False


def remove(folder: str) -> bool:
    """Whether it is gone, with the groups below it: False while there are processes in it."""
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        below = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        return bool(below) and all(remove(path) for path in below) and remove(folder)
    return True


def kill(folder: str) -> None:
    """SIGKILL to all in it and below it, which must not be frozen (version 1)."""
    try:
        write(folder, "cgroup.kill", "1")  # Linux 5.14
        return
    except OSError as error:
        if error.errno not in (*GONE, errno.EOPNOTSUPP):
            raise
    for path, _, _ in os.walk(folder):
        try:
            pids = read(path, "cgroup.procs").split()
        except OSError as error:
            if error.errno not in GONE:
                raise
            continue
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
