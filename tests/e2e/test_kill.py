"""kill -9 of daemon, keeper and both under running containers: nothing is lost.

Ten containers print numbered lines, some of them end in that very moment, one has an attached
client. The next command meets one daemon, with right exit codes and complete logs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.e2e.engines import Engine

LINES = 400


def processes(engine: Engine) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in json.loads(engine.cli("daemon", "status", "--format", "json").out)["processes"]:
        found.setdefault(row["role"], []).append(row["pid"])
    return found


def printing(count: int, code: int) -> list[str]:
    return [
        "sh",
        "-c",
        f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); sleep 0.005; done; exit {code}",
    ]


@pytest.fixture
def ten(engine: Engine) -> list[str]:
    if not engine.is_dockpy:
        pytest.skip("kill tests know dockpy's processes")
    names = []
    for number in range(10):
        name = engine.name()
        count = (
            LINES if number % 2 else 40 + 20 * number
        )  # the even ones end while the killing goes on
        assert (
            engine.cli("run", "-d", "--name", name, engine.image, *printing(count, number)).code
            == 0
        )
        names.append(name)
    return names


@pytest.mark.parametrize(
    "victims", [["daemon"], ["keeper"], ["daemon", "keeper"], ["keeper", "daemon"]], ids="+".join
)
def test_killed_processes_of_ours_lose_nothing(
    engine: Engine, ten: list[str], victims: list[str]
) -> None:
    attached_name = engine.name()
    attached = engine.start(
        "run", "--name", attached_name, engine.image, *printing(LINES, 12), stdout=subprocess.PIPE
    )
    time.sleep(0.5)
    before = processes(engine)
    for role in victims:
        os.kill(before[role][0], signal.SIGKILL)
    codes = [engine.cli("wait", name).out.strip() for name in ten]
    assert codes == [str(number) for number in range(10)]
    for number, name in enumerate(ten):
        count = LINES if number % 2 else 40 + 20 * number
        assert engine.cli("logs", name).out == "".join(f"line {i}\n" for i in range(count)), name
    assert attached.stdout is not None
    assert attached.stdout.read().decode() == "".join(f"line {i}\n" for i in range(LINES))
    attached.wait(30)
    assert engine.cli("wait", attached_name).out == "12\n"
    after = processes(engine)
    assert len(after["daemon"]) == len(after["keeper"]) == 1
    for role in victims:
        assert after[role] != before[role]
    engine.cli("rm", "-f", attached_name, *ten)


def test_a_deleted_runtime_directory_is_made_again(engine: Engine, ten: list[str]) -> None:
    run = json.loads(engine.cli("daemon", "status", "--format", "json").out)["run"]
    before = processes(engine)
    shutil.rmtree(run, ignore_errors=True)  # what is made again meanwhile may stay
    time.sleep(2.5)
    environment = {"XDG_RUNTIME_DIR": "/nonexistent"}
    result = engine.cli("ps", "-aq", env=environment)
    assert result.code == 0
    assert processes(engine)["daemon"] == before["daemon"]
    assert [engine.cli("wait", name).out.strip() for name in ten] == [str(n) for n in range(10)]
    os.kill(before["daemon"][0], signal.SIGKILL)
    assert engine.cli("logs", ten[1]).out == "".join(f"line {i}\n" for i in range(LINES))
    engine.cli("rm", "-f", *ten)


def test_a_killed_shim_ends_its_container_only(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("kill tests know dockpy's processes")
    one, two = engine.name(), engine.name()
    for name in (one, two):
        engine.cli("run", "-d", "--name", name, engine.image, "sleep", "100")
    ids = {name: engine.cli("inspect", "-f", "{{.Id}}", name).out.strip() for name in (one, two)}
    init = int(engine.cli("inspect", "-f", "{{.State.Pid}}", one).out)
    rows = json.loads(engine.cli("daemon", "status", "--format", "json").out)["processes"]
    shim = next(
        row["pid"] for row in rows if row["role"] == "shim" and row["container"] == ids[one]
    )
    os.kill(shim, signal.SIGKILL)
    assert engine.cli("wait", one).out.strip() in ("137", "255")
    assert engine.cli("inspect", "-f", "{{.State.Running}}", two).out == "true\n"
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{init}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{init}")
    engine.cli("rm", "-f", one, two)


def test_stopping_the_daemon_leaves_containers(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker's daemon is the system's")
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, "sh", "-c", "sleep 3; echo late; exit 8")
    before = processes(engine)
    assert engine.cli("daemon", "stop").code == 0
    assert not os.path.exists(f"/proc/{before['daemon'][0]}")
    assert engine.cli("wait", name).out == "8\n"
    assert engine.cli("logs", name).out == "late\n"
    assert processes(engine)["daemon"] != before["daemon"]
    engine.cli("rm", name)


def test_stopping_the_daemon_leaves_containers_that_remove_themselves(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker's daemon is the system's")
    name = engine.name()
    engine.cli("run", "-d", "--rm", "--name", name, engine.image, "sleep", "100")
    pid = engine.cli("inspect", "-f", "{{.State.Pid}}", name).out.strip()
    assert engine.cli("daemon", "stop").code == 0
    assert os.path.exists(f"/proc/{pid}")
    assert engine.cli("inspect", "-f", "{{.State.Pid}}", name).out.strip() == pid
    assert engine.cli("rm", "-f", name).code == 0
    assert not os.path.exists(f"/proc/{pid}")


def test_no_descriptor_but_the_three_reaches_a_container(engine: Engine) -> None:
    result = engine.cli("run", "--rm", engine.image, "ls", "/proc/self/fd")
    assert result.out.split() == ["0", "1", "2", "3"]  # 3 is ls reading the folder


def test_wait_and_logs_of_other_shells_survive_the_daemon(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("kill tests know dockpy's processes")
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, *printing(LINES, 9))
    logs = engine.start("logs", "-f", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    waiting = engine.start("wait", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.7)
    os.kill(processes(engine)["daemon"][0], signal.SIGKILL)
    assert waiting.communicate(timeout=20) == (b"9\n", b"")
    out, err = logs.communicate(timeout=20)
    assert (out.decode().splitlines(), err) == ([f"line {n}" for n in range(LINES)], b"")
    assert logs.returncode == 0
    engine.cli("rm", name)


def test_events_of_another_shell_survive_the_daemon(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("kill tests know dockpy's processes")
    name = engine.name()
    events = engine.start(
        *("events", "--filter", f"container={name}", "--format", "{{.Action}}"),
        stdout=subprocess.PIPE,
    )
    assert events.stdout is not None
    try:
        time.sleep(0.5)  # it listens
        engine.cli("run", "-d", "--name", name, engine.image, "sleep", "100")
        told = [events.stdout.readline().decode().strip() for _ in range(2)]
        assert told == ["create", "start"]
        os.kill(processes(engine)["daemon"][0], signal.SIGKILL)
        assert engine.cli("rm", "-f", name).code == 0
        told = [events.stdout.readline().decode().strip() for _ in range(3)]
        assert told == ["kill", "die", "destroy"]
        assert events.poll() is None
    finally:
        events.kill()
        events.wait()
        events.stdout.close()
