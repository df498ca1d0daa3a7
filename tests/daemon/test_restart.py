"""Restart policies, also with daemons and shims that are killed in the middle, and after a reboot."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import pytest

from dockpy import ids
from tests.daemon.conftest import Engine, eventually, kill

FAIL = ("sh", "-c", "exit 3")


def policy(name: str, most: int = 0) -> dict[str, object]:
    return {"RestartPolicy": {"Name": name, "MaximumRetryCount": most}}


def restarts(engine: Engine, container: str) -> int:
    return int(str(engine.inspect(container)["RestartCount"]))


def reached(engine: Engine, container: str, status: str) -> Callable[[], bool]:
    return lambda: engine.state(container)["Status"] == status


def next_daemon(engine: Engine) -> None:
    before = engine.record()["daemon"]["pid"]
    kill(before)
    eventually(lambda: engine.record()["daemon"]["pid"] != before)


def on_disk(engine: Engine, container: str, name: str) -> dict[str, object]:
    with open(f"{engine.paths.containers}/{container}/{name}.json", encoding="utf-8") as file:
        raw: dict[str, object] = json.load(file)
    return raw


def test_on_failure_ends_at_its_count(engine: Engine) -> None:
    container = engine.run(*FAIL, host=policy("on-failure", 2))
    eventually(reached(engine, container, "exited"))
    assert restarts(engine, container) == 2
    state = engine.state(container)
    assert (state["ExitCode"], state["Running"], state["Restarting"]) == (3, False, False)


def test_on_failure_leaves_a_success_alone(engine: Engine) -> None:
    container = engine.run("true", host=policy("on-failure"))
    assert engine.wait(container) == 0
    assert engine.state(container)["Status"] == "exited"


def backing_off(engine: Engine) -> str:
    """A container in a wait of 0.8 s or more."""
    container = engine.run(*FAIL, host=policy("always"))
    eventually(
        lambda: restarts(engine, container) >= 4 and reached(engine, container, "restarting")()
    )
    return container


def test_what_a_restarting_container_shows_and_refuses(engine: Engine) -> None:
    container = backing_off(engine)
    state = engine.state(container)
    assert (state["Running"], state["Restarting"], state["Pid"], state["ExitCode"]) == (
        True,
        True,
        0,
        3,
    )
    rows = engine.ask("GET", "/containers/json").json()
    assert isinstance(rows, list)
    (row,) = rows
    assert row["State"] == "restarting"
    assert row["Status"].startswith("Restarting (3) ")
    assert engine.ask("POST", f"/containers/{container}/start").status == 304
    answer = engine.ask("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})
    assert answer.status == 409
    assert "is restarting, wait until the container is running" in answer.message
    answer = engine.ask("DELETE", f"/containers/{container}")
    assert answer.status == 409
    assert "stop the container before removing or force remove" in answer.message
    assert engine.ask("DELETE", f"/containers/{container}?force=1").status == 204


@pytest.mark.parametrize("verb", ["stop", "kill", "kill?signal=USR1"])
def test_a_user_ends_the_waiting(engine: Engine, verb: str) -> None:
    container = backing_off(engine)
    count = restarts(engine, container)
    before = time.monotonic()
    assert engine.ask("POST", f"/containers/{container}/{verb}").status == 204
    assert engine.wait(container) == 3
    assert time.monotonic() - before < 0.5
    time.sleep(1.7)
    assert engine.state(container)["Status"] == "exited"
    assert restarts(engine, container) == count


def test_a_start_by_hand_counts_from_the_beginning(engine: Engine) -> None:
    container = backing_off(engine)
    assert engine.ask("POST", f"/containers/{container}/restart").status == 204
    assert restarts(engine, container) <= 1


def test_a_stopped_one_stays_stopped_and_a_failing_one_comes_back(engine: Engine) -> None:
    container = engine.run("sleep", "60", host=policy("always"))
    assert engine.ask("POST", f"/containers/{container}/stop?t=0").status == 204
    time.sleep(0.4)
    assert engine.state(container)["Status"] == "exited"
    assert on_disk(engine, container, "restart") == {"begun": True, "stopped": True}
    engine.ask("POST", f"/containers/{container}/start")
    assert on_disk(engine, container, "restart") == {"begun": True, "stopped": False}
    pid = engine.state(container)["Pid"]
    os.kill(int(str(pid)), 9)
    eventually(lambda: engine.state(container)["Pid"] not in (0, pid))
    assert restarts(engine, container) == 1


def test_the_next_daemon_goes_on_waiting(engine: Engine) -> None:
    container = backing_off(engine)
    count = restarts(engine, container)
    next_daemon(engine)
    # Nobody asks anything: the keeper's next daemon does it by itself.
    eventually(lambda: int(str(on_disk(engine, container, "state")["restarts"])) > count)
    engine.start()
    assert restarts(engine, container) > count
    engine.ask("DELETE", f"/containers/{container}?force=1")


def test_an_exit_that_no_daemon_saw_is_followed_by_a_restart(engine: Engine) -> None:
    container = engine.run("sh", "-c", "sleep 0.3; exit 4", host=policy("on-failure", 1))
    next_daemon(engine)
    eventually(lambda: on_disk(engine, container, "state")["restarts"] == 1)
    engine.start()
    eventually(reached(engine, container, "exited"))
    assert (restarts(engine, container), engine.state(container)["ExitCode"]) == (1, 4)


def test_a_killed_shim_counts_as_an_end(engine: Engine) -> None:
    container = engine.run("sleep", "60", host=policy("on-failure"))
    raw = engine.ask("GET", "/dockpy/status").json()
    assert isinstance(raw, dict)
    (shim,) = [one["pid"] for one in raw["processes"] if one.get("container") == container]
    kill(shim)
    eventually(lambda: restarts(engine, container) == 1 and reached(engine, container, "running")())
    assert engine.state(container)["Error"] == ""


def test_a_start_that_fails_counts_too(engine: Engine) -> None:
    """docker gives up there; whoever mounts a source a second too late would not want that."""
    folder = f"{engine.paths.store}/source"
    os.makedirs(folder)
    host = {**policy("on-failure", 3), "Binds": [f"{folder}:/mnt"]}
    container = engine.run("sh", "-c", "sleep 0.2; exit 5", host=host)
    os.rename(folder, folder + ".away")
    eventually(reached(engine, container, "exited"))
    state = engine.state(container)
    assert restarts(engine, container) == 3
    assert "bind source path does not exist" in str(state["Error"])
    assert state["ExitCode"] in (127, 128)


def reboot(engine: Engine) -> None:
    """Everything is killed and the runtime folder is gone; the files are of another boot."""
    record = engine.record()
    raw = engine.ask("GET", "/dockpy/status").json()
    assert isinstance(raw, dict)
    os.kill(record["keeper"]["pid"], 19)
    kill(record["daemon"]["pid"])
    kill(record["keeper"]["pid"])
    for one in raw["processes"]:
        if one["role"] == "shim":
            kill(one["pid"])
    for folder, _, names in os.walk(engine.paths.store):
        for name in names:
            if name in ("shim.json", "exit.json", "state.json", "session"):
                path = f"{folder}/{name}"
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                boot = ids.boot_id()
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text.replace(boot, "00000000-0000-0000-0000-000000000000"))


def test_after_a_reboot_what_should_run_runs(engine: Engine) -> None:
    always = engine.run("sleep", "60", host=policy("always"))
    stopped = engine.run("sleep", "60", host=policy("always"))
    unless = engine.run("sleep", "60", host=policy("unless-stopped"))
    unless_stopped = engine.run("sleep", "60", host=policy("unless-stopped"))
    never = engine.run("sleep", "60")
    created = engine.create("sleep", "60", host=policy("always"))
    for container in (stopped, unless_stopped):
        engine.ask("POST", f"/containers/{container}/kill")
        engine.wait(container)
    reboot(engine)
    # A power cut may lose what was not synced.
    for container in (always, stopped, unless, unless_stopped):
        os.unlink(f"{engine.paths.containers}/{container}/state.json")
    engine.start()
    for container in (always, stopped, unless):
        eventually(reached(engine, container, "running"))
    time.sleep(0.3)
    assert engine.state(unless_stopped)["Status"] != "running"
    assert engine.state(created)["Status"] == "created"
    assert (engine.state(never)["Status"], engine.state(never)["ExitCode"]) == ("exited", 255)


def test_a_daemon_that_was_stopped_and_started_starts_always_ones(engine: Engine) -> None:
    container = engine.run("sleep", "60", host=policy("always"))
    engine.ask("POST", f"/containers/{container}/kill")
    engine.wait(container)
    next_daemon(engine)
    engine.start()
    time.sleep(0.3)
    assert engine.state(container)["Status"] == "exited"  # a revival is no start
    keeper = engine.record()["keeper"]["pid"]
    engine.ask("POST", "/dockpy/stop")
    eventually(lambda: not os.path.exists(f"/proc/{keeper}"))
    engine.start()
    eventually(reached(engine, container, "running"))


def test_update_changes_the_policy(engine: Engine) -> None:
    container = engine.run("sh", "-c", "sleep 0.3; exit 3")
    answer = engine.ask("POST", f"/containers/{container}/update", policy("on-failure", 1))
    assert (answer.status, answer.json()) == (200, {"Warnings": []})
    eventually(lambda: restarts(engine, container) == 1 and reached(engine, container, "exited")())
    answer = engine.ask("POST", f"/containers/{container}/update", policy("always", 1))
    assert answer.status == 400
    removed = engine.run("sleep", "60", host={"AutoRemove": True})
    answer = engine.ask("POST", f"/containers/{removed}/update", policy("always"))
    assert answer.message.startswith(f"Cannot update container {removed}: Restart policy cannot ")
