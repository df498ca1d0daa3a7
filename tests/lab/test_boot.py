"""`daemon enable` on a machine with systemd: what restarts always is there after its start, without any command."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.lab.machine import Machine

IMAGE = "localhost/busybox:latest"


def test_containers_start_with_the_machine(new_machine: Callable[..., Machine]) -> None:
    machine = new_machine()
    for user in ("single", "root"):
        done = machine.shell(
            # An emulated machine may take longer for a daemon than a command waits.
            "for try in 1 2 3 4 5; do dockpy ps && break; done; dockpy load -qi /lab/busybox.tar && "
            f"dockpy run -d --restart always --name up {IMAGE} sleep 1000 && dockpy daemon enable",
            user=user,
        )
        assert done.code == 0, done.err
        assert "-boot.service" in done.out
        assert ("loginctl enable-linger single" in done.out) == (user == "single")
    assert machine.shell("loginctl enable-linger single && sync").code == 0
    machine.cut()
    machine.boot()
    end = time.monotonic() + 120
    while machine.shell("pgrep -cx dockpy-shim").out.strip() != "2" and time.monotonic() < end:
        time.sleep(1)
    users = machine.shell("ps -o user= -C dockpy-shim | sort").out.split()
    assert users == ["root", "single"], machine.shell("journalctl -b -n 50").out
    for user in ("single", "root"):
        told = machine.shell("dockpy inspect -f '{{.State.Running}}' up", user=user)
        assert told.out == "true\n", told.err
        off = machine.shell("dockpy daemon disable && dockpy system reset -f", user=user)
        assert off.out.startswith("Disabled\nRemoved "), off
    assert machine.shell("find / -xdev -name '*-boot.service'").out == ""
    machine.stop()
