"""Limits, and what happens at them: where the engine has control groups (docker and root do here)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.e2e.engines import Engine

HOG = "x=x; while :; do x=$x$x; done"  # doubles its memory until somebody ends it


@pytest.fixture
def limited(engine: Engine) -> Engine:
    if engine.cli("info", "--format", "{{.MemoryLimit}}").out != "true\n":
        pytest.skip("this engine has no control groups here")
    return engine


def test_what_a_container_may_use(limited: Engine) -> None:
    engine, name = limited, limited.name()
    flags = ["-m", "64m", "--memory-reservation", "32m", "--cpus", "0.5", "--cpu-shares", "512", "--pids-limit", "20"]  # fmt: skip
    flags += ["--cpuset-cpus", "0", "--network", "none"]
    done = engine.cli("run", "-d", "--name", name, *flags, engine.image, "sh", "-c", "while :; do :; done")  # fmt: skip
    assert (done.code, done.err) == (0, "")
    host = json.loads(engine.cli("inspect", "-f", "{{json .HostConfig}}", name).out)
    assert (host["Memory"], host["MemoryReservation"], host["PidsLimit"]) == (64 << 20, 32 << 20, 20)  # fmt: skip
    assert (host["NanoCpus"], host["CpuShares"], host["CpusetCpus"]) == (500_000_000, 512, "0")
    form = "{{.MemUsage}} {{.PIDs}} {{.CPUPerc}}"
    usage, limit, pids, cpu = engine.cli("stats", "--no-stream", "--format", form, name).out.replace(" / ", " ").split()  # fmt: skip
    assert (limit, pids) == ("64MiB", "1")
    assert usage.endswith(("KiB", "MiB"))
    assert 0 < float(cpu.rstrip("%")) < 75
    # Programs that look for their limit find it where they are used to.
    looks = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
    assert engine.cli("exec", name, "sh", "-c", looks).out == f"{64 << 20}\n"
    # The kernel says the same: no more processes than that, also by exec.
    many = engine.cli("exec", name, "sh", "-c", "i=0; while [ $i -lt 40 ]; do sleep 9 & i=$((i+1)); done 2>&1")  # fmt: skip
    assert "fork" in many.out or many.code != 0
    engine.cli("update", "-m", "80m", "--memory-swap", "-1", "--pids-limit", "50", name)
    form = "{{.MemUsage}}"
    assert engine.cli("stats", "--no-stream", "--format", form, name).out.endswith("/ 80MiB\n")
    assert engine.cli("inspect", "-f", "{{.HostConfig.PidsLimit}}", name).out == "50\n"
    engine.cli("rm", "-f", name)


def test_out_of_memory(limited: Engine) -> None:
    engine, name = limited, limited.name()
    done = engine.cli("run", "--name", name, "-m", "16m", "--memory-swap", "16m", "--network", "none", engine.image, "sh", "-c", HOG)  # fmt: skip
    assert done.code == 137
    form = "{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Status}}"
    assert engine.cli("inspect", "-f", form, name).out == "true 137 exited\n"
    # Counted anew by each run.
    engine.cli("rm", name)
    engine.cli("run", "--name", name, "-m", "16m", "--network", "none", engine.image, "true")
    assert engine.cli("inspect", "-f", form, name).out == "false 0 exited\n"
    engine.cli("rm", name)


def test_real_time_scheduling(limited: Engine) -> None:
    """None of a host's real-time budget is docker's, unless somebody gives it to a parent of theirs."""
    tree = Path("/sys/fs/cgroup/cpu")
    if not (tree / "cpu.rt_runtime_us").exists() or os.geteuid():
        pytest.skip("this kernel has no real-time groups (CONFIG_RT_GROUP_SCHED, version 1)")
    engine, name = limited, limited.name()
    flags = ["--network", "none", "--cpu-rt-runtime", "2000"]
    refused = engine.cli("run", "--rm", *flags, engine.image, "true")
    assert refused.code == 125 and "cpu.rt_runtime_us" in refused.err
    parent = tree / f"dockpy-test-{name}"
    parent.mkdir()
    try:
        (parent / "cpu.rt_runtime_us").write_text("9000")
        done = engine.cli("run", "-d", "--name", name, *flags, "--cgroup-parent", f"/{parent.name}", engine.image, "sleep", "100")  # fmt: skip
        assert (done.code, done.err) == (0, "")
        assert next(parent.glob("*/cpu.rt_runtime_us")).read_text() == "2000\n"
        engine.cli("rm", "-f", name)
    finally:
        for left in parent.glob("*/"):
            left.rmdir()
        parent.rmdir()


def test_limits_for_one_that_runs_without(limited: Engine) -> None:
    engine, name = limited, limited.name()
    script = "(while :; do sleep 0.05; done) & wait"
    engine.cli("run", "-d", "--name", name, "--network", "none", engine.image, "sh", "-c", script)
    done = engine.cli("update", "-m", "32m", "--memory-swap", "64m", name)
    assert (done.code, done.out) == (0, f"{name}\n"), done.err
    begun = str(int(time.time()) - 1)
    assert engine.cli("exec", name, "sh", "-c", HOG).code == 137
    # Told when it happens: the container goes on.
    since = ("--since", begun, "--filter", f"container={name}", "--filter", "event=oom")
    told = ["events", *since, "--until", str(int(time.time()) + 1), "--format", "{{.Action}}"]
    assert engine.cli(*told).out == "oom\n"
    shown = engine.cli("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name).out
    assert "/ 32MiB " in shown
    assert engine.cli("inspect", "-f", "{{.State.Running}}", name).out == "true\n"
    engine.cli("rm", "-f", name)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["-m", "5m"], "Minimum memory limit allowed is 6MB"),
        (["--cpus", "4000"], "ange of CPUs is from 0.01 to "),
        (
            ["--memory-swap", "64m"],
            "You should always set the Memory limit when using Memoryswap limit",
        ),
        (["-m", "64m", "--memory-swap", "32m"], "Minimum memoryswap limit should be larger than"),
        (["--cpus", "1", "--cpu-quota", "5000"], "Nano CPUs and CPU Quota cannot both be set"),
        (["--cpu-period", "5"], "CPU cfs period can not be less than 1ms"),
        (["--cpuset-cpus", "x"], "Invalid value x for cpuset cpus"),
    ],
)
def test_limits_that_make_no_sense(engine: Engine, flags: list[str], text: str) -> None:
    done = engine.cli("create", *flags, engine.image, "true")
    assert done.code == 125 or done.code == 1
    assert text in done.err
