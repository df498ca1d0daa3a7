"""The lab's power cut loses what a machine would lose, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.machine import Machine


@pytest.mark.parametrize("journal", [False, True])
def test_a_cut_keeps_what_was_synced(new_machine: Callable[..., Machine], journal: bool) -> None:
    machine = new_machine(journal=journal)
    assert machine.shell("echo kept > /root/kept && sync && echo lost > /root/lost").code == 0
    before = machine.run("cat", "/proc/sys/kernel/random/boot_id").out
    machine.cut()
    machine.boot()
    assert machine.run("cat", "/proc/sys/kernel/random/boot_id").out != before
    assert machine.run("cat", "/root/kept").out == "kept\n"
    assert "lost" not in machine.run("cat", "/root/lost").out
    machine.stop()
