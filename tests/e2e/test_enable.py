"""`daemon enable` on a machine without systemd: cron, and the sentence where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dockpy.client.service import manager
from tests.e2e.conftest import missing
from tests.e2e.engines import Engine


def test_cron_starts_the_daemon(engine: Engine, folder: Path) -> None:
    if not engine.is_dockpy or engine.uid == 0:
        pytest.skip("a table of the test's own user is written")
    if manager({}, engine.uid) is not None:
        pytest.skip("a systemd runs here: the lab's case")
    if shutil.which("crontab") is None:
        missing("crontab (Debian: cron)")
    store = folder / "it's 100% mine"
    env = {"DOCKPY_STORE": str(store)}
    env["PATH"] = "/usr/bin:/bin"
    enabled = engine.cli("daemon", "enable", env=env)
    assert enabled.code == 0, enabled
    assert enabled.out == "Enabled by a line @reboot of the crontab; see it with 'crontab -l'\n"

    def table() -> str:
        done = Engine(engine.label, ["crontab"], engine.uid, engine.gid, env, False).cli("-l")
        return done.out

    line = table()
    assert line.startswith("@reboot DOCKPY_STORE=") and line.count("\n") == 1
    # As cron does it: sh, and a percent sign that a backslash keeps from being the end.
    command = line.partition(" ")[2].strip().replace("\\%", "%")
    shell = Engine(
        engine.label,
        ["sh"],
        engine.uid,
        engine.gid,
        {"HOME": engine.environ["HOME"], "PATH": env["PATH"]},
        False,
    )
    assert shell.cli("-c", command).code == 0
    assert (store / "daemon.json").exists()
    assert engine.cli("daemon", "enable", env=env).code == 0
    assert table() == line
    assert engine.cli("daemon", "disable", env=env).out == "Disabled\n"
    assert table() == ""
    assert engine.cli("daemon", "disable", env=env).out == "It was not enabled\n"
    refused = engine.cli("daemon", "enable", env={**env, "PATH": "/nowhere"})
    assert refused.code == 1
    assert refused.err.startswith("neither is possible here: no systemd runs")
    assert engine.cli("daemon", "enable", env=env).code == 0
    assert engine.cli("system", "reset", "-f", env=env).code == 0
    assert table() == ""
