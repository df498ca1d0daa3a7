"""`registry serve` of the built file, as whoever runs the tests, with a store of its own."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
from pathlib import Path


def test_the_file_serves_a_registry_and_needs_no_daemon(built_file: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "DOCKPY_STORE": str(tmp_path / "store")}
    serving, port = serve(built_file, environ)
    try:
        assert get(port, "/v2/_catalog") == b'{"repositories": []}'
        assert (tmp_path / "store/registry/oci-layout").exists()
        assert not (tmp_path / "store/daemon.json").exists()
    finally:
        serving.terminate()
        assert serving.wait(20) == 0


def test_it_serves_the_images_of_a_daemon(
    built_file: Path, busybox_archive: Path, tmp_path: Path
) -> None:
    environ = {**os.environ, "DOCKPY_STORE": str(tmp_path / "store")}
    subprocess.run([built_file, "load", "-q", "-i", busybox_archive], env=environ, check=True)
    subprocess.run([built_file, "daemon", "stop"], env=environ, check=True)
    serving, port = serve(built_file, environ, "--images")
    try:
        manifest = json.loads(get(port, "/v2/localhost/busybox/manifests/latest"))
        for entry in (manifest["config"], *manifest["layers"]):
            data = get(port, f"/v2/localhost/busybox/blobs/{entry['digest']}")
            assert entry["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
            assert entry["size"] == len(data)
    finally:
        serving.terminate()
        assert serving.wait(20) == 0


def serve(file: Path, environ: dict[str, str], *flags: str) -> tuple[subprocess.Popen[str], int]:
    serving = subprocess.Popen(
        [file, "registry", "serve", "--listen", "127.0.0.1:0", *flags],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert serving.stdout is not None
    line = serving.stdout.readline().split()
    assert line[0] == "Serving"
    assert line[3] == f"{environ['DOCKPY_STORE']}/registry"
    return serving, int(line[1].rpartition(":")[2])


def get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    data = answer.read()
    connection.close()
    return data
