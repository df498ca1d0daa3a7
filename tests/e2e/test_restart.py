"""Restart policies as a user meets them."""

from __future__ import annotations

import time

import pytest

from tests.e2e.engines import Engine


def eventually(engine: Engine, name: str, form: str, wanted: str, within: float = 15) -> None:
    deadline = time.monotonic() + within
    while (told := engine.cli("inspect", "-f", form, name).out.strip()) != wanted:
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


def test_a_failing_container_is_tried_so_often(engine: Engine) -> None:
    name = engine.name()
    args = ["run", "-d", "--name", name, "--restart", "on-failure:2", engine.image]
    assert engine.cli(*args, "sh", "-c", "echo again; exit 3").code == 0
    eventually(engine, name, "{{.State.Status}} {{.RestartCount}}", "exited 2")
    assert engine.cli("logs", name).out == "again\n" * 3
    assert engine.cli("inspect", "-f", "{{.State.ExitCode}}", name).out == "3\n"
    assert engine.cli("rm", name).code == 0


def test_a_restarting_container_is_shown_and_can_be_stopped(engine: Engine) -> None:
    name = engine.name()
    args = ["run", "-d", "--name", name, "--restart", "always", engine.image]
    engine.cli(*args, "sh", "-c", "exit 5")
    eventually(
        engine,
        name,
        "{{.State.Restarting}} {{.State.Running}} {{ge .RestartCount 4}}",
        "true true true",
    )
    assert engine.cli("ps", "--filter", f"name={name}", "--format", "{{.Status}}").out.startswith(
        "Restarting (5) "
    )
    assert engine.cli("ps", "-q", "--filter", "status=restarting", "--filter", f"name={name}").out
    removed = engine.cli("rm", name)
    assert removed.code == 1
    assert "restarting" in removed.err
    assert engine.cli("start", name).code == 0
    assert engine.cli("stop", name).out == f"{name}\n"
    eventually(engine, name, "{{.State.Status}} {{.State.ExitCode}}", "exited 5")
    time.sleep(1)
    eventually(engine, name, "{{.State.Status}}", "exited", 0.5)
    engine.cli("rm", "-f", name)


def test_a_restarting_container_can_be_removed_by_force(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, "--restart", "always", engine.image, "false")
    eventually(engine, name, "{{.State.Restarting}} {{ge .RestartCount 3}}", "true true")
    assert engine.cli("rm", "-f", name).out == f"{name}\n"
    assert engine.cli("inspect", name).code == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--rm", "--restart", "always"], "onflicting options: "),
        (["--restart", "sometimes"], "invalid restart policy"),
        (["--restart", "always:3"], "maximum retry count"),
        (["--restart", "on-failure:x"], "maximum retry count must be an integer"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(engine: Engine, words: list[str], text: str) -> None:
    result = engine.cli("run", *words, engine.image, "true")
    assert result.code == 125
    assert text in result.err or "invalid restart policy" in result.err


def test_update_sets_the_policy(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, "sh", "-c", "sleep 1; exit 2")
    result = engine.cli("update", "--restart", "on-failure:1", name)
    assert (result.code, result.out) == (0, f"{name}\n")
    form = "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}"
    assert engine.cli("inspect", "-f", form, name).out == "on-failure:1\n"
    eventually(engine, name, "{{.State.Status}} {{.RestartCount}}", "exited 1")
    assert engine.cli("update", name).code == 1
    engine.cli("rm", "-f", name)
