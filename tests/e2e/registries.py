"""Debian's docker-registry on a loopback port, and a small way to put an image there without any engine."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


def program() -> str | None:
    """Debian's name and the project's own."""
    return shutil.which("docker-registry") or shutil.which("registry")


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    """Yields its host:port; its storage is `folder`/registry."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{sock.getsockname()[1]}"
    settings = folder / "registry.yml"
    settings.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}, delete: {{enabled: true}}}}\n"
        f'http: {{addr: "{host}"}}\nlog: {{level: error}}\n'
    )
    server = subprocess.Popen(
        [str(program()), "serve", str(settings)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        yield host
    finally:
        server.terminate()
        server.wait(10)


def put_image(host: str, name: str, tags: Sequence[str], *layers: bytes, cmd: str = "sh") -> str:
    """An image of plain tars, put there as docker's schema 2; its digest."""
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps(
        {
            "architecture": MACHINE,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": [cmd], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "put"} for _ in layers],
        }
    ).encode()
    packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
    for blob in (config, *packed):
        _put_blob(host, name, blob)

    def described(kind: str, blob: bytes) -> dict[str, object]:
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        return {"mediaType": kind, "size": len(blob), "digest": digest}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER,
            "config": described("application/vnd.docker.container.image.v1+json", config),
            "layers": [
                described("application/vnd.docker.image.rootfs.diff.tar.gzip", blob)
                for blob in packed
            ],
        }
    ).encode()
    for tag in tags:
        _ask("PUT", f"http://{host}/v2/{name}/manifests/{tag}", manifest, DOCKER)
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def _put_blob(host: str, name: str, data: bytes) -> None:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    location = _ask("POST", f"http://{host}/v2/{name}/blobs/uploads/", b"", "")
    mark = "&" if "?" in location else "?"
    if location.startswith("/"):
        location = f"http://{host}{location}"
    _ask("PUT", f"{location}{mark}digest={digest}", data, "application/octet-stream")


def _ask(method: str, url: str, data: bytes, kind: str) -> str:
    request = urllib.request.Request(url, data, method=method)
    request.add_header("Content-Length", str(len(data)))
    if kind:
        request.add_header("Content-Type", kind)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.headers.get("Location", ""))
