"""What is written for the machine's start, as systemd and cron read it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dockpy.client import boot

FILE = '/home/a b/100% "dockpy"'
STORE = "/home/a b/store%"
ENVIRON = {"DOCKPY_STORE": STORE, "HOME": "/home/a b", "DOCKPY_TIER": "single"}


def test_the_unit_starts_the_daemon_of_that_store() -> None:
    text = boot.unit_text(FILE, STORE, ENVIRON, 1000)
    assert 'ExecStart="/home/a b/100%% \\"dockpy\\"" daemon start\n' in text
    assert 'Environment="DOCKPY_STORE=/home/a b/store%%"\n' in text
    assert 'Environment="DOCKPY_TIER=single"\n' in text
    assert "HOME" not in text
    assert "KillMode=process\n" in text
    assert text.endswith("[Install]\nWantedBy=default.target\n")
    assert "WantedBy=multi-user.target" in boot.unit_text(FILE, STORE, {}, 0)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("uid", [0, 1000])
def test_systemd_finds_no_fault_with_it(tmp_path: Path, uid: int) -> None:
    program = tmp_path / "dock py%"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "dockpy-boot.service"
    unit.write_text(boot.unit_text(str(program), STORE, ENVIRON, uid))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert str(unit.name) not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_enabling_is_what_systemctl_does(tmp_path: Path) -> None:
    folder = boot.unit_folder({}, 1000, str(tmp_path))
    assert folder == f"{tmp_path}/.config/systemd/user"
    for _ in range(2):
        boot.enable_unit(folder, "x.service", "text", 1000)
    link = Path(folder, "default.target.wants", "x.service")
    assert (os.readlink(link), link.read_text()) == (f"{folder}/x.service", "text")
    assert boot.disable_unit(folder, "x.service", 1000) is True
    assert boot.disable_unit(folder, "x.service", 1000) is False
    assert not os.path.lexists(link)


def test_a_line_of_the_crontab_comes_and_goes_alone() -> None:
    mine = "# jobs\n\n0 4 * * * backup\n"
    line = boot.cron_line(FILE, STORE, ENVIRON)
    assert line.startswith(
        "@reboot DOCKPY_STORE='/home/a b/store\\%' DOCKPY_TIER=single '/home/a b/100\\%"
    )
    other = boot.cron_line(FILE, "/other", {})
    table = boot.with_line(boot.with_line(mine, STORE, line), "/other", other)
    assert table == f"{mine}{line}\n{other}\n"
    assert boot.with_line(table, STORE, line) == f"{mine}{other}\n{line}\n"
    assert boot.with_line(boot.with_line(table, STORE, ""), "/other", "") == mine
