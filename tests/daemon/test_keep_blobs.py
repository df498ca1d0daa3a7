"""`storage.keep-blobs=false` in a daemon: what an image takes is its tree, and it is saved with its id."""

from __future__ import annotations

import os
from pathlib import Path

from tests.daemon.conftest import Engine, eventually
from tests.images.archives import image, oci_archive, sha256


def test_blobs_go_once_unpacked_and_come_again_for_a_save(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "config.toml").write_text("[storage]\nkeep-blobs = false\n")
    made = image(os.urandom(50_000).hex(), names=["app:1"], compress="gzip")
    blob = store / "images/blobs/sha256" / sha256(made.stored[0])[7:]
    engine = Engine(str(store))
    engine.start()
    try:
        assert engine.ask("POST", "/images/load", oci_archive(made)).status == 200
        eventually(lambda: not blob.exists())
        found = engine.ask("GET", "/images/app:1/json").json()
        assert isinstance(found, dict) and found["Id"] == made.id
        saved = engine.ask("GET", "/images/app:1/get").body
        assert engine.ask("DELETE", "/images/app:1").status == 200
        assert not list((store / "images/recipes").iterdir())
        assert engine.ask("POST", "/images/load", saved).status == 200
        assert engine.ask("GET", f"/images/{made.id}/json").status == 200
    finally:
        engine.stop()
