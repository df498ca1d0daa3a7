"""Archives that are read where they lie: blob, hash and tree are made of one and the same reading."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockpy.errors import DockpyError, InvalidParameter
from dockpy.images import archive
from dockpy.images.store import ImageStore
from tests.images.archives import docker_archive, docker_members, image, oci_archive, sha256, tar_of
from tests.images.conftest import in_tree, is_empty, load_lying


def test_a_layer_is_not_what_the_config_says(store: ImageStore) -> None:
    made = image("one", "two", names=["a:v1"])
    other = made.layers[1].replace(b"two", b"owt")
    members = [
        (name, other if content == made.layers[1] else content)
        for name, content in docker_members(made)
    ]
    with pytest.raises(InvalidParameter, match="has digest"):
        load_lying(store, tar_of(members))
    assert is_empty(store)


def test_a_file_that_is_cut_while_it_is_read(store: ImageStore, tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(docker_archive(image("x" * 2_000_000)))
    fd = os.open(path, os.O_RDONLY)
    pieces: list[int] = []

    def watch() -> None:
        pieces.append(1)
        if len(pieces) == 6:
            os.truncate(path, 1_000_000)

    try:
        with pytest.raises(DockpyError):
            archive.load_file(store, fd, lambda message: None, watch=watch)
    finally:
        os.close(fd)
    assert is_empty(store)


def test_who_watches_can_end_it(store: ImageStore) -> None:
    pieces: list[int] = []

    def watch() -> None:
        pieces.append(1)
        if len(pieces) > 4:
            raise KeyError("gone")

    with pytest.raises(KeyError):
        load_lying(store, docker_archive(image("x" * 2_000_000)), watch)
    assert is_empty(store)


@pytest.mark.parametrize("compress", ["", "gzip"])
def test_the_same_layer_twice_is_one_blob_and_two_trees(store: ImageStore, compress: str) -> None:
    made = image("one", "one", names=["a:v1"], compress=compress)
    for data in (docker_archive(made), oci_archive(made)):
        assert load_lying(store, data) == ["a:v1"]
        found = store.resolve("a:v1")
        assert len(found.chain_ids) == 2
        for layer in found.manifest.layers:
            with open(store.content.path(layer.digest), "rb") as blob:
                assert sha256(blob.read()) == layer.digest
        store.remove("a:v1", True, lambda _: ())
    assert is_empty(store)


def test_a_blob_whose_tree_is_there_already_is_kept_too(store: ImageStore) -> None:
    plain = image("one", names=["a:v1"])
    load_lying(store, oci_archive(plain))
    load_lying(store, oci_archive(image("one", names=["b:v1"], compress="gzip")))
    packed = store.resolve("b:v1")
    assert packed.chain_ids == store.resolve("a:v1").chain_ids
    assert store.content.has(packed.manifest.layers[0].digest)
    store.snapshots.prepare("probe", packed.chain_ids[-1])
    assert in_tree(store, "probe", "etc/file").read_text() == "one"
    store.snapshots.remove("probe")
