"""Layers whose blobs were dropped: what still goes, by digests, and what a store without them cannot lose."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from dockpy.damaged import Finding, Shelf
from dockpy.errors import NotFound
from dockpy.files import shared_lock
from dockpy.images import archive
from dockpy.images.check import ImageCheck
from dockpy.images.index import READERS
from dockpy.images.quota import Quota
from dockpy.images.remaking import Thinning
from dockpy.images.store import ImageStore
from tests.cuts import cut
from tests.images.archives import docker_archive, image, oci_archive, sha256
from tests.images.conftest import Open, is_empty, opened
from tests.images.test_push import blobs, load, pull, push, taker, told
from tests.images.test_quota import load as load_old
from tests.registry.taker import Taker

__all__ = ["taker"]
BIG = os.urandom(20_000).hex()


def saved(store: ImageStore, *refs: str) -> bytes:
    written = io.BytesIO()
    archive.save(store, refs, written.write)
    return written.getvalue()


def found(store: ImageStore, folder: Path) -> list[Finding]:
    return list(ImageCheck(store, Shelf(str(folder)), lambda done, total: None).findings())


def layers_of(store: ImageStore, name: str) -> set[str]:
    return {layer.digest for layer in store.resolve(name).manifest.layers}


@pytest.mark.parametrize("compress", ["", "gzip", "zstd"])
def test_a_saved_image_has_its_id_and_right_digests(
    store: ImageStore, open_store: Open, tmp_path: Path, compress: str
) -> None:
    made = image(BIG, "small", BIG + "2", names=["app:1"], compress=compress)
    load(store, made, oci_archive)
    first = store.resolve("app:1")
    before, there = saved(store, "app:1"), blobs(store)
    assert Thinning(store).thin() > 20_000
    # A blob of one block takes no more than its recipe.
    assert len(there - blobs(store)) == (2 if compress else 3)
    assert store.resolve("app:1") == first and store.inspect(first) and store.history(first)
    assert not found(store, tmp_path / "damaged")

    seen = store.index.written
    after = saved(store, "app:1")
    assert store.index.written > seen, "whoever drops blobs looks again"
    Thinning(store).thin()
    assert blobs(store) < there, "what was made for it is gone again"
    other = open_store(tmp_path / "other")
    assert archive.load(other, io.BytesIO(after).read, lambda line: None) == ["app:1"]
    again = other.resolve("app:1")
    assert again.id == made.id
    assert (again.descriptor == first.descriptor) == (not compress)
    for layer, plain in zip(again.manifest.layers, made.layers):
        data = other.content.read(layer.digest)
        assert layer in first.manifest.layers or (compress and layer.media_type.endswith("gzip"))
        assert sha256(data) == layer.digest
        if layer.media_type.endswith("gzip"):
            data = gzip.decompress(data)
        if not layer.media_type.endswith("zstd"):
            assert data == plain
    if not compress:
        assert after == before, "to the last bit"
    with tarfile.open(fileobj=io.BytesIO(after)) as members:  # docker's part of it, too
        item = json.load(members.extractfile("manifest.json"))[0]  # type: ignore[arg-type]  # it is a file
        assert all(members.getmember(path).size for path in item["Layers"])

    opened(tmp_path / "store")  # a restart
    assert saved(store, "app:1") == after
    store.remove("app:1", False, lambda _: ())
    assert is_empty(store), "recipes, too"


def test_to_its_registry_a_dropped_layer_need_not_go_again(
    store: ImageStore, open_store: Open, taker: Taker, tmp_path: Path
) -> None:
    here, there = f"{taker.host}/a/b:v1", f"{taker.host}/a/c:v1"
    load(store, image(BIG, names=[here], compress="gzip"), oci_archive)
    push(store, here)
    kept = taker.manifests["a/b"]["v1"]
    mine = open_store(tmp_path / "mine")
    pull(mine, here)
    assert Thinning(mine).thin()
    assert not layers_of(mine, here) & blobs(mine)
    assert "Layer already exists" in told(push(mine, here))[2]
    mine.tag(here, there)
    assert told(push(mine, there))[2].endswith(": Mounted from a/b")
    assert taker.manifests["a/c"]["v1"] == kept, "bit for bit, by HEAD and mount alone"
    assert not layers_of(mine, here) & blobs(mine)

    taker.seen.clear()
    pull(mine, there)
    mine.tag(there, "other:1")
    mine.remove(here, False, lambda _: ())
    mine.remove(there, False, lambda _: ())
    pull(mine, here)  # the tree is here: nothing is brought
    assert not taker.asked("GET", "/blobs/" + next(iter(layers_of(mine, here))))


def test_elsewhere_it_has_another_digest_and_the_same_id(
    store: ImageStore, open_store: Open, taker: Taker, tmp_path: Path
) -> None:
    first, second = f"{taker.host}/a/b:v1", f"{taker.host}/far/b:v1"
    made = image(BIG, names=[first], compress="gzip")
    load(store, made, oci_archive)
    push(store, first)
    original = store.resolve(first).descriptor.digest
    assert Thinning(store).thin()
    store.tag(first, second)
    taker.blobs["a/b"].clear()  # nothing to mount
    assert told(push(store, second))[2].endswith(": Pushed")
    data = taker.manifests["far/b"]["v1"][1]
    assert sha256(data) != original
    layer = json.loads(data)["layers"][0]
    assert sha256(taker.blobs["far/b"][layer["digest"]]) == layer["digest"]
    assert gzip.decompress(taker.blobs["far/b"][layer["digest"]]) == made.layers[0]
    digests = {f"{taker.host}/a/b@{original}", f"{taker.host}/far/b@{sha256(data)}"}
    assert set(store.resolve(second).repo_digests) == digests
    other = open_store(tmp_path / "other")
    pull(other, f"{taker.host}/far/b@{sha256(data)}")
    assert other.resolve(made.id).id == made.id

    # What we have compressed is the same to the last bit when it is made again.
    assert Thinning(store).thin() and not Thinning(store).thin()
    taker.blobs["far/b"].clear()
    taker.manifests.clear()
    assert told(push(store, second))[2].endswith(": Pushed")
    assert taker.manifests["far/b"]["v1"][1] == data
    assert not found(store, tmp_path / "damaged")
    store.remove(first, True, lambda _: ())
    store.remove(second, True, lambda _: ())
    assert is_empty(store)


def test_a_loaded_image_of_dropped_plain_layers_is_compressed_for_its_push(
    store: ImageStore, taker: Taker
) -> None:
    name = f"{taker.host}/a/b:v1"
    made = image(BIG, BIG + "2", names=[name])
    load(store, made)
    assert Thinning(store).thin()
    assert told(push(store, name))[-1].startswith("v1: digest: ")
    layers = json.loads(taker.manifests["a/b"]["v1"][1])["layers"]
    sent = [gzip.decompress(taker.blobs["a/b"][one["digest"]]) for one in layers]
    assert tuple(sent) == made.layers


def test_a_blob_stays_where_another_tree_is_not_here_or_somebody_reads(
    tmp_path: Path, store: ImageStore
) -> None:
    load(store, image(BIG, names=["app:1"], compress="gzip"), oci_archive)
    there = blobs(store)
    thinning = Thinning(store)

    def goes() -> tuple[bool, bool]:
        return bool(thinning.thin()), thinning.put_off

    with store.writing():
        assert goes() == (False, True)
    reader = shared_lock(f"{store.content.root}/{READERS}")  # another store's daemon
    assert goes() == (False, True)
    os.close(reader)
    tree = Path(store.snapshots.chain_tree(store.resolve("app:1").chain_ids[0]).path)
    (tree / "etc/file").write_text("another")  # its data go into the recipe
    assert goes() == (True, False)
    assert (
        sha256(gzip.decompress(_layer(saved(store, "app:1"))))
        == (store.resolve("app:1").config.diff_ids[0])
    )
    assert blobs(store) < there


def _layer(data: bytes) -> bytes:
    """The largest member of an archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        largest = max(members.getmembers(), key=lambda one: one.size)
        file = members.extractfile(largest)
        assert file is not None
        return file.read()


def test_a_damaged_tree_is_found_and_another_pull_mends_it(
    store: ImageStore, taker: Taker, tmp_path: Path
) -> None:
    name, shelf = f"{taker.host}/a/b:v1", tmp_path / "damaged"
    load(store, image(BIG, names=[name], compress="gzip"), oci_archive)
    push(store, name)
    assert Thinning(store).thin()
    tree = Path(store.snapshots.chain_tree(store.resolve(name).chain_ids[0]).path)
    text = (tree / "etc/file").read_text()
    (tree / "etc/file").write_text(text[:-1])
    (finding,) = found(store, shelf)
    assert (finding.kind, finding.repair is not None) == ("layer", True)
    assert "too short" in finding.problem and "pull or load" in finding.remedy
    with pytest.raises(Exception, match="pull the image again"):
        saved(store, name)
    assert finding.repair is not None
    finding.repair()
    assert "layer" in found(store, shelf)[0].problem
    store.remove(name, True, lambda _: ())
    pull(store, name)
    assert not found(store, shelf)
    tree = Path(store.snapshots.chain_tree(store.resolve(name).chain_ids[0]).path)
    assert (tree / "etc/file").read_text() == text


def test_without_blob_and_tree_an_image_says_what_to_do(
    store: ImageStore, taker: Taker, tmp_path: Path
) -> None:
    name = f"{taker.host}/a/b:v1"
    load(store, image(BIG, names=[name], compress="gzip"), oci_archive)
    push(store, name)
    assert Thinning(store).thin()
    store.snapshots.drop(store.resolve(name).chain_ids[0])
    with pytest.raises(NotFound, match="neither the blob nor the tree"):
        store.unpack(store.resolve(name))
    store.unname(next(one for one in store.names_of(store.resolve(name).id) if one.digest))
    pull(store, name)
    assert store.unpack(store.resolve(name))


def test_a_lenders_dropped_layers_are_used_and_saved_from_its_trees(tmp_path: Path) -> None:
    site = opened(tmp_path / "site")
    made = image(BIG, names=["app:1"], compress="gzip")
    load(site, made, oci_archive)
    assert Thinning(site).thin()
    mine = opened(tmp_path / "mine", tmp_path / "site")
    assert sha256(gzip.decompress(_layer(saved(mine, "app:1")))) == sha256(made.layers[0])
    assert mine.unpack(mine.resolve("app:1"))
    assert not Thinning(mine).thin() and not blobs(mine)
    mine.tag("app:1", "my:own")
    assert not Thinning(mine).thin()
    assert saved(mine, "my:own")


def test_a_limit_drops_blobs_before_images(tmp_path: Path, store: ImageStore) -> None:
    load_old(store, "a", 9000)
    load_old(store, "b", 8000)
    one = Quota(str(tmp_path / "limit"), store, lambda _: False, Thinning(store).thin)
    full = one.used()
    one.set(full - 10_000)
    assert one.keep() == [] and one.used() <= full - 10_000
    assert layers_of(store, "b") <= blobs(store), "the older one was enough"
    assert not layers_of(store, "a") & blobs(store)
    one.set(full // 2 + 10_000)
    assert one.keep() == [] and not layers_of(store, "b") & blobs(store)
    one.set(full // 4 + 10_000)
    assert [gone.repo_tags for gone in one.keep()] == [("a:latest",)]


def test_an_archive_of_docker_loads_where_its_layers_were_dropped(store: ImageStore) -> None:
    data = docker_archive(image(BIG, names=["app:1"]))
    for _ in range(2):
        archive.load(store, io.BytesIO(data).read, lambda line: None)
        assert Thinning(store).thin()
    assert saved(store, "app:1")


def test_cut_anywhere_the_image_can_still_be_saved(tmp_path: Path) -> None:
    first = opened(tmp_path / "store")
    made = image(BIG, names=["app:1"], compress="gzip")
    load(first, made, oci_archive)
    for at in range(1, 100):
        shutil.copytree(tmp_path / "store", tmp_path / f"{at}", symlinks=True)

        def thin_and_save(folder: Path = tmp_path / f"{at}") -> None:
            store = opened(folder)
            assert Thinning(store).thin()
            saved(store, "app:1")

        was_cut = cut(thin_and_save, at)
        store = opened(tmp_path / f"{at}")  # the next daemon
        assert sha256(gzip.decompress(_layer(saved(store, "app:1")))) == sha256(made.layers[0])
        assert not found(store, tmp_path / "damaged")
        if not was_cut:
            assert at > 5, "nothing was written?"
            return
    raise AssertionError("it goes on writing")
