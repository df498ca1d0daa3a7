"""Health checks by flags and by the image."""

from __future__ import annotations

import time

import pytest

from tests.e2e.engines import Engine
from tests.e2e.test_restart import eventually

STATUS = "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}"


def test_flags_make_a_check(engine: Engine) -> None:
    name = engine.name()
    flags = ["--health-cmd", "echo checked; test ! -e /sick", "--health-interval", "300ms"]
    flags += ["--health-retries", "2", "--health-timeout", "5s"]
    started = engine.cli("run", "-d", "--name", name, *flags, engine.image, "sleep", "60")
    assert started.code == 0, started.err
    assert "(health: starting)" in engine.cli("ps", "--filter", f"name={name}").out
    eventually(engine, name, STATUS, "healthy")
    assert "(healthy)" in engine.cli("ps", "--filter", f"name={name}").out
    form = "{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}"
    assert engine.cli("inspect", "-f", form, name).out.rstrip() == "0 checked"
    engine.cli("exec", name, "touch", "/sick")
    eventually(engine, name, STATUS, "unhealthy")
    assert engine.cli("ps", "-q", "--filter", f"name={name}", "--filter", "health=unhealthy").out
    engine.cli("rm", "-f", name)


def test_the_image_says_it_and_flags_change_or_end_it(engine: Engine) -> None:
    image = f"localhost/{engine.name()}:1"
    name = engine.name()
    changes = ["-c", "HEALTHCHECK --interval=200ms --retries=1 CMD false", "-c", "CMD sleep 60"]
    made = engine.name()
    assert engine.cli("create", "--name", made, engine.image).code == 0
    if engine.cli("commit", *changes, made, image).code != 0:
        engine.cli("rm", made)
        pytest.skip("commit is not served by this build")
    engine.cli("rm", made)
    engine.cli("run", "-d", "--name", name, image)
    eventually(engine, name, STATUS, "unhealthy")
    engine.cli("rm", "-f", name)
    engine.cli("run", "-d", "--name", name, "--no-healthcheck", image)
    time.sleep(0.5)
    assert engine.cli("inspect", "-f", STATUS, name).out == "none\n"
    engine.cli("rm", "-f", name)
    engine.cli("run", "-d", "--name", name, "--health-cmd", "true", image)
    eventually(engine, name, STATUS, "healthy")
    engine.cli("rm", "-f", name)
    engine.cli("rmi", image)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--health-cmd", "x", "--health-interval", "1ns"], "cannot be less than 1ms"),
        (["--health-cmd", "x", "--health-retries=-1"], "--health-retries cannot be negative"),
        (["--health-cmd", "x", "--no-healthcheck"], "--no-healthcheck conflicts with --health-*"),
    ],
)
def test_what_means_nothing_is_refused(engine: Engine, flags: list[str], text: str) -> None:
    result = engine.cli("run", "--rm", *flags, engine.image, "true")
    assert result.code == 125
    assert text in result.err
