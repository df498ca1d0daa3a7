"""`system check`: no docker command, so the cases are dockpy's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.engines import Engine


def test_damage_is_told_and_repaired(engine: Engine) -> None:
    """With files of other owners, of modes that nobody may read, and a container that runs."""
    if not engine.is_dockpy:
        pytest.skip("docker has no system check")
    name = engine.name()
    script = "mkdir /d; echo x > /d/f; chmod 0 /d /d/f; chown 1000 /d/f 2>/dev/null; sleep 1000"
    ran = engine.cli("run", "-d", "--name", name, engine.image, "sh", "-c", script)
    assert ran.code == 0, ran.err
    sound = engine.cli("system", "check")
    assert (sound.code, sound.out) == (0, ""), sound
    assert sound.err == "Everything is as it should be.\n"
    store = engine.environ["DOCKPY_STORE"]
    record = Path(store, "containers", ran.out.strip(), "state.json")
    record.write_bytes(b"{torn")
    told = engine.cli("system", "check", "--format", "json")
    (line,) = map(json.loads, told.out.splitlines())
    assert (told.code, line["Kind"], line["Subject"], line["Repaired"]) == (
        1,
        "record",
        str(record),
        False,
    )
    mended = engine.cli("system", "check", "--repair")
    assert mended.code == 0, mended
    assert f"record {record}: it is not JSON" in mended.out
    assert mended.err == "1 of 1 findings are repaired.\n"
    assert engine.cli("system", "check", "--content").code == 0
    assert engine.cli("inspect", "-f", "{{.State.Status}}", name).out == "running\n"
    assert engine.cli("rm", "-f", name).code == 0
