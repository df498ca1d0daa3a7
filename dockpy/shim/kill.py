"""Signals to a container's processes, and to what outlives its first one."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums; no stub
import os


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def kill_children() -> None:
    """What outlived the container's first process: only with the host's pid namespace is there any."""
    for pid in _children():
        try:
            os.kill(pid, _signal.SIGKILL)
        except OSError:
            pass


def kill(pid: int, number: int, everyone: bool) -> None:
    theirs = _pid_namespace(pid) if everyone and number != _signal.SIGKILL else 0
    # The death of a pid namespace's first process is that of all the others.
    if theirs not in (0, os.stat("/proc/self/ns/pid").st_ino):
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and os.stat(f"/proc/{name}/ns/pid").st_ino == theirs:
                    os.kill(int(name), number)
            except OSError:
                pass  # ended meanwhile, or not ours
    os.kill(pid, number)


def _pid_namespace(pid: int) -> int:
    """Its inode; 0 for one that cannot be looked at, and whose end is that of all the others."""
    from dockpy.runtime.namespaces import open_of_process

    try:
        fd = open_of_process(pid, "pid")
    except OSError:
        return 0
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)
