"""Health checks of running containers, also when the daemon is killed between and under them."""

from __future__ import annotations

import json
import os
import time
import urllib.parse

from tests.daemon.conftest import Engine, eventually
from tests.daemon.test_restart import next_daemon, on_disk

S = 1_000_000_000


def checked(engine: Engine, test: str, **options: object) -> str:
    health = {"Test": ["CMD-SHELL", test], "Interval": S // 5, "Timeout": S, **options}
    return engine.run("sleep", "60", Healthcheck=health)


def health(engine: Engine, container: str) -> dict[str, object]:
    raw = engine.state(container)["Health"]
    assert isinstance(raw, dict)
    return raw


def log(engine: Engine, container: str) -> list[dict[str, object]]:
    raw = health(engine, container)["Log"]
    assert isinstance(raw, list)
    return raw


def becomes(engine: Engine, container: str, status: str) -> None:
    eventually(lambda: health(engine, container)["Status"] == status)


def row(engine: Engine, container: str, **filters: str) -> dict[str, object] | None:
    wanted = {"id": [container], **{key: [value] for key, value in filters.items()}}
    text = urllib.parse.quote(json.dumps(wanted))
    rows = engine.ask("GET", f"/containers/json?filters={text}").json()
    assert isinstance(rows, list)
    return rows[0] if rows else None


def test_from_starting_to_healthy_and_back(engine: Engine) -> None:
    before = int(time.time())
    container = checked(engine, "test -e /tmp/well && echo fine", Retries=2)
    assert health(engine, container) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    found = row(engine, container, health="starting")
    assert found is not None and str(found["Status"]).endswith("(health: starting)")
    becomes(engine, container, "unhealthy")
    created = engine.ask(
        "POST", f"/containers/{container}/exec", {"Cmd": ["touch", "/tmp/well"]}
    ).json()
    assert isinstance(created, dict)
    engine.ask("POST", f"/exec/{created['Id']}/start", {"Detach": True})
    becomes(engine, container, "healthy")
    assert log(engine, container)[-1]["Output"] == "fine\n"
    assert health(engine, container)["FailingStreak"] == 0
    found = row(engine, container, health="healthy")
    assert found is not None and str(found["Status"]).endswith("(healthy)")
    assert row(engine, container, health="unhealthy") is None
    eventually(lambda: len(log(engine, container)) == 5)
    until = time.time_ns() // S + 1
    filters = urllib.parse.quote(json.dumps({"container": [container]}))
    raw = engine.ask("GET", f"/events?since={before}&until={until}&filters={filters}").body
    actions = [json.loads(line)["Action"] for line in raw.splitlines()]
    probe = "/bin/sh -c test -e /tmp/well && echo fine"
    assert actions[2:5] == [f"exec_create: {probe}", f"exec_start: {probe}", "exec_die"]
    told = [action for action in actions if action.startswith("health_status")]
    assert told == ["health_status: unhealthy", "health_status: healthy"]
    engine.ask("POST", f"/containers/{container}/stop?t=0")
    assert health(engine, container)["Status"] == "unhealthy"  # docker's word for unwatched


def processes(engine: Engine, container: str) -> list[str]:
    raw = engine.ask("GET", f"/containers/{container}/top").json()
    assert isinstance(raw, dict)
    return [line[-1] for line in raw["Processes"]]


def test_a_probe_that_takes_too_long_is_killed_with_its_children(engine: Engine) -> None:
    test = "echo begun; sleep 47; true"
    container = checked(engine, test, Timeout=S // 4, Retries=1, Interval=S // 2)
    becomes(engine, container, "unhealthy")
    result = log(engine, container)[0]
    assert result["ExitCode"] == -1
    assert result["Output"] == "Health check exceeded timeout (250ms): begun\n"
    assert "sleep 47" not in " ".join(processes(engine, container))


def test_long_output_is_cut_and_a_missing_program_is_a_failure(engine: Engine) -> None:
    container = checked(engine, "i=0; while [ $i -lt 1000 ]; do echo 0123456789; i=$((i+1)); done")
    becomes(engine, container, "healthy")
    output = str(log(engine, container)[0]["Output"])
    assert len(output) == 4096 + len("...")
    container = engine.run(
        "sleep",
        "60",
        Healthcheck={"Test": ["CMD", "no-such-thing"], "Interval": S // 10, "Retries": 1},
    )
    becomes(engine, container, "unhealthy")
    assert "executable file not found" in str(log(engine, container)[0]["Output"])
    assert log(engine, container)[0]["ExitCode"] == -1


def test_none_is_none(engine: Engine) -> None:
    container = engine.run("sleep", "60", Healthcheck={"Test": ["NONE"]})
    assert "Health" not in engine.state(container)
    assert row(engine, container, health="none") is not None


def test_a_next_daemon_goes_on_by_itself(engine: Engine) -> None:
    container = checked(engine, "cat /proc/uptime")
    becomes(engine, container, "healthy")

    def newest() -> object:
        known = on_disk(engine, container, "health")["log"]
        assert isinstance(known, list)
        return known[-1]["start"]

    next_daemon(engine)
    before = newest()
    eventually(lambda: newest() != before)  # nobody has asked for anything
    engine.start()
    assert health(engine, container)["Status"] == "healthy"


def test_a_probe_under_a_killed_daemon_is_ended_by_the_next(engine: Engine) -> None:
    container = checked(engine, "sleep 48", Timeout=60 * S)
    eventually(lambda: "sleep 48" in " ".join(processes(engine, container)))
    (old,) = [pid for pid in os.listdir("/proc") if pid.isdigit() and _runs(pid, b"sleep\x0048")]
    next_daemon(engine)
    eventually(lambda: not _runs(old, b"sleep\x0048"))  # a zombie: pid 1 does not reap


def _runs(pid: str, command: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().startswith(command)
    except OSError:
        return False


def test_a_container_that_is_removed_under_its_probe(engine: Engine) -> None:
    container = checked(engine, "sleep 3")
    eventually(lambda: "sleep 3" in " ".join(processes(engine, container)))
    before = time.monotonic()
    assert engine.ask("DELETE", f"/containers/{container}?force=1").status == 204
    assert time.monotonic() - before < 2
