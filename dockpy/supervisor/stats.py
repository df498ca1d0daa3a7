"""What containers use: numbers of the control group where there is one, else of /proc.

One look at /proc serves all containers of a round, and all streams share the rounds. Without a control
group: CPU and disk of what lives and of what has been waited for, memory as the sum of what is
resident (pages that processes share count once for each).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from dataclasses import dataclass, field

import trio

from dockpy import files
from dockpy.api.times import ZERO, now
from dockpy.linux import cgroup
from dockpy.linux.proctable import TICKS, Table
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.pause import group_of, members

log = logging.getLogger(__name__)

ROUND = 1.0  # seconds between two samples of a stream, as docker's
FRESH = 0.2  # seconds: how old a look at /proc may be for who asks once
UNLIMITED = (1 << 64) - 1
BLKIO = (
    "io_service_bytes_recursive io_serviced_recursive io_queue_recursive io_service_time_recursive "
    "io_wait_time_recursive io_merged_recursive io_time_recursive sectors_recursive"
).split()


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
class Sample:
    """At one moment; of a container that does not run, all is nothing."""

    read: str = ZERO
    cpu: Cpu = Cpu()
    memory: dict[str, object] = field(default_factory=dict)
    pids: dict[str, object] = field(default_factory=dict)
    io: list[dict[str, object]] | None = None
    networks: dict[str, dict[str, int]] = field(default_factory=dict)


def to_json(container: Container, sample: Sample, before: Sample | None) -> dict[str, object]:
    blkio: dict[str, object] = dict.fromkeys(BLKIO)
    blkio[BLKIO[0]] = sample.io
    result: dict[str, object] = {
        "read": sample.read,
        "preread": before.read if before is not None else ZERO,
        "pids_stats": sample.pids,
        "blkio_stats": blkio,
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": sample.cpu.to_json(),
        "precpu_stats": (before.cpu if before is not None else Cpu()).to_json(),
        "memory_stats": sample.memory,
        "name": f"/{container.name}",
        "id": container.id,
    }
    if sample.networks:
        result["networks"] = sample.networks
    return result


class Sampler:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._table: Table | None = None
        self._looked = 0.0
        self._latest: dict[str, Sample] = {}
        self._wanted: dict[str, int] = {}
        self._round = trio.Event()
        self._running = False

    async def once(self, container: Container) -> Sample:
        if not container.state.running:
            return Sample()
        return await trio.to_thread.run_sync(self._sample, container, FRESH)

    async def next(self, container: Container) -> Sample:
        """That of the next round, which is at most a second away."""
        self._wanted[container.id] = self._wanted.get(container.id, 0) + 1
        if not self._running:
            self._running = True
            self._containers.nursery.start_soon(self._rounds)
        try:
            while True:
                await self._round.wait()
                if container.id in self._latest:
                    return self._latest[container.id]
                if container not in self._containers.all():
                    return Sample()
        finally:
            self._wanted[container.id] -= 1
            if not self._wanted[container.id]:
                del self._wanted[container.id]

    async def _rounds(self) -> None:
        """As long as somebody waits for one."""
        begin = trio.current_time()
        while self._wanted:
            begin += ROUND
            await trio.sleep_until(begin)
            wanted = [one for one in self._containers.all() if one.id in self._wanted]
            self._latest = await trio.to_thread.run_sync(self._samples, wanted)
            begin = max(begin, trio.current_time() - ROUND)
            over, self._round = self._round, trio.Event()
            over.set()
            # Who wants the next one says so before we look.
            await trio.sleep(ROUND / 10)
        self._running = False

    # Below: in a worker thread.

    def _samples(self, wanted: list[Container]) -> dict[str, Sample]:
        self._table = None
        return {
            one.id: self._sample(one, ROUND) if one.state.running else Sample() for one in wanted
        }

    def _sample(self, container: Container, fresh: float) -> Sample:
        table = self._table
        if table is None or time.monotonic() - self._looked > fresh:
            self._looked = time.monotonic()
            self._table = table = Table()
        try:
            return sample(self._containers, container, table)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH, errno.ENODEV):
                log.warning("no numbers of container %s: %s", container.id[:12], error)
            return Sample()  # it has ended in this moment


def sample(containers: Containers, container: Container, table: Table) -> Sample:
    shim = containers.shim_pid(container)
    every = members(container, table, shim)
    group = group_of(container)
    host, cpus = _host_cpu()
    used = cgroup.numbers(group, "cpu.stat") if group is not None else {}
    if "usage_usec" in used:
        cpu = Cpu(
            total=used["usage_usec"] * 1000,
            user=used.get("user_usec", 0) * 1000,
            system=used.get("system_usec", 0) * 1000,
            host=host,
            cpus=cpus,
            throttling=(
                used.get("nr_periods", 0),
                used.get("nr_throttled", 0),
                used.get("throttled_usec", 0) * 1000,
            ),
        )
    else:
        parent = table.by_pid.get(shim)
        user = sum(one.user + one.waited_user for one in every)
        system = sum(one.system + one.waited_system for one in every)
        if parent is not None:  # what an exec used and its children did not inherit
            user, system = user + parent.waited_user, system + parent.waited_system
        ns = 10**9
        total = int((user + system) * ns)
        cpu = Cpu(total, int(user * ns), int(system * ns), host, cpus)
    return Sample(
        read=now(),
        cpu=cpu,
        memory=_memory(group, sum(one.rss for one in every)),
        pids=_pids(group, sum(one.state not in ("Z", "X") for one in every)),
        io=_io(group, [one.pid for one in every]),
        networks=_networks(container),
    )


def _host_cpu() -> tuple[int, int]:
    """What all processors together have spent on anything, and how many there are."""
    lines = files.read_bytes("/proc/stat").split(b"\n")
    total = sum(int(word) for word in lines[0].split()[1:9])
    cpus = sum(line.startswith(b"cpu") for line in lines) - 1
    return total * (10**9 // TICKS), cpus


def _memory(group: str | None, resident: int) -> dict[str, object]:
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    usage = cgroup.number(group, "memory.current") if group is not None else None
    if group is None or usage is None:
        return {"usage": resident, "stats": {"anon": resident, "inactive_file": 0}, "limit": most}
    limit = cgroup.number(group, "memory.max")
    return {
        "usage": usage,
        "stats": cgroup.numbers(group, "memory.stat"),
        "limit": most if limit is None else min(limit, most),
    }


def _pids(group: str | None, living: int) -> dict[str, object]:
    current = cgroup.number(group, "pids.current") if group is not None else None
    if group is None or current is None:
        return {"current": living, "limit": UNLIMITED}
    limit = cgroup.number(group, "pids.max")
    return {"current": current, "limit": UNLIMITED if limit is None else limit}


def _io(group: str | None, pids: list[int]) -> list[dict[str, object]] | None:
    entries: list[dict[str, object]] = []
    if group is not None and os.path.exists(f"{group}/io.stat"):
        for line in cgroup.read(group, "io.stat").split("\n"):
            device, _, rest = line.partition(" ")
            major, colon, minor = device.partition(":")
            values = dict(word.partition("=")[::2] for word in rest.split())
            if colon and "rbytes" in values:
                entries += _io_entries(
                    int(major), int(minor), int(values["rbytes"]), int(values.get("wbytes", 0))
                )
        return entries or None
    read = written = 0
    for pid in pids:
        try:
            lines = files.read_bytes(f"/proc/{pid}/io").split(b"\n")
        except OSError:
            continue  # it has ended, or hides that
        counts = dict(line.split(b": ") for line in lines if b": " in line)
        read += int(counts.get(b"read_bytes", 0))
        written += int(counts.get(b"write_bytes", 0))
    return _io_entries(0, 0, read, written) if read or written else None


def _io_entries(major: int, minor: int, read: int, written: int) -> list[dict[str, object]]:
    return [
        {"major": major, "minor": minor, "op": op, "value": value}
        for op, value in (("read", read), ("write", written))
    ]


def _networks(container: Container) -> dict[str, dict[str, int]]:
    """Of a container with a network of its own; lo is nobody's traffic."""
    mode = container.record.host_config.network_mode
    if mode == "host" or mode.startswith("container:"):
        return {}
    try:
        lines = files.read_bytes(f"/proc/{container.state.pid}/net/dev").split(b"\n")[2:]
    except PermissionError:
        return {}
    result = {}
    for line in lines:
        name, _, rest = line.decode("ascii", "replace").partition(":")
        words = [int(word) for word in rest.split()]
        if len(words) >= 12 and name.strip() != "lo":
            result[name.strip()] = {
                f"{way}_{what}": words[at + index]
                for way, at in (("rx", 0), ("tx", 8))
                for index, what in enumerate(("bytes", "packets", "errors", "dropped"))
            }
    return result
