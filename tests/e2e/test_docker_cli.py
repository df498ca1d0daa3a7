"""The real docker command line on our socket: the same verbs, through DOCKER_HOST."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.e2e.engines import DockerCli, Engine


@pytest.fixture
def docker(engine: Engine) -> DockerCli:
    if not engine.is_dockpy:
        pytest.skip("this is docker itself")
    program = shutil.which("docker")
    if program is None:
        pytest.skip("the docker command line is not installed")
    return DockerCli(program, engine)


def test_run_with_output_and_exit_code(docker: DockerCli) -> None:
    result = docker.cli(
        "run", "--rm", docker.engine.image, "sh", "-c", "echo out; echo err >&2; exit 3"
    )
    assert (result.code, result.out, result.err.splitlines()[-1]) == (3, "out\n", "err")


def test_run_with_stdin(docker: DockerCli) -> None:
    assert (
        docker.cli("run", "--rm", "-i", docker.engine.image, "cat", input=b"x" * 100000).out
        == "x" * 100000
    )


def test_life_cycle(docker: DockerCli) -> None:
    name = docker.engine.name()
    made = docker.cli(
        "run", "-d", "--name", name, docker.engine.image, "sh", "-c", "echo started; sleep 100"
    )
    assert re.fullmatch(r"[0-9a-f]{64}\n", made.out)
    assert name in docker.cli("ps", "--format", "{{.Names}}").out.split()
    assert docker.cli("exec", name, "sh", "-c", "echo in; exit 4").code == 4
    assert docker.cli("exec", "-i", name, "cat", input=b"fed").out == "fed"
    assert docker.cli("logs", name).out == "started\n"
    assert docker.cli("inspect", "-f", "{{.State.Status}}", name).out == "running\n"
    assert docker.cli("stop", "-t", "0", name).out == f"{name}\n"
    assert docker.cli("wait", name).out == "137\n"
    assert docker.cli("rm", name).code == 0


def test_images_info_and_version(docker: DockerCli) -> None:
    assert docker.engine.image.rpartition(":")[0] in docker.cli("images").out
    assert docker.cli("image", "inspect", docker.engine.image).code == 0
    assert docker.cli("history", docker.engine.image).code == 0
    assert docker.cli("info").code == 0
    assert docker.cli("version").code == 0


def test_errors_are_dockers(docker: DockerCli) -> None:
    assert docker.cli("run", "--rm", docker.engine.image, "no-such").code == 127
    missing = docker.cli("start", "no-such-container")
    assert missing.code == 1 and "No such container: no-such-container" in missing.err
    assert docker.cli("run", "--rm", "--pull", "never", "no-such:v1").code == 125
