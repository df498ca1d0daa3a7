"""The built file as ordinary users of a machine with systemd."""

from __future__ import annotations

import pytest

from tests.lab.machine import Machine

IMAGE = "localhost/busybox:latest"


@pytest.mark.parametrize("user", ["single", "ranged"])
def test_run_in_a_login_session(machine: Machine, user: str) -> None:
    loaded = machine.shell("dockpy load -qi /lab/busybox.tar", user=user)
    assert loaded.code == 0, loaded.err
    ran = machine.shell(f"dockpy run --rm {IMAGE} sh -c 'id -u; echo seen'", user=user)
    assert (ran.code, ran.out) == (0, "0\nseen\n"), ran.err
    tier = machine.shell("dockpy daemon status --format '{{json .}}'", user=user).out
    assert ("single" if user == "single" else "subuid") in tier
    assert machine.shell("dockpy daemon stop", user=user).code == 0


def test_the_machine_is_what_the_lab_says(machine: Machine) -> None:
    assert machine.run("stat", "-fc", "%T", "/sys/fs/cgroup").out == "cgroup2fs\n"
    delegated = machine.user_service(
        "single", "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cgroup.controllers"
    )
    assert "memory" in delegated.out and "pids" in delegated.out
