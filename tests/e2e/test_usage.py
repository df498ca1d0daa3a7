"""pause, unpause and stats."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.engines import Engine

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


@pytest.fixture
def counting(engine: Engine) -> Iterator[str]:
    """A container with processes below its first one, that prints."""
    name = engine.name()
    run = engine.cli("run", "-d", "--name", name, "--network", "none", engine.image, "sh", "-c", f"({COUNT}) & wait")  # fmt: skip
    assert run.code == 0, run.err
    yield name
    engine.cli("rm", "-f", name)


def lines(engine: Engine, name: str) -> int:
    return len(engine.cli("logs", name).out.splitlines())


def status(engine: Engine, name: str) -> str:
    return engine.cli("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}").out.strip()


def test_a_paused_container_stands_still_and_goes_on(engine: Engine, counting: str) -> None:
    while lines(engine, counting) < 2:
        time.sleep(0.02)
    assert engine.cli("pause", counting).out == f"{counting}\n"
    state = json.loads(engine.cli("inspect", "-f", "{{json .State}}", counting).out)
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True)
    assert status(engine, counting).endswith("(Paused)")
    before = lines(engine, counting)
    time.sleep(0.3)
    assert lines(engine, counting) == before
    assert engine.cli("unpause", counting).code == 0
    while lines(engine, counting) <= before:
        time.sleep(0.02)
    assert "Paused" not in status(engine, counting)


def test_what_a_paused_container_refuses(engine: Engine, counting: str) -> None:
    assert "is not paused" in engine.cli("unpause", counting).err
    engine.cli("pause", counting)
    assert "is already paused" in engine.cli("pause", counting).err
    done = engine.cli("exec", counting, "true")
    assert f"Container {counting} is paused, unpause the container before exec" in done.err
    assert "paused container, unpause it first" in engine.cli("attach", counting).err
    started = engine.cli("start", counting)
    assert "cannot start a paused container, try unpause instead" in started.err
    listed = engine.cli("ps", "-q", "--no-trunc", "--filter", "status=paused").out
    assert engine.cli("inspect", "-f", "{{.Id}}", counting).out in listed


def test_kill_stop_and_removal_of_a_paused_container(engine: Engine, counting: str) -> None:
    engine.cli("pause", counting)
    assert engine.cli("kill", "-s", "KILL", counting).code == 0
    assert engine.cli("wait", counting).out == "137\n"
    engine.cli("start", counting)
    engine.cli("pause", counting)
    assert engine.cli("stop", "-t", "1", counting).code == 0
    assert status(engine, counting).startswith("Exited")
    engine.cli("start", counting)
    engine.cli("pause", counting)
    assert engine.cli("rm", "-f", counting).code == 0


def test_the_stop_signal_of_a_paused_container_arrives(engine: Engine) -> None:
    name = engine.name()
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    engine.cli("run", "-d", "--name", name, "--network", "none", engine.image, "sh", "-c", script)
    while not lines(engine, name):
        time.sleep(0.02)
    engine.cli("pause", name)
    engine.cli("stop", "-t", "20", name)
    assert engine.cli("inspect", "-f", "{{.State.ExitCode}} {{.State.Paused}}", name).out == "7 false\n"  # fmt: skip
    engine.cli("rm", "-f", name)


def test_a_pause_in_the_middle_of_a_stop_holds_nothing_up(engine: Engine, counting: str) -> None:
    """Its sh is process 1 and meets no SIGTERM: SIGKILL comes to a container that stands still by then."""
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(engine.cli, "stop", "-t", "2", counting)
        time.sleep(0.7)
        assert engine.cli("pause", counting).code == 0
        assert stopping.result(30).code == 0
    assert status(engine, counting).startswith("Exited (137)")


def test_what_stood_still_before_is_not_woken(engine: Engine) -> None:
    name = engine.name()
    script = f"({COUNT}) & kill -STOP $!; echo stopped; wait"
    engine.cli("run", "-d", "--name", name, "--network", "none", engine.image, "sh", "-c", script)
    while "stopped" not in engine.cli("logs", name).out:
        time.sleep(0.02)
    before = lines(engine, name)
    engine.cli("pause", name)
    engine.cli("unpause", name)
    time.sleep(0.3)
    assert lines(engine, name) == before
    engine.cli("rm", "-f", name)


def test_the_pause_outlives_the_daemon(engine: Engine, counting: str) -> None:
    if not engine.is_dockpy:
        pytest.skip("that daemon ends its containers")
    engine.cli("pause", counting)
    rows = json.loads(engine.cli("daemon", "status", "--format", "json").out)["processes"]
    os.kill(next(row["pid"] for row in rows if row["role"] == "daemon"), signal.SIGKILL)
    assert status(engine, counting).endswith("(Paused)")
    before = lines(engine, counting)
    assert engine.cli("unpause", counting).code == 0
    while lines(engine, counting) <= before:
        time.sleep(0.02)


def test_a_commit_pauses_and_a_paused_one_is_not_probed(engine: Engine) -> None:
    name, image = engine.name(), f"localhost/{engine.name()}:1"
    probed = "echo x >> /probes"
    engine.cli("run", "-d", "--name", name, "--network", "none", "--health-cmd", probed,
               "--health-interval", "100ms", engine.image, "sleep", "60")  # fmt: skip
    since = str(time.time())
    assert engine.cli("commit", name, image).code == 0
    assert engine.cli("commit", "--pause=false", name, image).code == 0
    told = engine.cli("events", "--since", since, "--until", str(time.time()), "--filter", f"container={name}",
                      "--format", "{{.Action}}").out.split()  # fmt: skip
    seen = [word for word in told if word in ("pause", "unpause", "commit")]
    assert seen == ["pause", "unpause", "commit", "commit"] or seen == ["pause", "commit", "unpause", "commit"]  # fmt: skip
    engine.cli("pause", name)
    assert engine.cli("inspect", "-f", "{{.State.Health.Status}}", name).out == "unhealthy\n"
    since = str(time.time())
    time.sleep(0.3)
    later = engine.cli("events", "--since", since, "--until", str(time.time()), "--filter", f"container={name}").out  # fmt: skip
    assert "exec_start" not in later
    engine.cli("unpause", name)
    deadline = time.monotonic() + 10
    while engine.cli("inspect", "-f", "{{.State.Health.Status}}", name).out != "healthy\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    engine.cli("rm", "-f", name)
    engine.cli("rmi", "-f", image)


def test_stats_once(engine: Engine, counting: str) -> None:
    busy = engine.name()
    engine.cli("run", "-d", "--name", busy, "--network", "none", engine.image, "sh", "-c", "while :; do :; done")  # fmt: skip
    done = engine.cli("stats", "--no-stream", busy, counting)
    assert done.code == 0, done.err
    head, first, second = done.out.splitlines()
    assert re.split(r"\s{2,}", head.strip()) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS",
    ]  # fmt: skip
    rows = {re.split(r"\s{2,}", line)[1]: re.split(r"\s{2,}", line) for line in (first, second)}
    assert 1 < float(rows[busy][2].rstrip("%")) < 120
    assert re.fullmatch(r"[0-9.]+[KM]iB / [0-9.]+GiB", rows[busy][3])
    assert rows[busy][7] == "1"
    assert int(rows[counting][7]) >= 2
    engine.cli("rm", "-f", busy)


def test_stats_of_one_that_does_not_run_and_of_none(engine: Engine) -> None:
    name = engine.name()
    engine.cli("create", "--name", name, "--network", "none", engine.image, "true")
    form = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}"
    done = engine.cli("stats", "-a", "--no-stream", "--format", form, name)
    assert done.out == f"{name} 0.00% 0B / 0B 0\n"
    engine.cli("rm", name)
    missing = engine.cli("stats", "--no-stream", "e2e-nobody")
    assert missing.code == 1
    assert "No such container: e2e-nobody" in missing.err
