"""Round trips of an image through our registry with the clients of others: digests stay what they were."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.serving import Serving


def needs(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"this machine lacks {program}")
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `docker save` archive of two layers, one of them incompressible and of some MiB."""
    layers = []
    for content in (b"hello\n", os.urandom(5 << 20)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            member = tarfile.TarInfo(f"file-{len(content)}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        layers.append(buffer.getvalue())
    sums = [hashlib.sha256(layer).hexdigest() for layer in layers]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Cmd": ["/file-6"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{value}" for value in sums]},
            "history": [{"created_by": "test"}] * 2,
        }
    ).encode()
    parts = {f"{value}.tar": layer for value, layer in zip(sums, layers)}
    index = [{"Config": "config.json", "RepoTags": ["local/image:1"], "Layers": list(parts)}]
    parts = {"config.json": config, **parts, "manifest.json": json.dumps(index).encode()}
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def run(*words: str | Path, **environ: str) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=60, env={**os.environ, **environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def digest_in(registry: Serving, name: str, tag: str) -> str:
    answer = registry.ask("HEAD", f"/v2/{name}/manifests/{tag}")
    assert answer.status == 200
    return answer.headers["docker-content-digest"]


@pytest.fixture(scope="module")
def docker(registry: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The client's command line with a dockerd of its own, which has the registry as docker.io's mirror."""
    program, daemon = needs("docker"), needs("dockerd")
    if os.getuid() != 0:
        pytest.skip("dockerd needs root")
    folder = tmp_path_factory.mktemp("docker")
    socket = f"unix://{folder}/docker.sock"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [daemon, "--host", socket, "--data-root", folder / "data", "--exec-root",
             folder / "exec", "--pidfile", folder / "pid", "--iptables=false", "--bridge=none",
             "--storage-driver=vfs", f"--registry-mirror=http://{registry.address}"],
            stdout=log,
            stderr=log,
        )  # fmt: skip
    program = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else program
    client = [program, "--config", str(folder / "config"), "-H", socket]
    try:
        end = time.monotonic() + 30
        while subprocess.run([*client, "info"], capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > end:
                pytest.skip("this machine lacks a dockerd that starts")
            time.sleep(0.1)
        yield client
    finally:
        process.terminate()
        process.wait(30)


def test_docker(registry: Serving, docker: list[str], archive: Path) -> None:
    run(*docker, "load", "-q", "-i", archive)
    first, second = (f"{registry.address}/docker/{name}:1" for name in ("one", "two"))
    run(*docker, "tag", "local/image:1", first)
    said = run(*docker, "push", first)
    digest = digest_in(registry, "docker/one", "1")
    assert f"digest: {digest}" in said
    run(*docker, "tag", first, second)
    assert "Mounted from docker/one" in run(*docker, "push", second)
    assert digest_in(registry, "docker/two", "1") == digest
    id = run(*docker, "image", "inspect", "-f", "{{.Id}}", first)
    run(*docker, "rmi", "local/image:1", first, second)
    assert digest in run(*docker, "pull", f"{registry.address}/docker/two@{digest}")
    run(*docker, "pull", "-q", second)
    assert run(*docker, "image", "inspect", "-f", "{{.Id}}", second) == id
    assert digest in run(*docker, "image", "inspect", "-f", "{{.RepoDigests}}", second)
    run(*docker, "rmi", second)


def test_docker_s_mirror(registry: Serving, docker: list[str], archive: Path) -> None:
    there = f"{registry.address}/library/mirrored:1"
    run(*docker, "load", "-q", "-i", archive)
    run(*docker, "tag", "local/image:1", there)
    run(*docker, "push", "-q", there)
    run(*docker, "rmi", there, "local/image:1")
    run(*docker, "pull", "-q", "mirrored:1")
    digest = digest_in(registry, "library/mirrored", "1")
    assert digest in run(*docker, "image", "inspect", "-f", "{{.RepoDigests}}", "mirrored:1")


def test_skopeo(registry: Serving, archive: Path, tmp_path: Path) -> None:
    skopeo = needs("skopeo")
    ours = f"docker://{registry.address}/skopeo"
    copy = (skopeo, "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false")
    run(*copy, "--format=oci", f"docker-archive:{archive}", f"{ours}/one:1")
    digest = digest_in(registry, "skopeo/one", "1")
    run(*copy, "--preserve-digests", f"{ours}/one:1", f"dir:{tmp_path}/dir")
    run(*copy, "--preserve-digests", f"dir:{tmp_path}/dir", f"{ours}/two:2")
    assert digest_in(registry, "skopeo/two", "2") == digest
    run(*copy, "--preserve-digests", f"{ours}/two:2", f"{ours}/three:3")
    found = json.loads(run(skopeo, "inspect", "--tls-verify=false", f"{ours}/three@{digest}"))
    assert (found["Digest"], found["RepoTags"]) == (digest, ["3"])
    tags = json.loads(run(skopeo, "list-tags", "--tls-verify=false", f"{ours}/three"))
    assert tags["Tags"] == ["3"]
    run(skopeo, "delete", "--tls-verify=false", f"{ours}/three:3")
    assert registry.ask("GET", f"/v2/skopeo/three/manifests/{digest}").status == 404


def test_podman(registry: Serving, archive: Path, tmp_path: Path) -> None:
    podman = needs("podman")
    runroot = tempfile.mkdtemp(prefix="p")  # podman takes no path of more than 50 characters here
    own = (podman, f"--root={tmp_path}/root", f"--runroot={runroot}", "--storage-driver=vfs")
    first, second = (f"{registry.address}/podman/{name}:1" for name in ("one", "two"))
    run(*own, "load", "-q", "-i", archive)
    run(*own, "push", "-q", "--tls-verify=false", f"--digestfile={tmp_path}/digest",
        "local/image:1", first)  # fmt: skip
    digest = digest_in(registry, "podman/one", "1")
    assert (tmp_path / "digest").read_text() == digest
    run(*own, "rmi", "-a", "-f")
    id = run(*own, "pull", "-q", "--tls-verify=false", first)
    assert digest in run(*own, "image", "inspect", "-f", "{{.Digest}}", first)
    run(*own, "push", "-q", "--tls-verify=false", first, second)
    run(*own, "rmi", "-a", "-f")
    assert run(*own, "pull", "-q", "--tls-verify=false", second) == id
    assert digest_in(registry, "podman/two", "1") == digest
