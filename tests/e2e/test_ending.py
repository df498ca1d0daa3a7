"""`run --lease` and `--timeout`: containers that end though nobody stops them, also without a daemon."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.e2e.engines import Engine

STAYS = ("sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done")


def state(engine: Engine, name: str) -> dict[str, object]:
    found = engine.cli("inspect", "--format", "{{json .State}}", name)
    assert found.code == 0, found.err
    result: dict[str, object] = json.loads(found.out)
    return result


def processes(engine: Engine, *roles: str) -> list[int]:
    told = json.loads(engine.cli("daemon", "status", "--format", "json").out)
    return [entry["pid"] for entry in told["processes"] if entry["role"] in roles]


def test_a_lease_and_a_timeout_hold_without_a_daemon(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker has neither")
    timed, leased = engine.name(), engine.name()
    try:
        begun = time.monotonic()
        made = engine.cli("run", "-d", "--name", timed, "--timeout", "2s", engine.image, *STAYS)
        assert made.code == 0, made.err
        client = engine.start("run", "--name", leased, "--lease", engine.image, *STAYS)
        while engine.cli("logs", leased).out != "up\n":
            assert time.monotonic() - begun < 60
        for pid in processes(engine, "daemon", "keeper"):
            os.kill(pid, signal.SIGKILL)
        client.kill()
        client.wait()
        time.sleep(max(begun + 2.2 - time.monotonic(), 0.2))
        ended = state(engine, leased)
        assert (ended["Status"], ended["ExitCode"]) == ("exited", 3)
        ended = state(engine, timed)
        assert (ended["Status"], ended["ExitCode"]) == ("exited", 124)
        assert ended["Error"] == "its time (--timeout 2s) was over"
        refused = engine.cli("start", leased)
        assert (refused.code, "was made with --lease" in refused.err) == (1, True)
    finally:
        engine.cli("rm", "-f", timed, leased)
    ran = engine.cli("run", "--rm", "--timeout", "200ms", engine.image, *STAYS)
    assert (ran.code, ran.out) == (124, "up\n")
    for flags in ("-d --lease", "--lease --restart always", "--timeout 1s --restart always"):
        refused = engine.cli("run", *flags.split(), engine.image, "true")
        assert (refused.code, "conflicting options" in refused.err) == (125, True), flags
