"""Control groups of version 2, as folders and files: where they are, which may be divided, their numbers.

Version 1 is left alone: its trees cannot be delegated. A host with both shows version 2 in a tree of
its own, without controllers; groups in it can still be frozen and killed as a whole.
"""

from __future__ import annotations

import errno
import os

MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
# Where the processes of ours go, in a group that is divided: such a group may have none of its own
# (cgroups(7), "no internal processes").
LEAF = "dockpy-leaf"
LONGEST = 1 << 20


def mount_point() -> str | None:
    """Only version 2 has cgroup.controllers in its root."""
    for path in MOUNTS:
        if os.path.exists(f"{path}/cgroup.controllers"):
            return path
    return None


def folder_of(pid: int | str) -> str | None:
    """The group of a process, as a folder; None where there is none that we see."""
    mount = mount_point()
    if mount is None:
        return None
    try:
        data = _read(f"/proc/{pid}/cgroup")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return None
        raise
    for line in data.split(b"\n"):
        if line.startswith(b"0::/"):
            path = os.fsdecode(line[3:])
            # "/.." shows for a group outside of our cgroup namespace.
            return None if path.startswith("/..") else mount + path.rstrip("/")
    return None


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
    """A file of `key value` lines; empty where it is not there."""
    try:
        lines = read(folder, name).split("\n")
    except FileNotFoundError:
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


def controllers(folder: str) -> frozenset[str]:
    """Those that groups below `folder` have."""
    try:
        return frozenset(read(folder, "cgroup.subtree_control").split())
    except OSError:
        return frozenset()


def enable(folder: str) -> None:
    """Gives every controller there is to the groups below, as far as the kernel lets us."""
    for name in read(folder, "cgroup.controllers").split():
        if name in CONTROLLERS:
            try:
                write(folder, "cgroup.subtree_control", f"+{name}")
            except OSError as error:
                # EBUSY: it has processes. ENOENT, EOPNOTSUPP: this one cannot be had here.
                if error.errno not in (errno.EBUSY, errno.ENOENT, errno.EOPNOTSUPP, errno.EACCES):
                    raise


def divide(top: str | None) -> str | None:
    """The group below which this process may make others, itself out of the way; None where it may not.

    `top` (for the root of a host): a name below the root of the tree; nothing has to move then.
    """
    mount, own = mount_point(), folder_of("self")
    if mount is None or own is None:
        return None
    try:
        if top is not None:
            if own == mount and os.path.exists(f"{mount}/cgroup.type"):
                _empty(mount)  # the root of a container's tree
            enable(mount)
            base = f"{mount}/{top}"
            _make(base)
        elif os.path.basename(own) == LEAF:
            base = os.path.dirname(own)
        else:
            base = own
            _make(f"{base}/{LEAF}")
            write(f"{base}/{LEAF}", "cgroup.procs", "0")
        enable(base)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EBUSY):
            raise
        return None
    return base


def _make(folder: str) -> None:
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        pass


def _empty(folder: str) -> None:
    """All processes into a group below, as podman and docker's own image for docker in docker do."""
    leaf = f"{folder}/{LEAF}"
    _make(leaf)
    for pid in read(folder, "cgroup.procs").split():
        try:
            write(leaf, "cgroup.procs", pid)
        except OSError as error:
            if error.errno not in (
                errno.ESRCH,
                errno.EINVAL,
            ):  # it has ended; a thread of the kernel
                raise
