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


@pytest.mark.parametrize("user", ["single", "ranged", "root"])
def test_the_daemon_is_a_service_with_a_control_group_of_its_own(
    machine: Machine, user: str
) -> None:
    def shell(script: str) -> str:
        done = machine.shell(script, user=user)
        assert done.code == 0, done.err
        return done.out.strip()

    def group(role: str) -> str:
        return shell(
            "pid=$(dockpy daemon status --format '{{range .processes}}"
            f'{{{{if eq .role "{role}"}}}}{{{{.pid}}}} {{{{end}}}}{{{{end}}}}\'); '
            "cut -d: -f3 /proc/${pid%% *}/cgroup"
        )

    shell("dockpy load -qi /lab/busybox.tar")
    name = shell(f"dockpy run -d {IMAGE} sleep 1000")
    above = "system.slice" if user == "root" else "user@"
    for role in ("keeper", "daemon", "shim"):
        assert above in group(role) and "/dockpy-" in group(role), group(role)
    manager = "systemctl" if user == "root" else "systemctl --user"
    unit = shell(f"{manager} list-units --plain --no-legend 'dockpy-*' | cut -d' ' -f1")
    assert unit.endswith(".service")

    # What systemd stops is the service: containers go on, and the next command finds them.
    shell(f"{manager} stop {unit}")
    assert shell(f"dockpy inspect -f '{{{{.State.Running}}}}' {name}") == "true"
    assert unit.partition(".")[0] in group("keeper")
    shell(f"dockpy rm -f {name} && dockpy daemon stop")
    assert shell(f"{manager} list-units --plain --no-legend 'dockpy-*'") == ""
