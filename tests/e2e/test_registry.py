"""`registry serve` of the built file, as whoever runs the tests; no daemon is born for it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from pathlib import Path


def test_the_file_serves_a_registry(built_file: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "DOCKPY_STORE": str(tmp_path / "store")}
    serving = subprocess.Popen(
        [built_file, "registry", "serve", "--listen", "127.0.0.1:0"],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        line = serving.stdout.readline().split()
        assert line[0] == "Serving"
        assert line[3] == f"{tmp_path}/store/registry"
        connection = http.client.HTTPConnection(line[1].rpartition("/")[2], timeout=20)
        connection.request("GET", "/v2/_catalog")
        assert json.load(connection.getresponse()) == {"repositories": []}
        connection.close()
        assert not (tmp_path / "store/daemon.json").exists()
    finally:
        serving.terminate()
        assert serving.wait(20) == 0
