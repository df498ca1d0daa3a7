"""`--images`: the images of a store beside what was pushed; its files are those of a daemon's, made by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.registry.serving import OCI_MANIFEST, Serving, descriptor, digest_of, manifest

NAME = "io.containerd.image.name"


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "images/blobs/sha256").mkdir(parents=True)
        self.entries: list[dict[str, object]] = []

    def blob(self, data: bytes) -> Path:
        path = self.root / "images/blobs/sha256" / digest_of(data).partition(":")[2]
        path.write_bytes(data)
        return path

    def image(self, name: str, layer: bytes) -> str:
        data = json.dumps(manifest(layer)).encode()
        for content in (data, layer, b"{}"):
            self.blob(content)
        self.entries.append({**descriptor(OCI_MANIFEST, data), "annotations": {NAME: name}})
        self.write()
        return digest_of(data)

    def write(self) -> None:
        index = {"schemaVersion": 2, "manifests": self.entries}
        (self.root / "images/index.new").write_text(json.dumps(index))
        os.rename(self.root / "images/index.new", self.root / "images/index.json")


def tags(registry: Serving, name: str) -> object:
    return registry.ask("GET", f"/v2/{name}/tags/list").json().get("tags")


def test_images_of_the_store_are_served_beside_what_is_pushed(tmp_path: Path) -> None:
    registry = Serving(tmp_path / "registry", "--images", DOCKPY_STORE=str(tmp_path / "store"))
    try:
        assert registry.ask("GET", "/v2/_catalog").json()["repositories"] == []
        store = Store(tmp_path / "store")
        layer = b"a layer"
        digest = store.image("docker.io/library/debian:12", layer)
        store.image("127.0.0.1:5000/team/app:1", b"app")
        store.image("ghcr.io/me/tool:2", b"tool")
        every = ["debian", "ghcr.io/me/tool", "team/app"]
        assert registry.ask("GET", "/v2/_catalog").json()["repositories"] == every
        for reference in ("12", digest):
            answer = registry.ask("GET", f"/v2/debian/manifests/{reference}")
            assert (answer.status, digest_of(answer.body)) == (200, digest)
        path = f"/v2/debian/blobs/{digest_of(layer)}"
        assert registry.ask("GET", path).body == layer
        assert registry.ask("HEAD", path).headers["content-length"] == str(len(layer))
        assert registry.ask("GET", path, headers={"Range": "bytes=2-"}).body == layer[2:]
        # Another repository's blob, and things that are not there.
        assert registry.ask("GET", path.replace("debian", "team/app")).code == "BLOB_UNKNOWN"
        assert registry.ask("GET", "/v2/debian/manifests/13").code == "MANIFEST_UNKNOWN"
        assert registry.ask("GET", "/v2/other/manifests/13").code == "NAME_UNKNOWN"
        # What is pushed has the name, and goes to the registry's own folder.
        pushed = registry.push_image("debian", "12", b"mine")
        registry.push_image("debian", "mine", b"mine")
        assert tags(registry, "debian") == ["12", "mine"]
        head = registry.ask("HEAD", "/v2/debian/manifests/12")
        assert head.headers["docker-content-digest"] == pushed
        assert registry.ask("GET", f"/v2/debian/manifests/{digest}").status == 200
        assert registry.ask("DELETE", f"/v2/debian/manifests/{digest}").status == 404
        assert store.blob(layer).exists()
        # The daemon goes on with its store meanwhile.
        store.entries.pop()
        store.write()
        assert tags(registry, "ghcr.io/me/tool") is None
        store.blob(b"app").unlink()
        path = f"/v2/team/app/blobs/{digest_of(b'app')}"
        assert registry.ask("GET", path).code == "BLOB_UNKNOWN"
    finally:
        assert registry.stop() == 0
    assert registry.errors == ""


@pytest.mark.parametrize("index", ["{", "[]", '{"schemaVersion": 2, "manifests": [{}]}'])
def test_a_damaged_index_hides_the_images_only(tmp_path: Path, index: str) -> None:
    registry = Serving(tmp_path / "registry", "--images", DOCKPY_STORE=str(tmp_path / "store"))
    try:
        (tmp_path / "store/images").mkdir()
        (tmp_path / "store/images/index.json").write_text(index)
        registry.push_image("a", "1")
        assert registry.ask("GET", "/v2/_catalog").json()["repositories"] == ["a"]
    finally:
        assert registry.stop() == 0
    assert "index.json" in registry.errors
