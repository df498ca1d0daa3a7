"""Which container's memory has just run out, told by the kernel: no thread, no timer, one task for all.

Version 2 counts in memory.events, and inotify says that one of these files has changed. Version 1 has an
eventfd for each group. It speaks when memory runs out, a moment before a process is killed, and that is
what docker's `oom` means there; also where nobody is killed (--oom-kill-disable).
"""

from __future__ import annotations

import logging
import os
import select
from typing import Callable, Protocol

import trio

from dockpy.linux import cgroup, inotify
from dockpy.linux.eventfd import eventfd
from dockpy.supervisor.groups import Groups

log = logging.getLogger(__name__)

LOST = -1  # the watch of the event that some events were lost (IN_Q_OVERFLOW)
Tell = Callable[[], None]


class _Ear(Protocol):
    """One descriptor for many groups: it is readable when one of them has something to tell."""

    fd: int

    def add(self, path: str) -> None: ...
    def drop(self, path: str) -> None: ...
    def heard(self) -> list[str]: ...


class OomWatch:
    def __init__(self, groups: Groups, nursery: trio.Nursery) -> None:
        self._groups = groups
        self._nursery = nursery
        self._ear: _Ear | None = None
        self._watched: dict[str, Tell] = {}

    def watched(self, path: str) -> bool:
        return path in self._watched

    def begin(self, path: str, tell: Tell) -> None:
        """`tell` is called at each time from now on; where the kernel tells us nothing, never."""
        if self._groups.folder(path, "memory") is None:
            return
        try:
            if self._ear is None:
                self._ear = (_Changes if self._groups.version == 2 else _Events)(self._groups)
                self._nursery.start_soon(self._listen, self._ear)
            self._ear.add(path)
        except OSError as error:  # no inotify instance or descriptor left, or the group is gone
            log.warning("when the memory of %s runs out is told at its end only: %s", path, error)
            return
        self._watched[path] = tell

    def end(self, path: str) -> None:
        """Before the group is removed. What has happened by now is told first."""
        if path in self._watched and self._ear is not None:
            self._tell(self._ear)
            del self._watched[path]
            self._ear.drop(path)

    async def _listen(self, ear: _Ear) -> None:
        while True:
            await trio.lowlevel.wait_readable(ear.fd)
            self._tell(ear)

    def _tell(self, ear: _Ear) -> None:
        for path in ear.heard():
            self._watched[path]()


class _Changes:
    """Of version 2. Other counters of that file change too, at each reclaim: only oom_kill matters."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self.fd = inotify.inotify_init1()
        self._watches: dict[str, int] = {}
        self._kills: dict[str, int] = {}

    def add(self, path: str) -> None:
        name = f"{self._groups.folder(path, 'memory')}/memory.events"
        self._kills[path] = self._groups.oom_kills(path)
        self._watches[path] = inotify.inotify_add_watch(self.fd, name, inotify.IN_MODIFY)

    def drop(self, path: str) -> None:
        inotify.inotify_rm_watch(self.fd, self._watches.pop(path))
        del self._kills[path]

    def heard(self) -> list[str]:
        try:
            changed = set(inotify.watches(os.read(self.fd, 1 << 16)))
        except BlockingIOError:
            return []
        found = []
        for path, watch in self._watches.items():
            if (
                not changed.isdisjoint((watch, LOST))
                and (kills := self._groups.oom_kills(path)) > self._kills[path]
            ):
                self._kills[path] = kills
                found.append(path)
        return found


class _Events:
    """Of version 1."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._poll = select.epoll()
        self.fd = self._poll.fileno()
        self._fds: dict[str, int] = {}

    def add(self, path: str) -> None:
        fd = eventfd()
        try:
            folder = self._groups.folder(path, "memory")
            cgroup.notify(str(folder), "memory.oom_control", fd)
            self._poll.register(fd, select.EPOLLIN)
        except OSError:
            os.close(fd)
            raise
        self._fds[path] = fd

    def drop(self, path: str) -> None:
        os.close(self._fds.pop(path))  # which ends its place in the poll

    def heard(self) -> list[str]:
        ready = {fd for fd, _ in self._poll.poll(0)}
        found = [path for path, fd in self._fds.items() if fd in ready]
        for path in found:
            os.read(self._fds[path], 8)
        return found
