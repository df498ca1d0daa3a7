"""login, push, logout against Debian's docker-registry and one with tokens; the same on docker: lines, digests, errors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import missing
from tests.e2e.engines import Engine
from tests.e2e.registries import docker_registry, program
from tests.registry.taker import Taker, taking


@pytest.fixture(scope="module")
def registry(place: Path) -> Iterator[str]:
    if program() is None:
        missing("a registry (Debian: docker-registry)")
    folder = place / "docker-registry-push"
    folder.mkdir(exist_ok=True)  # once for each engine
    with docker_registry(folder) as host:
        yield host


def test_push_and_push_again(engine: Engine, registry: str) -> None:
    name = f"{registry}/{engine.label}/app"
    for tag in ("v1", "v2"):
        assert engine.cli("tag", engine.image, f"{name}:{tag}").code == 0
    pushed = engine.cli("push", f"{name}:v1")
    assert pushed.code == 0, pushed.err
    lines = pushed.out.splitlines()
    assert lines[0] == f"The push refers to repository [{name}]"
    layer = lines[1].partition(":")[0]
    assert lines[1] == f"{layer}: Preparing" and f"{layer}: Pushed" in lines
    match = re.fullmatch(r"v1: digest: (sha256:[0-9a-f]{64}) size: \d+", lines[-1])
    assert match
    digest = match[1]
    again = engine.cli("push", "-a", name).out.splitlines()
    assert f"{layer}: Layer already exists" in again
    assert sum(line.partition(":")[2].startswith(f" digest: {digest} ") for line in again) == 2
    inspected = json.loads(engine.cli("image", "inspect", f"{name}:v2").out)[0]
    assert inspected["RepoDigests"] == [f"{name}@{digest}"]
    quiet = engine.cli("push", "-q", f"{name}:v1")
    assert (quiet.code, quiet.out) == (0, f"{name}:v1\n")
    if skopeo := shutil.which("skopeo"):
        shown = subprocess.run(
            [skopeo, "inspect", "--tls-verify=false", f"docker://{name}:v2"],
            check=True, capture_output=True, timeout=60,
        ).stdout  # fmt: skip
        assert json.loads(shown)["Digest"] == digest
    seen = engine.cli(
        "events", "--since", "1h", "--until", f"{time.time():.9f}", "--filter", "event=push"
    ).out
    assert f"image push {name}:v1 (name={name})" in seen
    engine.cli("rmi", f"{name}:v1", f"{name}:v2")
    assert engine.cli("pull", "-q", f"{name}@{digest}").code == 0
    assert engine.cli("run", "--rm", "--network", "none", f"{name}@{digest}", "echo", "x").out == (
        "x\n"
    )
    engine.cli("rmi", f"{name}@{digest}")


def test_what_cannot_be_pushed(engine: Engine, registry: str) -> None:
    name = f"{registry}/{engine.label}/other"
    result = engine.cli("push", name)
    assert (result.code, result.err.strip()) == (
        1,
        f"An image does not exist locally with the tag: {name}",
    )
    assert result.out == (f"Using default tag: latest\nThe push refers to repository [{name}]\n")
    engine.cli("tag", engine.image, f"{name}:v1")
    result = engine.cli("push", f"{name}:v2")
    assert (result.code, result.err.strip()) == (1, f"tag does not exist: {name}:v2")
    result = engine.cli("push", "-a", f"{name}:v1")
    assert (result.code, result.err.strip()) == (1, "tag can't be used with --all-tags/-a")
    engine.cli("rmi", f"{name}:v1")


def test_login_push_logout(engine: Engine, folder: Path) -> None:
    with taking(Taker(tokens=True, his="mine/")) as taker:
        environ = {"DOCKER_CONFIG": str(folder)}

        def cli(*words: str, input: bytes | None = None) -> tuple[int, str, str]:
            result = engine.cli(*words, input=input, env=environ)
            return result.code, result.out, result.err

        name = f"{taker.host}/mine/app:v1"
        engine.cli("tag", engine.image, name)
        code, _, err = cli("push", name)
        assert (code, err.strip()) == (1, "denied: requested access to the resource is denied")
        code, out, err = cli("login", "-u", "me", "--password-stdin", taker.host, input=b"wrong\n")
        assert (code, out) == (1, "")
        assert "unauthorized: incorrect username or password" in err
        assert not (folder / "config.json").exists()
        code, out, err = cli("login", "-u", "me", "--password-stdin", taker.host, input=b"secret\n")
        assert (code, out) == (0, "Login Succeeded\n")
        assert "stored unencrypted in" in err
        assert list(json.loads((folder / "config.json").read_text())["auths"]) == [taker.host]
        code, _, err = cli("push", name)
        assert (code, err) == (0, "")
        assert "v1" in taker.manifests["mine/app"]
        assert cli("logout", taker.host)[1] == f"Removing login credentials for {taker.host}\n"
        assert cli("push", name)[0] == 1
        engine.cli("rmi", name)


def test_a_push_goes_on_after_the_daemon_was_killed(engine: Engine, registry: str) -> None:
    """Our own daemon's part: the client says so, nothing is half done, and the next push ends well."""
    if not engine.is_dockpy:
        pytest.skip("kills the daemon")
    with taking(Taker(slow=0.05)) as taker:
        name = f"{taker.host}/killed/app:v1"
        engine.cli("tag", engine.image, name)
        rows = json.loads(engine.cli("daemon", "status", "--format", "json").out)["processes"]
        daemon = next(row["pid"] for row in rows if row["role"] == "daemon")
        client = engine.start("push", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while not taker.asked("PUT", "/uploads/") and time.monotonic() < deadline:
            time.sleep(0.01)
        subprocess.run(["kill", "-9", str(daemon)], check=True)
        _, err = client.communicate(timeout=20)
        assert client.returncode == 1 and b"the daemon" in err, err
        taker.slow = 0.0
        again = engine.cli("push", name)
        assert again.code == 0, again.err
        assert "v1" in taker.manifests["killed/app"]
        engine.cli("rmi", name)
