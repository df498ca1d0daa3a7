"""Into the container's control group, which whoever runs us has made, with its limits.

A move waits for a grace period of the kernel, some 10 ms; a child that is born there (version 2, Linux 5.7)
does not. So that is tried first, and the child is told to move itself where it is refused.
"""

from __future__ import annotations

import os

from dockpy.linux import processes

MOUNT = "/sys/fs/cgroup"


def open_groups(path: str | None) -> list[int]:
    """The folders of the group `path` (linux.cgroupsPath): one, or of version 1 one a controller. Raises
    FileNotFoundError where there is none.
    """
    if path is None:
        return []
    names = trees(path)
    return [_open(f"{MOUNT}/{name}{path}") for name in names] if names else [_open(MOUNT + path)]


def unified() -> bool:
    """Version 2: one tree for all controllers."""
    return os.path.exists(f"{MOUNT}/cgroup.controllers")


def trees(path: str | None) -> list[str]:
    """Those of version 1 that have a group `path`, by their names, which are mount options too."""
    if path is None or unified():
        return []
    # Controllers that are mounted together have links to their folder.
    names = [entry.name for entry in os.scandir(MOUNT) if entry.is_dir(follow_symlinks=False)]
    return [name for name in sorted(names) if os.path.isdir(f"{MOUNT}/{name}{path}")]


def _open(folder: str) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def clone(flags: int, groups: list[int]) -> tuple[int, int]:
    """processes.clone; in the child `groups` is empty when it was born there, and to be joined else."""
    if len(groups) == 1:
        try:
            pid, pidfd = processes.clone_into(flags, groups[0])
        except OSError:
            pass  # an old kernel, or a group that takes no more: the move says why, if it does
        else:
            if pid == 0:
                os.close(groups.pop())
            return pid, pidfd
    return processes.clone(flags)


def join(groups: list[int]) -> None:
    """This process goes there; closes them."""
    while groups:
        folder = groups.pop()
        fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        os.write(fd, b"0")
        os.close(fd)
        os.close(folder)
