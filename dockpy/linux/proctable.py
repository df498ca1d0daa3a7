"""Every process of the host in one pass over /proc: who descends from whom, and what it has used.

Only numbers that anybody may read (proc(5), stat), so it works for processes that hide the rest.
"""

from __future__ import annotations

import os

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """Times in seconds, `start` in ticks after boot, `rss` in bytes. `waited_*`: of children that
    have been waited for.
    """

    __slots__ = ("name", "parent", "pid", "rss", "start", "state", "system", "user", "waited_system", "waited_user")  # fmt: skip

    def __init__(self, pid: int, data: bytes) -> None:
        # The name stands in parentheses and may hold any byte; what follows has fixed places.
        end = data.rindex(b")")
        words = data[end + 2 :].split(b" ", 22)
        self.pid = pid
        self.name = data[data.index(b"(") + 1 : end]
        self.state = words[0].decode("ascii")
        self.parent = int(words[1])
        self.user, self.system = int(words[11]) / TICKS, int(words[12]) / TICKS
        self.waited_user, self.waited_system = int(words[13]) / TICKS, int(words[14]) / TICKS
        self.start = int(words[19])
        self.rss = int(words[21]) * PAGE


def process(pid: int) -> Process | None:
    """None when it has ended, or is another user's where those are hidden (proc's hidepid)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        return Process(pid, os.read(fd, 4096))
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


class Table:
    def __init__(self) -> None:
        self.by_pid: dict[int, Process] = {}
        self._children: dict[int, list[Process]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                found = process(int(name))
                if found is not None:
                    self.by_pid[found.pid] = found
                    self._children.setdefault(found.parent, []).append(found)

    def below(self, pid: int) -> list[Process]:
        """All descendants, parents before their children."""
        result = list(self._children.get(pid, ()))
        for found in result:  # grows while it is walked
            result += self._children.get(found.pid, ())
        return result
