"""Two builds of the file on one store: the newer one replaces what the older one has started, never the reverse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.e2e.engines import Engine

COUNT = (
    "trap 'over=1' USR1; i=0; while [ -z $over ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 7"
)


@pytest.fixture(scope="session")
def older_file(place: Path, built_file: Path) -> Path:
    """The same sources, built as if they had been committed long ago."""
    output = place / "older" / "dockpy"
    python = ROOT / "build/.venv/bin/python3"
    subprocess.run(
        [python if python.exists() else sys.executable, ROOT / "build/build.py", "--force", "--output", output],
        env={**os.environ, "SOURCE_DATE_EPOCH": "86400"},
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    output.parent.chmod(0o755)
    return output


@pytest.fixture
def builds(engine: Engine, older_file: Path) -> Iterator[tuple[Engine, Engine]]:
    """(older, newer) on a store of their own."""
    if not engine.is_dockpy:
        pytest.skip("dockpy's own")
    store = f"{engine.environ['HOME']}/builds"
    newer = replace(engine, environ={**engine.environ, "DOCKPY_STORE": store})
    older = replace(newer, command=[str(older_file)])
    yield older, newer
    rows = newer.cli("ps", "-aq").out.split()
    if rows:
        newer.cli("rm", "-f", *rows)
    newer.cli("daemon", "stop")
    shutil.rmtree(store, ignore_errors=True)


def status(engine: Engine) -> dict[str, object]:
    found = engine.cli("daemon", "status", "--format", "json")
    assert found.code == 0, found.err
    raw: dict[str, object] = json.loads(found.out)
    return raw


def test_a_newer_build_replaces_daemon_and_keeper_under_running_containers(
    builds: tuple[Engine, Engine],
) -> None:
    older, newer = builds
    made = older.cli("run", "-d", "--name", "counts", "dockpy.builtin/host", "sh", "-c", COUNT)
    assert made.code == 0, made.err
    before = status(older)
    follower = older.start("logs", "-f", "counts", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    waiter = older.start("wait", "counts", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.5)
    listed = newer.cli("ps", "--format", "{{.Names}}")
    assert (listed.code, listed.out) == (0, "counts\n"), listed.err
    after = status(newer)
    assert str(before["build"]).startswith("19700102000000-")
    assert str(after["build"]) > str(before["build"])
    roles = {row["role"]: row["pid"] for row in before["processes"]}  # type: ignore[attr-defined]  # JSON
    now = {row["role"]: row["pid"] for row in after["processes"]}  # type: ignore[attr-defined]  # JSON
    assert now["shim"] == roles["shim"]
    assert now["daemon"] != roles["daemon"]
    assert now["keeper"] != roles["keeper"]
    entered = newer.cli("exec", "counts", "echo", "inside")
    assert (entered.code, entered.out) == (0, "inside\n"), entered.err
    assert newer.cli("kill", "-s", "USR1", "counts").code == 0
    # Clients of the older build go on, since they were served before.
    out, err = follower.communicate(timeout=20)
    numbers = out.decode().split()
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)] and len(numbers) > 5, err
    assert waiter.communicate(timeout=20)[0] == b"7\n"


def test_an_older_build_is_refused_with_a_sentence(builds: tuple[Engine, Engine]) -> None:
    older, newer = builds
    assert newer.cli("run", "--rm", "dockpy.builtin/host", "true").code == 0
    running = status(newer)
    refused = older.cli("ps")
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert "is of a newer build" in refused.err
    assert "'dockpy daemon stop'" in refused.err
    assert status(newer)["processes"] == running["processes"]
    assert older.cli("daemon", "status").code == 0
    # Who wants the older one back says so.
    assert older.cli("daemon", "stop").code == 0
    assert older.cli("ps").code == 0
    assert str(status(older)["build"]).startswith("19700102000000-")


def test_ten_newer_clients_at_once_replace_it_once(builds: tuple[Engine, Engine]) -> None:
    older, newer = builds
    assert (
        older.cli("run", "-d", "--name", "sleeps", "dockpy.builtin/host", "sleep", "60").code == 0
    )
    clients = [newer.start("ps", "-q", stdout=subprocess.PIPE) for _ in range(10)]
    outputs = {client.communicate(timeout=30)[0] for client in clients}
    assert len(outputs) == 1
    assert outputs != {b""}
    log = newer.cli("daemon", "logs").out
    assert log.count(" serving ") == 2, log
