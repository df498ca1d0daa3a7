"""Limits of containers: docker's checks and texts, and what of them is written where. Pure, but for the
numbers of devices.

A limit that this host cannot enforce is discarded with one warning, docker's own where it has one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dockpy.api.container import HostConfig
from dockpy.errors import Conflict, InvalidParameter

LEAST_MEMORY = 6 << 20
PERIOD = 100_000  # microseconds: docker's for --cpus
# (controller, file, text)
Write = tuple[str, str, str]

# Field, and docker's words for it.
_REALTIME = (
    ("cpu_realtime_period", "cpu real-time period"),
    ("cpu_realtime_runtime", "cpu real-time runtime"),
)
# Field, file of version 1, key in version 2's io.max, and how docker names it.
_THROTTLES = (
    ("blkio_device_read_bps", "read_bps", "rbps", "BPS Block I/O read limit", "Block I/O BPS read limit"),
    ("blkio_device_write_bps", "write_bps", "wbps", "BPS Block I/O write limit", "Block I/O BPS write limit"),
    ("blkio_device_read_iops", "read_iops", "riops", "IOPS Block read limit", "Block I/O IOPS read limit"),
    ("blkio_device_write_iops", "write_iops", "wiops", "IOPS Block write limit", "Block I/O IOPS write limit"),
)  # fmt: skip


@dataclass(frozen=True)
class Support:
    """What is enforced here. `cpus`, `mems`: those there are, as the kernel lists them."""

    version: int = 0
    memory: bool = False
    swap: bool = False
    reservation: bool = False
    swappiness: bool = False
    oom_disable: bool = False
    pids: bool = False
    shares: bool = False
    cfs: bool = False
    cpuset: bool = False
    throttle: bool = False
    realtime: bool = False
    weight: str = ""  # the file of block I/O weights
    weight_device: str = ""  # the one that takes a weight for each device
    cpus: str = ""
    mems: str = ""
    processors: int = 1


NOTHING = Support()


def settle(host: HostConfig, can: Support, *, update: bool = False) -> tuple[HostConfig, list[str]]:
    """What of the limits holds here, and the warnings. InvalidParameter for what makes no sense."""
    warnings: list[str] = []
    if host.memory_swappiness == -1:
        host = replace(host, memory_swappiness=None)
    host = _memory(host, can, warnings, update)
    host = _cpu(host, can, warnings)
    host = _blocks(host, can, warnings)
    if host.pids_limit == 0 and not update:
        host = replace(host, pids_limit=None)
    if host.pids_limit is not None and not can.pids:
        if host.pids_limit > 0:
            warnings.append(_lacks("PIDs limit capabilities", "PIDs limit"))
        host = replace(host, pids_limit=None)
    if host.device_cgroup_rules:
        # A container's devices are those that were given to it: all else of it is mounted nodev.
        warnings.append("device-cgroup-rule is not enforced by dockpy; it was discarded")
    if host.cgroup_parent and not can.version:
        warnings.append("cgroup-parent is discarded: dockpy may make no control groups here")
    return host, warnings


def _lacks(what: str, discarded: str = "Limitation") -> str:
    return f"Your kernel does not support {what} or the cgroup is not mounted. {discarded} discarded."  # fmt: skip


def _memory(host: HostConfig, can: Support, warnings: list[str], update: bool) -> HostConfig:
    memory, swap, reservation = host.memory, host.memory_swap, host.memory_reservation
    if memory < 0 or 0 < memory < LEAST_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory > 0 and not can.memory:
        warnings.append(_lacks("memory limit capabilities"))
    elif memory > 0 and swap != -1 and not can.swap:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
    if 0 < swap < memory:
        raise InvalidParameter(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if swap > 0 and not memory and not update:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if host.memory_swappiness is not None:
        if not 0 <= host.memory_swappiness <= 100:
            raise InvalidParameter(
                f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
            )
        if not can.swappiness:
            warnings.append(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
                "Memory swappiness discarded."
            )
    if 0 < reservation < LEAST_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reservation:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if reservation and not can.reservation:
        warnings.append(_lacks("memory soft limit capabilities"))
    if host.oom_kill_disable and not can.oom_disable:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    elif host.oom_kill_disable and not memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the "
            "system running out of resources."
        )
    if not can.memory:
        memory = swap = 0
    elif not can.swap:
        swap = -1 if memory > 0 else 0
    elif memory > 0 and not swap and not update:
        swap = 2 * memory
    return replace(
        host,
        memory=memory,
        memory_swap=swap,
        memory_reservation=reservation if can.reservation else 0,
        memory_swappiness=host.memory_swappiness if can.swappiness else None,
        oom_kill_disable=host.oom_kill_disable if can.oom_disable else None,
    )


def _cpu(host: HostConfig, can: Support, warnings: list[str]) -> HostConfig:
    period, quota, nano = host.cpu_period, host.cpu_quota, host.nano_cpus
    if nano > 0 and period > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if nano > 0 and quota > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if nano < 0 or nano > can.processors * 10**9:
        raise InvalidParameter(
            f"range of CPUs is from 0.01 to {can.processors}.00, as there are only {can.processors} CPUs available"
        )
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for field, what in _REALTIME:
        if getattr(host, field) > 0 and not can.realtime:
            raise InvalidParameter(f"Your kernel does not support cgroup {what}")
    if 0 < host.cpu_realtime_period < host.cpu_realtime_runtime:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")
    if host.cpu_shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")  # fmt: skip
    if nano and not can.cfs:
        warnings.append("Your kernel does not support CPU CFS scheduler. NanoCPUs discarded.")
    if (period or quota) and not can.cfs:
        warnings.append("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")  # fmt: skip
    if host.cpu_shares and not can.shares:
        warnings.append(_lacks("CPU shares", "Shares"))
    if (host.cpuset_cpus or host.cpuset_mems) and not can.cpuset:
        warnings.append(_lacks("cpuset", "Cpuset"))
    for asked, have, word, what in (
        (host.cpuset_cpus, can.cpus, "cpus", "CPUs"),
        (host.cpuset_mems, can.mems, "mems", "memory nodes"),
    ):
        wanted = _numbers(asked)
        if wanted is None:
            raise InvalidParameter(f"Invalid value {asked} for cpuset {word}")
        if can.cpuset and not wanted <= (_numbers(have) or set()):
            raise InvalidParameter(
                f"Requested {what} are not available - requested {asked}, available: {have}"
            )
    return replace(
        host,
        nano_cpus=nano if can.cfs else 0,
        cpu_period=period if can.cfs else 0,
        cpu_quota=quota if can.cfs else 0,
        cpu_shares=host.cpu_shares if can.shares else 0,
        cpuset_cpus=host.cpuset_cpus if can.cpuset else "",
        cpuset_mems=host.cpuset_mems if can.cpuset else "",
    )


def _numbers(text: str) -> set[int] | None:
    """The kernel's lists: "0-2,7"; None for what is none."""
    result: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        digits = first + last
        if not digits.isascii() or not first.isdigit() or (dash and not last.isdigit()):
            return None
        if len(digits) > 9:
            return None
        low, high = int(first), int(last or first)
        if not low <= high <= low + 8192:
            return None
        result.update(range(low, high + 1))
    return result


def _blocks(host: HostConfig, can: Support, warnings: list[str]) -> HostConfig:
    if host.blkio_weight and not can.weight:
        warnings.append(_lacks("Block I/O weight", "Weight"))
    elif host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    if host.blkio_weight_device and not can.weight_device:
        warnings.append(_lacks("Block I/O weight_device", "Weight-device"))
    for field, _, _, what, discarded in _THROTTLES:
        if getattr(host, field) and not can.throttle:
            warnings.append(_lacks(what, discarded))
    if not can.throttle:
        host = replace(
            host,
            blkio_device_read_bps=(),
            blkio_device_write_bps=(),
            blkio_device_read_iops=(),
            blkio_device_write_iops=(),
        )
    return replace(
        host,
        blkio_weight=host.blkio_weight if can.weight else 0,
        blkio_weight_device=host.blkio_weight_device if can.weight_device else (),
    )


# ------------------------------------------------------------------------------------- update


def merged(old: HostConfig, new: HostConfig) -> HostConfig:
    """`old` with what `new` sets. Conflict: docker's, of limits that exclude each other."""
    for given, what, other, before in (
        (new.nano_cpus, "Nano CPUs", old.cpu_period, "CPU Period"),
        (new.nano_cpus, "Nano CPUs", old.cpu_quota, "CPU Quota"),
        (new.cpu_period, "CPU Period", old.nano_cpus, "NanoCPUs"),
        (new.cpu_quota, "CPU Quota", old.nano_cpus, "NanoCPUs"),
    ):
        if given > 0 and other > 0:
            raise Conflict(f"Conflicting options: {what} cannot be updated as {before} has already been set")  # fmt: skip
    if new.memory > old.memory_swap > 0 and not new.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    changes = {
        name: getattr(new, name)
        for name in (
            "memory memory_swap memory_reservation nano_cpus cpu_shares cpu_period cpu_quota cpuset_cpus "
            "cpuset_mems cpu_realtime_period cpu_realtime_runtime blkio_weight"
        ).split()
        if getattr(new, name)
    }
    if new.pids_limit is not None:
        changes["pids_limit"] = new.pids_limit
    return replace(old, **changes)


# -------------------------------------------------------------------------------------- files


def writes(host: HostConfig, can: Support) -> list[Write]:
    """For a group that has just been made, or has other limits: of `settle`d ones."""
    if can.version == 2:
        return [*_writes_2(host), *_io_max(host), *_weights(host, can)]
    return [*_writes_1(host), *_throttles(host), *_weights(host, can)] if can.version else []


def _quota(host: HostConfig) -> int:
    return host.nano_cpus * PERIOD // 10**9 if host.nano_cpus else host.cpu_quota


def _writes_2(host: HostConfig) -> Iterator[Write]:
    if host.memory:
        yield "memory", "memory.max", str(host.memory)
        if host.memory_swap > 0:
            yield "memory", "memory.swap.max", str(host.memory_swap - host.memory)
        elif host.memory_swap == -1:
            yield "memory", "memory.swap.max", "max"
    if host.memory_reservation:
        yield "memory", "memory.low", str(host.memory_reservation)
    quota, period = _quota(host), host.cpu_period or PERIOD
    if quota or host.cpu_period:
        yield "cpu", "cpu.max", f"{quota if quota > 0 else 'max'} {period}"
    if host.cpu_shares:
        yield "cpu", "cpu.weight", str(weight_of_shares(host.cpu_shares))
    yield from _common(host)


def weight_of_shares(shares: int) -> int:
    """2…262144 to 1…10000, as runc does it."""
    shares = min(max(shares, 2), 262_144)
    return 1 + (shares - 2) * 9999 // 262_142


def _writes_1(host: HostConfig) -> Iterator[Write]:
    if host.memory:
        # The sum with swap may at no moment be the smaller one.
        if host.memory_swap:
            yield "memory", "memory.memsw.limit_in_bytes", "-1"
        yield "memory", "memory.limit_in_bytes", str(host.memory)
        if host.memory_swap > 0:
            yield "memory", "memory.memsw.limit_in_bytes", str(host.memory_swap)
    if host.memory_reservation:
        yield "memory", "memory.soft_limit_in_bytes", str(host.memory_reservation)
    if host.memory_swappiness is not None:
        yield "memory", "memory.swappiness", str(host.memory_swappiness)
    if host.oom_kill_disable:
        yield "memory", "memory.oom_control", "1"
    quota = _quota(host)
    if quota or host.cpu_period:
        yield "cpu", "cpu.cfs_period_us", str(host.cpu_period or PERIOD)
        yield "cpu", "cpu.cfs_quota_us", str(quota or -1)
    if host.cpu_shares:
        yield "cpu", "cpu.shares", str(host.cpu_shares)
    if host.cpu_realtime_period:
        yield "cpu", "cpu.rt_period_us", str(host.cpu_realtime_period)
    if host.cpu_realtime_runtime:
        yield "cpu", "cpu.rt_runtime_us", str(host.cpu_realtime_runtime)
    yield from _common(host)


def _common(host: HostConfig) -> Iterator[Write]:
    if host.cpuset_cpus:
        yield "cpuset", "cpuset.cpus", host.cpuset_cpus
    if host.cpuset_mems:
        yield "cpuset", "cpuset.mems", host.cpuset_mems
    if host.pids_limit is not None:
        yield "pids", "pids.max", str(host.pids_limit) if host.pids_limit > 0 else "max"


def _weights(host: HostConfig, can: Support) -> Iterator[Write]:
    if host.blkio_weight:
        yield can.weight.partition(".")[0], can.weight, str(_weight(host.blkio_weight, can.weight))
    for entry in host.blkio_weight_device:
        device, given = _device(str(entry.get("Path"))), entry.get("Weight")
        weight = _weight(given if isinstance(given, int) else 0, can.weight_device)
        yield can.weight_device.partition(".")[0], can.weight_device, f"{device} {weight}"


def _weight(given: int, name: str) -> int:
    """docker's 10…1000 is bfq's own range; io.weight goes from 1 to 10000."""
    return 1 + (given - 10) * 9999 // 990 if name == "io.weight" else given


def _throttles(host: HostConfig) -> Iterator[Write]:
    for field, name, *_ in _THROTTLES:
        for entry in getattr(host, field):
            device = _device(str(entry.get("Path")))
            yield "blkio", f"blkio.throttle.{name}_device", f"{device} {entry.get('Rate')}"


def _io_max(host: HostConfig) -> Iterator[Write]:
    for field, _, key, *_ in _THROTTLES:
        for entry in getattr(host, field):
            yield "io", "io.max", f"{_device(str(entry.get('Path')))} {key}={entry.get('Rate')}"


def _device(path: str) -> str:
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        raise InvalidParameter(f"stat {path}: {error.strerror}") from None
    return f"{os.major(number)}:{os.minor(number)}"
