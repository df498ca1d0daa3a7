"""`system reset`: nothing is left of a store, whatever state it is in and whoever owns its files."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.engines import Engine


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (
            b"Z",
            b"X",
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_is_left_of_a_damaged_store(engine: Engine, busybox_archive: Path) -> None:
    """Processes, files of other owners, folders that nobody may enter, sockets and mounts."""
    if not engine.is_dockpy:
        pytest.skip("docker has no system reset")
    store = Path(engine.environ["DOCKPY_STORE"] + "-reset")
    env = {"DOCKPY_STORE": str(store)}
    assert engine.cli("load", "-i", str(busybox_archive), env=env).code == 0
    script = "mkdir -p /d/e; echo x > /d/e/f; chown -R 1000 /d 2>/dev/null; chmod 0 /d/e/f /d/e /d; exec sleep 1000"
    for name, more in (("one", ()), ("two", ("--pid", "host", "--restart", "always"))):
        ran = engine.cli(
            "run", "-d", "--name", name, *more, engine.image, "sh", "-c", script, env=env
        )
        assert ran.code == 0, ran.err
    rows = json.loads(engine.cli("daemon", "status", "--format", "json", env=env).out)["processes"]
    pids = [row["pid"] for row in rows if row["role"] == "shim"]
    pids += [
        int(engine.cli("inspect", "-f", "{{.State.Pid}}", name, env=env).out)
        for name in ("one", "two")
    ]
    for row in rows:
        if row["role"] in ("keeper", "daemon"):
            # One that does not answer, and one that is not there.
            os.kill(row["pid"], signal.SIGSTOP if engine.label == "plain" else signal.SIGKILL)
    (store / "daemon.json").write_bytes(b"{torn")
    for path in [*store.glob("containers/*/*.json"), *store.glob("snapshots/chains/*")]:
        path.write_bytes(b"\0")
    asked = engine.cli("system", "reset", input=b"n\n", env=env)
    assert asked.code == 0
    assert asked.out.startswith(f"WARNING! This will remove {store} with:\n  - all containers")
    assert asked.out.endswith("Are you sure you want to continue? [y/N] ")
    assert all(alive(pid) for pid in pids)
    done = engine.cli("system", "reset", "-f", env=env)
    assert (done.code, done.out, done.err) == (0, f"Removed {store}\n", "")
    assert not store.exists()
    end = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert [pid for pid in (*pids, *(row["pid"] for row in rows)) if alive(pid)] == []
    assert str(store) not in Path("/proc/self/mountinfo").read_text()
    # The file unpacks itself there at every command; that goes, too.
    assert engine.cli("system", "reset", "-f", env=env).code == 0
    assert not store.exists()


def test_what_is_not_of_dockpy_stays(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker has no system reset")
    store = Path(engine.environ["DOCKPY_STORE"] + "-home")
    env = {"DOCKPY_STORE": str(store)}
    ran = engine.cli("run", "-d", "dockpy.builtin/hello", env=env)
    assert ran.code == 0, ran.err
    (store / "letter").write_text("dear")
    (store / "registry").mkdir()  # of `registry serve`
    done = engine.cli("system", "reset", "-f", env=env)
    assert (done.code, done.err) == (1, f"{store}/letter stays: it is not of dockpy\n")
    assert os.listdir(store) == ["letter"]
