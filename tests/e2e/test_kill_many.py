"""kill -9 of daemon, keeper and all, again and again, under many containers that do all kinds of things.

With `./scripts/test --long` they are fifty, as every user; the short form has nine, as the plain one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from tests.e2e.engines import Engine

LONG = bool(os.environ.get("DOCKPY_TEST_LONG"))
EACH, KILLS = (10, 12) if LONG else (2, 3)
LINES = 1500 if LONG else 500


def script(count: int, code: int) -> list[str]:
    loop = (
        f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit {code}"
    )
    return ["sh", "-c", loop]


def wanted(count: int) -> str:
    return "".join(f"line {i}\n" for i in range(count))


def pids(engine: Engine) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for _ in range(20):  # asked in the moment of a kill it fails
        answer = engine.cli("daemon", "status", "--format", "json")
        if answer.code == 0:
            for row in json.loads(answer.out)["processes"]:
                found.setdefault(row["role"], []).append(row["pid"])
            return found
        engine.cli("ps", "-q")
    raise AssertionError(answer.err)


class Churn(threading.Thread):
    """Makes and removes containers meanwhile; what is told as done must be so."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self.stop = threading.Event()
        self.wrong: list[str] = []

    def run(self) -> None:
        engine = self._engine
        while not self.stop.is_set():
            name = engine.name()
            made = engine.cli("create", "--name", name, engine.image, "true")
            if made.code == 0:
                seen = engine.cli("inspect", "-f", "{{.State.Status}}", name)
                if seen.code == 0 and seen.out != "created\n":
                    self.wrong.append(f"{name}: {seen}")
            while engine.cli("rm", "-f", name).code != 0:
                if "No such container" in engine.cli("rm", name).err:
                    break


def test_many_containers_under_many_kills(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("kill tests know dockpy's processes")
    if not LONG and engine.label != "plain":
        pytest.skip("the long form runs as every user")
    image = engine.image
    printing, ending, looping, attached, probed = (
        [engine.name() for _ in range(EACH)] for _ in range(5)
    )
    clients = {}
    for number in range(EACH):
        engine.cli("run", "-d", "--name", printing[number], image, *script(LINES, number))
        engine.cli(
            "run", "-d", "--name", ending[number], image, *script(40 + 60 * number, 30 + number)
        )
        engine.cli(
            "run", "-d", "--name", looping[number], "--restart", "on-failure:4", image,
            "sh", "-c", "echo again; sleep 0.3; exit 3",
        )  # fmt: skip
        engine.cli(
            "run", "-d", "--name", probed[number], "--health-cmd", "true", "--health-interval", "1s", image,
            "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done",
        )  # fmt: skip
        clients[attached[number]] = engine.start(
            "run",
            "--name",
            attached[number],
            image,
            *script(LINES, 60 + number),
            stdout=subprocess.PIPE,
        )
    churn = Churn(engine)
    churn.start()
    chance = random.Random(5)
    for _ in range(KILLS):
        time.sleep(0.5 + chance.random())
        found = pids(engine)
        for role in chance.choice(
            (["daemon"], ["keeper"], ["daemon", "keeper"], ["keeper", "daemon"])
        ):
            for pid in found.get(role, []):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    churn.stop.set()
    churn.join()
    assert not churn.wrong, churn.wrong

    for number in range(EACH):
        for names, count, code in (
            (printing, LINES, number),
            (ending, 40 + 60 * number, 30 + number),
            (attached, LINES, 60 + number),
        ):
            name = names[number]
            assert engine.cli("wait", name).out == f"{code}\n", name
            assert engine.cli("logs", name).out == wanted(count), name
        client = clients[attached[number]]
        out, _ = client.communicate(timeout=60)
        assert out.decode() == wanted(LINES)
        told = engine.cli("inspect", "-f", "{{.State.ExitCode}} {{.RestartCount}}", looping[number])
        deadline = time.monotonic() + 30
        while told.out != "3 4\n" and time.monotonic() < deadline:
            time.sleep(0.2)
            told = engine.cli(
                "inspect", "-f", "{{.State.ExitCode}} {{.RestartCount}}", looping[number]
            )
        assert told.out == "3 4\n", told
        assert engine.cli("logs", looping[number]).out == "again\n" * 5
        health = engine.cli(
            "inspect", "-f", "{{.State.Running}} {{.State.Health.Status}}", probed[number]
        )
        assert health.out == "true healthy\n", health

    victim = probed[0]
    shim = next(
        row["pid"]
        for row in json.loads(engine.cli("daemon", "status", "--format", "json").out)["processes"]
        if row["role"] == "shim"
        and row["container"] == engine.cli("inspect", "-f", "{{.Id}}", victim).out.strip()
    )
    os.kill(shim, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while engine.cli("inspect", "-f", "{{.State.Running}}", victim).out != "false\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running = engine.cli("ps", "--format", "{{.Names}}").out.split()
    ours = {*printing, *ending, *looping, *attached, *probed}
    assert ours & set(running) == set(probed[1:]), "the others go on"
    found = pids(engine)
    assert len(found["daemon"]) == len(found["keeper"]) == 1
    engine.cli("rm", "-f", *printing, *ending, *looping, *attached, *probed)
