"""docker's checks of limits, what is discarded, and what is written for what holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dockpy.api.container import HostConfig, decode
from dockpy.errors import Conflict, InvalidParameter
from dockpy.supervisor.limits import NOTHING, Support, merged, settle, weight_of_shares, writes

ALL = Support(
    version=2,
    memory=True,
    swap=True,
    reservation=True,
    pids=True,
    shares=True,
    cfs=True,
    cpuset=True,
    throttle=True,
    weight="io.weight",
    weight_device="io.weight",
    cpus="0-3",
    mems="0",
    processors=4,
)
ALL_1 = replace(
    ALL,
    version=1,
    swappiness=True,
    oom_disable=True,
    realtime=True,
    weight="blkio.weight",
    weight_device="blkio.weight_device",
)
EVERYTHING: dict[str, object] = {
    "Memory": 64 << 20,
    "MemoryReservation": 32 << 20,
    "CpuShares": 1024,
    "NanoCpus": 1_500_000_000,
    "CpusetCpus": "0,2-3",
    "PidsLimit": 7,
    "BlkioWeight": 500,
}


def host(**fields: object) -> HostConfig:
    return decode(HostConfig, fields, "")


def test_where_nothing_is_enforced_each_is_one_warning_in_docker_s_words() -> None:
    settled, warnings = settle(host(**EVERYTHING), NOTHING_BUT_FOUR)
    assert settled == host()
    assert [warning.split(" or the")[0].split(".")[0] for warning in warnings] == [
        "Your kernel does not support memory limit capabilities",
        "Your kernel does not support memory soft limit capabilities",
        "Your kernel does not support CPU CFS scheduler",
        "Your kernel does not support CPU shares",
        "Your kernel does not support cpuset",
        "Your kernel does not support Block I/O weight",
        "Your kernel does not support PIDs limit capabilities",
    ]
    assert settle(host(PidsLimit=0), NOTHING) == (host(), [])


NOTHING_BUT_FOUR = replace(NOTHING, processors=4)


def test_where_all_is_enforced_nothing_is_said_and_swap_is_as_much_again() -> None:
    settled, warnings = settle(host(**EVERYTHING), ALL)
    assert warnings == []
    assert settled == replace(host(**EVERYTHING), memory_swap=128 << 20)
    assert settle(host(Memory=64 << 20), replace(ALL, swap=False))[1] == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"Memory": 5}, "Minimum memory limit allowed is 6MB"),
        ({"MemorySwap": 9 << 20}, "always set the Memory limit"),
        ({"Memory": 9 << 20, "MemorySwap": 8 << 20}, "larger than memory limit"),
        ({"Memory": 9 << 20, "MemoryReservation": 10 << 20}, "can not be less than memory reserv"),
        ({"MemoryReservation": 1}, "Minimum memory reservation allowed is 6MB"),
        ({"MemorySwappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"NanoCpus": 5_000_000_000}, "0.01 to 4.00, as there are only 4 CPUs available"),
        ({"NanoCpus": 1, "CpuPeriod": 5000}, "Nano CPUs and CPU Period cannot both be set"),
        ({"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms"),
        ({"CpuQuota": 1}, "CPU cfs quota can not be less than 1ms"),
        ({"CpusetCpus": "1-x"}, "Invalid value 1-x for cpuset cpus"),
        ({"CpusetCpus": "3-1"}, "Invalid value 3-1 for cpuset cpus"),
        ({"CpusetCpus": "²"}, "Invalid value ² for cpuset cpus"),
        ({"CpusetCpus": "0-999999999"}, "Invalid value"),
        ({"CpusetMems": "7"}, "memory nodes are not available - requested 7, available: 0"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_what_makes_no_sense(fields: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        settle(host(**fields), ALL)


def test_what_is_written_of_version_2() -> None:
    settled, _ = settle(host(**EVERYTHING), ALL)
    assert {name: text for _, name, text in writes(settled, ALL)} == {
        "memory.max": str(64 << 20),
        "memory.swap.max": str(64 << 20),
        "memory.low": str(32 << 20),
        "cpu.max": "150000 100000",
        "cpu.weight": "39",
        "cpuset.cpus": "0,2-3",
        "pids.max": "7",
        "io.weight": "4950",
    }
    loose = settle(host(Memory=64 << 20, MemorySwap=-1, CpuPeriod=50_000, PidsLimit=-1), ALL)[0]
    assert writes(loose, ALL) == [
        ("memory", "memory.max", str(64 << 20)),
        ("memory", "memory.swap.max", "max"),
        ("cpu", "cpu.max", "max 50000"),
        ("pids", "pids.max", "max"),
    ]
    assert writes(host(), ALL) == []


def test_what_is_written_of_version_1() -> None:
    fields = {**EVERYTHING, "OomKillDisable": True, "MemorySwappiness": 0}
    settled, _ = settle(host(**fields), ALL_1)
    assert [f"{name} {text}" for _, name, text in writes(settled, ALL_1)] == [
        "memory.memsw.limit_in_bytes -1",
        f"memory.limit_in_bytes {64 << 20}",
        f"memory.memsw.limit_in_bytes {128 << 20}",
        f"memory.soft_limit_in_bytes {32 << 20}",
        "memory.swappiness 0",
        "memory.oom_control 1",
        "cpu.cfs_period_us 100000",
        "cpu.cfs_quota_us 150000",
        "cpu.shares 1024",
        "cpuset.cpus 0,2-3",
        "pids.max 7",
        "blkio.weight 500",
    ]


def test_limits_of_devices() -> None:
    limit = host(BlkioDeviceReadBps=[{"Path": "/dev/null", "Rate": 9}])
    assert writes(limit, ALL) == [("io", "io.max", "1:3 rbps=9")]
    assert writes(limit, ALL_1) == [("blkio", "blkio.throttle.read_bps_device", "1:3 9")]
    with pytest.raises(InvalidParameter, match="stat /nowhere"):
        writes(host(BlkioDeviceReadBps=[{"Path": "/nowhere", "Rate": 9}]), ALL)


def test_weights_of_devices() -> None:
    limit = host(BlkioWeightDevice=[{"Path": "/dev/null", "Weight": 1000}])
    assert writes(settle(limit, ALL)[0], ALL) == [("io", "io.weight", "1:3 10000")]
    assert writes(settle(limit, ALL_1)[0], ALL_1) == [("blkio", "blkio.weight_device", "1:3 1000")]
    settled, warnings = settle(limit, NOTHING_BUT_FOUR)
    assert settled == host()
    assert warnings == [
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
    ]


def test_real_time_scheduling() -> None:
    limit = host(CpuRealtimePeriod=1_000_000, CpuRealtimeRuntime=9000)
    assert writes(settle(limit, ALL_1)[0], ALL_1) == [
        ("cpu", "cpu.rt_period_us", "1000000"),
        ("cpu", "cpu.rt_runtime_us", "9000"),
    ]
    with pytest.raises(InvalidParameter, match="does not support cgroup cpu real-time period"):
        settle(limit, ALL)
    with pytest.raises(InvalidParameter, match="runtime cannot be higher than cpu real-time per"):
        settle(host(CpuRealtimePeriod=1000, CpuRealtimeRuntime=9000), ALL_1)


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262_144, 10_000), (1, 1)])
def test_shares_are_a_weight(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


def test_an_update_keeps_the_rest() -> None:
    old = host(Memory=64 << 20, MemorySwap=128 << 20, PidsLimit=5)
    assert merged(old, host(CpuShares=9)) == replace(old, cpu_shares=9)
    assert merged(old, host(PidsLimit=0)).pids_limit == 0
    with pytest.raises(Conflict, match="smaller than already set memoryswap"):
        merged(old, host(Memory=256 << 20))
    with pytest.raises(Conflict, match="as NanoCPUs has already been set"):
        merged(host(NanoCpus=1), host(CpuQuota=2000))
