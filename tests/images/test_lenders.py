"""Images of another store: used from there, never changed, and what happens when they go."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from dockpy.errors import Conflict, DockpyError
from dockpy.images import archive
from dockpy.images.store import ImageStore
from tests.images.archives import docker_archive, image, oci_archive
from tests.images.conftest import in_tree, opened


def load(store: ImageStore, *names: str) -> None:
    data = docker_archive(image("one", names=list(names)))
    archive.load(store, io.BytesIO(data).read, lambda message: None)


def nobody(identifier: str) -> list[str]:
    return []


@pytest.fixture
def site(tmp_path: Path) -> ImageStore:
    store = opened(tmp_path / "site")
    load(store, "app:1", "app:2")
    return store


def files_of(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.lstat().st_mtime_ns
        for path in sorted(root.rglob("*"))
        if not path.name.endswith(".lock")
    }


def test_an_image_is_used_where_it_is(tmp_path: Path, site: ImageStore) -> None:
    before = files_of(tmp_path / "site")
    mine = opened(tmp_path / "mine", tmp_path / "site")
    found = mine.resolve("app:1")
    assert found.repo_tags == ("app:1", "app:2") and [i.id for i in mine.list()] == [found.id]
    assert mine.unpack(found) == found.chain_ids[-1]
    mine.snapshots.prepare("key", found.chain_ids[-1])
    assert in_tree(mine, "key", "etc/file").is_file()
    assert all(str(tmp_path / "site") in place for place in mine.snapshots.layers("key"))
    assert not list((tmp_path / "mine/images/blobs/sha256").iterdir()), "copied"

    again = opened(tmp_path / "mine", tmp_path / "site")
    assert in_tree(again, "key", "etc/file").is_file(), "a restart"
    again.snapshots.remove("key")
    again.collect()
    assert files_of(tmp_path / "site") == before


def test_it_is_not_removed_here_and_not_collected_there(tmp_path: Path, site: ImageStore) -> None:
    mine = opened(tmp_path / "mine", tmp_path / "site")
    identifier = mine.resolve("app:1").id
    for text in ("app:1", identifier, identifier[7:19]):
        with pytest.raises(Conflict, match="read-only store"):
            mine.remove(text, True, nobody)
    mine.tag("app:1", "my:own")
    assert mine.remove("my:own", False, nobody)[0] == {"Untagged": "my:own"}
    assert mine.resolve("app:1").id == identifier

    site.remove("app:1", True, nobody)
    site.remove("app:2", True, nobody)
    assert list(site.content.digests()), "somebody reads them"
    for fd in mine.index._held:
        os.close(fd)
    site.collect()
    assert not list(site.content.digests())


def test_a_name_of_our_own_comes_first(tmp_path: Path, site: ImageStore) -> None:
    mine = opened(tmp_path / "mine", tmp_path / "site")
    data = docker_archive(image("other", names=["app:1"]))
    archive.load(mine, io.BytesIO(data).read, lambda message: None)
    assert mine.resolve("app:1").id != site.resolve("app:1").id
    assert mine.resolve("app:2").id == site.resolve("app:2").id
    assert mine.resolve("app:2").repo_tags == ("app:2",)


def test_a_lender_that_has_gone_is_an_error_of_that_image_alone(
    tmp_path: Path, site: ImageStore
) -> None:
    mine = opened(tmp_path / "mine", tmp_path / "site")
    mine.tag("app:1", "my:own")
    load(mine, "kept")
    os.rename(tmp_path / "site", tmp_path / "moved")
    later = opened(tmp_path / "mine", tmp_path / "site")
    assert later.unpack(later.resolve("kept"))
    assert later.resolve("my:own").repo_tags == ("kept:latest", "my:own")
    with pytest.raises(DockpyError, match="No such image"):
        later.resolve("app:2")


@pytest.mark.parametrize("what", ["blob", "form"])
def test_what_a_lender_has_is_checked(tmp_path: Path, site: ImageStore, what: str) -> None:
    (tmp_path / "site/snapshots/form").write_text("another kind of owners\n")
    layer = site.resolve("app:1").manifest.layers[0]
    if what == "blob":
        path = Path(site.content.path(layer.digest))
        data = bytearray(path.read_bytes())
        data[1024] ^= 1
        path.write_bytes(data)
    mine = opened(tmp_path / "mine", tmp_path / "site")
    found = mine.resolve("app:1")
    if what == "blob":
        with pytest.raises(DockpyError, match="diff id"):
            mine.unpack(found)
        return
    mine.unpack(found)
    mine.snapshots.prepare("key", found.chain_ids[-1])
    assert all(str(tmp_path / "mine") in place for place in mine.snapshots.layers("key"))


@pytest.mark.parametrize("form", ["", "another kind of owners\n"])
def test_sizes_are_the_lenders_own(tmp_path: Path, form: str) -> None:
    """Also where its trees do not serve here: what is told is what the layers take unpacked."""
    site = opened(tmp_path / "site")
    made = image("x" * 100_000, names=["app:1"], compress="gzip")
    archive.load(site, io.BytesIO(oci_archive(made)).read, lambda message: None)
    if form:
        (tmp_path / "site/snapshots/form").write_text(form)
    mine = opened(tmp_path / "mine", tmp_path / "site")
    theirs, ours = site.resolve("app:1"), mine.resolve("app:1")
    assert ours.size == theirs.size >= 100_000
    assert mine.history(ours) == site.history(theirs)
    mine.unpack(ours)
    assert opened(tmp_path / "mine", tmp_path / "site").resolve("app:1").size == theirs.size
