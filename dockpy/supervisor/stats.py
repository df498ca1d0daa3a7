"""What containers use: numbers of the control group where there is one, else of /proc.

One look at /proc serves all containers of a round that need it, and all streams share the rounds. Without
a control group: CPU and disk of what lives and of what has been waited for, memory as the sum of what is
resident (pages that processes share count once for each).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from dockpy import files
from dockpy.api.times import ZERO, now
from dockpy.linux import cgroup
from dockpy.linux.proctable import TICKS, Table
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.counters import UNLIMITED, Counted, Cpu, Entries, count, entries
from dockpy.supervisor.pause import members

log = logging.getLogger(__name__)

ROUND = 1.0  # seconds between two samples of a stream, as docker's
FRESH = 0.2  # seconds: how old a look at /proc may be for who asks once
BLKIO = (
    "io_service_bytes_recursive io_serviced_recursive io_queue_recursive io_service_time_recursive "
    "io_wait_time_recursive io_merged_recursive io_time_recursive sectors_recursive"
).split()


@dataclass(frozen=True)
class Sample:
    """At one moment; of a container that does not run, all is nothing."""

    read: str = ZERO
    cpu: Cpu = field(default_factory=Cpu)
    memory: dict[str, object] = field(default_factory=dict)
    pids: dict[str, object] = field(default_factory=dict)
    io: dict[str, Entries] = field(default_factory=dict)
    networks: dict[str, dict[str, int]] = field(default_factory=dict)


def to_json(container: Container, sample: Sample, before: Sample | None) -> dict[str, object]:
    blkio: dict[str, object] = dict.fromkeys(BLKIO)
    blkio.update({name: found or None for name, found in sample.io.items()})
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
            self._containers.aside(self._rounds)
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
        return {one.id: self._measured(one) for one in wanted}

    def _measured(self, container: Container) -> Sample:
        if not container.state.running:
            return Sample()
        try:
            return self._sample(container, ROUND)
        except Exception:
            # Whoever waits for the round waits for the others, too.
            log.exception("container %s cannot be measured", container.id[:12])
            return Sample()

    def _sample(self, container: Container, fresh: float) -> Sample:
        try:
            return sample(self._containers, container, lambda: self._look(fresh))
        except OSError as error:
            if error.errno not in cgroup.GONE:
                log.warning("no numbers of container %s: %s", container.id[:12], error)
            return Sample()  # it has ended in this moment

    def _look(self, fresh: float) -> Table:
        table = self._table
        if table is None or time.monotonic() - self._looked > fresh:
            self._looked = time.monotonic()
            self._table = table = Table()
        return table


def sample(containers: Containers, container: Container, look: Callable[[], Table]) -> Sample:
    """`look`: at /proc, for what the control group does not count."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    counted = count(containers.groups, container.state.group, most)
    if not counted.whole:
        counted = _by_processes(containers, container, counted, look())
    host, cpus = _host_cpu()
    return Sample(
        read=now(),
        cpu=replace(counted.cpu or Cpu(), host=host, cpus=cpus),
        memory=counted.memory or {},
        pids=counted.pids or {},
        io=counted.io or {},
        networks=_networks(container),
    )


def _by_processes(
    containers: Containers, container: Container, counted: Counted, table: Table
) -> Counted:
    """`counted`, with what it lacks from /proc."""
    shim = containers.shim_pid(container)
    every = members(container, table, shim)
    cpu, memory, pids, io = counted.cpu, counted.memory, counted.pids, counted.io
    if cpu is None:
        parent = table.by_pid.get(shim)
        user = sum(one.user + one.waited_user for one in every)
        system = sum(one.system + one.waited_system for one in every)
        if parent is not None:  # what an exec used and its children did not inherit
            user, system = user + parent.waited_user, system + parent.waited_system
        ns = 10**9
        cpu = Cpu(int((user + system) * ns), int(user * ns), int(system * ns))
    if memory is None:
        resident = sum(one.rss for one in every)
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        stats = {"anon": resident, "inactive_file": 0}
        memory = {"usage": resident, "stats": stats, "limit": most}
    if pids is None:
        living = sum(one.state not in ("Z", "X") for one in every)
        pids = {"current": living, "limit": UNLIMITED}
    if io is None:
        io = {BLKIO[0]: _io([one.pid for one in every])}
    return Counted(cpu, memory, pids, io)


def _host_cpu() -> tuple[int, int]:
    """What all processors together have spent on anything, and how many there are."""
    lines = files.read_bytes("/proc/stat").split(b"\n")
    total = sum(int(word) for word in lines[0].split()[1:9])
    cpus = sum(line.startswith(b"cpu") for line in lines) - 1
    return total * (10**9 // TICKS), cpus


def _io(pids: list[int]) -> Entries:
    read = written = 0
    for pid in pids:
        try:
            lines = files.read_bytes(f"/proc/{pid}/io").split(b"\n")
        except OSError:
            continue  # it has ended, or hides that
        counts = dict(line.split(b": ") for line in lines if b": " in line)
        read += int(counts.get(b"read_bytes", 0))
        written += int(counts.get(b"write_bytes", 0))
    both = (("read", str(read)), ("write", str(written)))
    return entries("0:0", both) if read or written else []


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
