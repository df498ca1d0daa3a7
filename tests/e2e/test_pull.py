"""pull from Debian's docker-registry, the same on docker: lines, names, errors, `run --pull`, the client's own end."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import layer_of, missing
from tests.e2e.engines import Engine
from tests.e2e.registries import docker_registry, program, put_image
from tests.images.archives import tar_of


@pytest.fixture(scope="session")
def registry(place: Path) -> Iterator[str]:
    if program() is None:
        missing("a registry (Debian: docker-registry)")
    folder = place / "docker-registry"
    folder.mkdir()
    with docker_registry(folder) as host:
        yield host


@pytest.fixture(scope="session")
def app(registry: str) -> tuple[str, str]:
    """A name without its tag, which has the tags v1 and v2 of two layers; the digest of v1."""
    busybox = layer_of(Path(str(shutil.which("busybox"))))
    v1 = put_image(registry, "team/app", ["v1"], busybox, tar_of([("version", b"1")]))
    put_image(registry, "team/app", ["v2"], busybox, tar_of([("version", b"2")]))
    return f"{registry}/team/app", v1


def test_pull_run_and_pull_again(engine: Engine, app: tuple[str, str]) -> None:
    name, digest = app
    pulled = engine.cli("pull", f"{name}:v1")
    assert pulled.code == 0, pulled.err
    lines = pulled.out.splitlines()
    assert lines[0] == "v1: Pulling from team/app"
    assert lines[-3:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}:v1",
        f"{name}:v1",
    ]
    layers = {line.partition(": ")[0] for line in lines[1:-3]}
    assert len(layers) == 2
    for one in layers:
        words = [line.partition(": ")[2] for line in lines if line.startswith(one)]
        assert words[0] == "Pulling fs layer"
        assert words[-1] == "Pull complete"
        assert "Download complete" in words
    inspected = json.loads(engine.cli("image", "inspect", f"{name}:v1").out)[0]
    assert inspected["RepoDigests"] == [f"{name}@{digest}"]
    assert (
        engine.cli("run", "--rm", "--network", "none", f"{name}@{digest}", "cat", "/version").out
        == "1"
    )
    again = engine.cli("pull", f"{name}:v1").out.splitlines()
    assert again[-2] == f"Status: Image is up to date for {name}:v1"
    assert engine.cli("pull", "-q", f"{name}:v1").out == f"{name}:v1\n"
    every = engine.cli("pull", "-a", name)
    assert every.code == 0, every.err
    assert every.out.splitlines()[-1] == name
    assert any(line.endswith(": Already exists") for line in every.out.splitlines())
    seen = engine.cli(
        "events", "--since", "1h", "--until", f"{time.time():.9f}", "--filter", "event=pull"
    ).out
    assert f"image pull {name}:v1 (name={name})" in seen
    engine.cli("rmi", f"{name}:v1", f"{name}:v2")


def test_run_pulls_by_policy(engine: Engine, app: tuple[str, str]) -> None:
    name, _ = app
    image = f"{name}:v2"
    never = engine.cli("run", "--rm", "--pull", "never", image, "true")
    assert never.code == 125
    first = engine.cli("run", "--rm", "--network", "none", image, "cat", "/version")
    assert (first.code, first.out) == (0, "2")
    assert f"Unable to find image '{image}' locally" in first.err
    assert f"Status: Downloaded newer image for {image}" in first.err
    always = engine.cli(
        "run", "--rm", "--network", "none", "--pull", "always", image, "cat", "/version"
    )
    assert (always.code, always.out) == (0, "2")
    assert f"Status: Image is up to date for {image}" in always.err
    engine.cli("rmi", image)


def test_what_cannot_be_pulled_is_told_in_dockers_words(
    engine: Engine, app: tuple[str, str]
) -> None:
    name, _ = app
    result = engine.cli("pull", f"{name}:nope")
    assert (result.code, result.out) == (1, "")
    assert f"manifest for {name}:nope not found: manifest unknown" in result.err
    gone = engine.cli("pull", "127.0.0.1:1/x:y")
    assert gone.code == 1
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in gone.err
    ran = engine.cli("run", "--rm", "127.0.0.1:1/x:y")
    assert ran.code == 125
