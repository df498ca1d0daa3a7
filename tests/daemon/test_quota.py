"""A limit for images in a store that is not as it should be: an error of that request, and the daemon lives."""

from __future__ import annotations

import os
from pathlib import Path

from tests.daemon.conftest import Engine, eventually


def test_an_index_that_cannot_be_read_does_not_end_the_daemon(
    tmp_path: Path,
) -> None:
    engine = Engine(str(tmp_path / "store"))
    engine.start()
    try:
        assert engine.ask("GET", "/_ping").status == 200
        daemon = engine.record()["daemon"]["pid"]
        images = Path(engine.paths.images)
        (images / "blobs/sha256" / ("0" * 64)).write_bytes(b"more than nothing")
        (images / "index.json").write_bytes(b"{" * 100)
        assert engine.ask("POST", "/dockpy/limit", {"Limit": 0}).status == 503
        told = Path(engine.paths.daemon_log)
        eventually(lambda: b"not held to their limit" in told.read_bytes())
        assert engine.record()["daemon"]["pid"] == daemon
        assert os.path.exists(f"/proc/{daemon}")
    finally:
        engine.stop()
