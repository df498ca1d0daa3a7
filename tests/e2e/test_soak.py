"""Many short containers while daemon and keeper are killed: right codes, whole output, nothing left.

A short form always runs; `./scripts/test --long` runs it for minutes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.engines import Engine

LONG = bool(os.environ.get("DOCKPY_TEST_LONG"))
RUNS_EACH, CLIENTS = (150, 8) if LONG else (12, 4)


def status(engine: Engine) -> dict[str, list[dict[str, object]]]:
    for _ in range(5):  # asked in the moment of a kill it fails
        engine.cli("ps", "-q")  # starts a daemon where there is none
        answer = engine.cli("daemon", "status", "--format", "json")
        if answer.code == 0:
            break
    assert answer.code == 0, answer
    document: dict[str, list[dict[str, object]]] = json.loads(answer.out)
    return document


def left_behind(engine: Engine) -> dict[str, int]:
    """What grows when something leaks: processes of ours, their mounts and descriptors, files of the store."""
    rows = status(engine)["processes"]
    daemon = next(row["pid"] for row in rows if row["role"] == "daemon")
    store = Path(engine.environ["DOCKPY_STORE"])
    return {
        "processes": len(rows),
        "mounts": Path(f"/proc/{daemon}/mountinfo").read_text().count(str(store)),
        "descriptors": len(os.listdir(f"/proc/{daemon}/fd")),
        "containers": len(list((store / "containers").iterdir())),
        "active": sum(1 for path in (store / "snapshots" / "active").iterdir()),
        "tmp": len(list((store / "tmp").iterdir())),
        "sockets": len(list(Path(str(status(engine)["run"])).glob("s/*"))),
    }


def settled(engine: Engine, wanted: dict[str, int]) -> dict[str, int]:
    """Removal of trees goes on for a moment after a client has its answer."""
    deadline = time.monotonic() + 20
    while True:
        now = left_behind(engine)
        grown = {
            key: now[key]
            for key in now
            if now[key] > wanted[key] + (3 if key == "descriptors" else 0)
        }
        if not grown or time.monotonic() > deadline:
            return grown
        time.sleep(0.2)


@pytest.mark.parametrize("killing", [False, True], ids=["quiet", "killing"])
def test_short_containers_in_a_crowd(engine: Engine, killing: bool) -> None:
    if not engine.is_dockpy:
        pytest.skip("about dockpy's own processes")
    engine.cli("run", "--rm", engine.image, "true")
    before = left_behind(engine)
    wrong: list[str] = []

    def client(number: int) -> None:
        for turn in range(RUNS_EACH):
            code = (number * 31 + turn) % 200
            script = f"i=0; while [ $i -lt 50 ]; do echo {number} {turn} $i; i=$((i+1)); done; exit {code}"
            name = engine.name()
            made = engine.cli("run", "-d", "--name", name, engine.image, "sh", "-c", script)
            if made.code != 0:
                # A daemon killed in the middle of a request: docker's client would fail as well.
                if not killing:
                    wrong.append(f"run: {made}")
                engine.cli("rm", "-f", name)
                continue
            told = engine.cli("wait", name)
            while killing and told.code != 0:
                told = engine.cli("wait", name)
            logs = engine.cli("logs", name)
            while killing and logs.code != 0:
                logs = engine.cli("logs", name)
            if told.out != f"{code}\n":
                wrong.append(f"wait: {told} instead of {code}")
            if logs.out != "".join(f"{number} {turn} {i}\n" for i in range(50)):
                wrong.append(f"logs of {name}: {logs.out!r}")
            while engine.cli("rm", "-f", name).code != 0 and killing:
                if "No such container" in engine.cli("rm", name).err:
                    break

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    chance = random.Random(7)
    while any(thread.is_alive() for thread in threads):
        time.sleep(1.0 + chance.random())
        if killing:
            rows = status(engine)["processes"]
            for role in chance.choice((["daemon"], ["keeper"], ["daemon", "keeper"])):
                for row in rows:
                    if row["role"] == role and isinstance(row["pid"], int):
                        try:
                            os.kill(row["pid"], signal.SIGKILL)
                        except ProcessLookupError:
                            pass
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:5]
    assert settled(engine, before) == {}
