"""What a container's control group has counted, in the parts of docker's stats; None for what it does not count."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from dockpy.linux import cgroup
from dockpy.linux.proctable import TICKS
from dockpy.supervisor.groups import Groups

UNLIMITED = (1 << 64) - 1
Entries = list[dict[str, object]]


@dataclass(frozen=True)
class Cpu:
    """Nanoseconds."""

    total: int = 0
    user: int = 0
    system: int = 0
    host: int = 0
    cpus: int = 0
    throttling: tuple[int, int, int] = (0, 0, 0)  # periods, of them throttled, time

    def to_json(self) -> dict[str, object]:
        periods, throttled, duration = self.throttling
        result: dict[str, object] = {
            "cpu_usage": {
                "total_usage": self.total,
                "usage_in_kernelmode": self.system,
                "usage_in_usermode": self.user,
            },
            "throttling_data": {
                "periods": periods,
                "throttled_periods": throttled,
                "throttled_time": duration,
            },
        }
        if self.cpus:
            result["system_cpu_usage"] = self.host
            result["online_cpus"] = self.cpus
        return result


@dataclass(frozen=True)
class Counted:
    cpu: Cpu | None = None
    memory: dict[str, object] | None = None
    pids: dict[str, object] | None = None
    io: dict[str, Entries] | None = field(default=None)  # by docker's names of the files

    @property
    def whole(self) -> bool:
        return None not in (self.cpu, self.memory, self.pids, self.io)


def count(groups: Groups, path: str, memory: int) -> Counted:
    """Of the group `path`; `memory`: what the host has, which limits what has no limit."""
    if not path:
        return Counted()
    if groups.version == 2:
        folder = groups.folder(path, "")
        return Counted() if folder is None else _count_2(folder, memory)
    return _count_1(groups, path, memory)


def _pids(folder: str | None) -> dict[str, object] | None:
    current = None if folder is None else cgroup.number(folder, "pids.current")
    if folder is None or current is None:
        return None
    limit = cgroup.number(folder, "pids.max")
    return {"current": current, "limit": UNLIMITED if limit is None else limit}


# ----------------------------------------------------------------------------------- version 2


def _count_2(folder: str, most: int) -> Counted:
    used = cgroup.numbers(folder, "cpu.stat")
    cpu = None
    if "usage_usec" in used:
        cpu = Cpu(
            total=used["usage_usec"] * 1000,
            user=used.get("user_usec", 0) * 1000,
            system=used.get("system_usec", 0) * 1000,
            throttling=(
                used.get("nr_periods", 0),
                used.get("nr_throttled", 0),
                used.get("throttled_usec", 0) * 1000,
            ),
        )
    memory: dict[str, object] | None = None
    usage = cgroup.number(folder, "memory.current")
    if usage is not None:
        limit = cgroup.number(folder, "memory.max")
        memory = {
            "usage": usage,
            "stats": cgroup.numbers(folder, "memory.stat"),
            "limit": most if limit is None else min(limit, most),
        }
    return Counted(cpu, memory, _pids(folder), _io_2(folder))


def _io_2(folder: str) -> dict[str, Entries] | None:
    try:
        lines = cgroup.read(folder, "io.stat").split("\n")
    except FileNotFoundError:
        return None
    found: Entries = []
    for line in lines:
        device, _, rest = line.partition(" ")
        values = dict(word.partition("=")[::2] for word in rest.split())
        if "rbytes" in values:
            found += entries(
                device, (("read", values["rbytes"]), ("write", values.get("wbytes", "0")))
            )
    return {"io_service_bytes_recursive": found}


def entries(device: str, values: Iterable[tuple[str, str]]) -> Entries:
    major, _, minor = device.partition(":")
    return [
        {"major": int(major), "minor": int(minor), "op": op, "value": int(value)}
        for op, value in values
    ]


# ----------------------------------------------------------------------------------- version 1


def _count_1(groups: Groups, path: str, most: int) -> Counted:
    return Counted(
        _cpu_1(groups.folder(path, "cpuacct"), groups.folder(path, "cpu")),
        _memory_1(groups.folder(path, "memory"), most),
        _pids(groups.folder(path, "pids")),
        _io_1(groups.folder(path, "blkio")),
    )


def _cpu_1(accounts: str | None, shares: str | None) -> Cpu | None:
    if accounts is None:
        return None
    total = cgroup.number(accounts, "cpuacct.usage") or 0
    ticks = cgroup.numbers(accounts, "cpuacct.stat")
    slowed = {} if shares is None else cgroup.numbers(shares, "cpu.stat")
    nanoseconds = 10**9 // TICKS
    return Cpu(
        total=total,
        user=ticks.get("user", 0) * nanoseconds,
        system=ticks.get("system", 0) * nanoseconds,
        throttling=(
            slowed.get("nr_periods", 0),
            slowed.get("nr_throttled", 0),
            slowed.get("throttled_time", 0),
        ),
    )


def _memory_1(folder: str | None, most: int) -> dict[str, object] | None:
    usage = None if folder is None else cgroup.number(folder, "memory.usage_in_bytes")
    if folder is None or usage is None:
        return None
    limit = cgroup.number(folder, "memory.limit_in_bytes")
    return {
        "usage": usage,
        "max_usage": cgroup.number(folder, "memory.max_usage_in_bytes") or 0,
        "failcnt": cgroup.number(folder, "memory.failcnt") or 0,
        "stats": cgroup.numbers(folder, "memory.stat"),
        "limit": most if limit is None else min(limit, most),
    }


def _io_1(folder: str | None) -> dict[str, Entries] | None:
    if folder is None:
        return None
    result = {}
    for name, file in (
        ("io_service_bytes_recursive", "io_service_bytes"),
        ("io_serviced_recursive", "io_serviced"),
    ):
        found: Entries = []
        for version in (f"blkio.throttle.{file}_recursive", f"blkio.throttle.{file}"):
            if os.path.exists(f"{folder}/{version}"):
                for line in cgroup.read(folder, version).split("\n"):
                    words = line.split()
                    if len(words) == 3:  # the last line is their sum
                        found += entries(words[0], ((words[1].lower(), words[2]),))
                break
        result[name] = found
    return result
