"""Archives made again from their trees: to the last bit, or an error."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from dockpy.errors import DockpyError, InvalidParameter, NotFound
from dockpy.oci.digest import DiffID, digest_bytes
from dockpy.storage.content import ContentStore
from dockpy.storage.owners import SideTable
from dockpy.storage.recipes import INLINED, Recipes
from dockpy.storage.view import Tree
from tests.storage.archives import Archive, unpack


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "images"))


def noise(size: int) -> bytes:
    return random.Random(1).getrandbits(8 * size).to_bytes(size, "big")


def all_kinds() -> bytes:
    archive = Archive().folder("d", 0o2750, uid=5, gid=6, mtime=7).add("d/f", noise(600_000))
    archive.hardlink("h", "d/f").add("s", type=tarfile.SYMTYPE, link="d/f", uid=3, mode=0o777)
    archive.add("p", type=tarfile.FIFOTYPE).add("./d//" + "n" * 150 + "é", b"", mtime=1.25)
    archive.add("sda", type=tarfile.BLKTYPE, device=(8, 1)).add("x", b"1" * 512, mode=0)
    archive.add("x.y", b"2" * 513, pax={"SCHILY.xattr.user.k": "v"}).add(".wh.gone").add("e")
    return archive.done()


def again(recipes: Recipes, diff_id: DiffID, tree: Path) -> bytes:
    read = recipes.open(diff_id, Tree(str(tree), SideTable()))
    made = io.BytesIO()
    while piece := read(100_000):
        made.write(piece)
    return made.getvalue()


@pytest.mark.parametrize("behind", [b"", b"\0" * 9000, b"not a tar's any more"])
def test_an_archive_comes_again_to_the_last_bit(
    tmp_path: Path, content: ContentStore, behind: bytes
) -> None:
    data = all_kinds() + behind
    tree = tmp_path / "tree"
    unpack(data, tree)
    recipes, diff_id = Recipes(content), DiffID(digest_bytes(data))
    assert not recipes.has(diff_id) and not list(recipes.diff_ids()) and not recipes.size()
    assert recipes.write(diff_id, io.BytesIO(data).read, str(tree))
    assert recipes.has(diff_id) and list(recipes.diff_ids()) == [diff_id]
    assert 0 < recipes.size() < 3000, "the data are the tree's"
    assert again(recipes, diff_id, tree) == data
    assert again(Recipes(ContentStore(str(tmp_path / "b"), [content.root])), diff_id, tree) == data
    recipes.remove(diff_id)
    assert not list(Path(content.root, "recipes").iterdir())
    with pytest.raises(NotFound):
        again(recipes, diff_id, tree)


def test_what_the_tree_has_not_stands_in_the_recipe(tmp_path: Path, content: ContentStore) -> None:
    """A name twice: the tree has the second one's data. And a file that has become shorter."""
    data = Archive().add("a", noise(5000)).add("a", b"new").add("b", b"b" * 3000).done()
    tree = tmp_path / "tree"
    unpack(data, tree)
    os.truncate(tree / "b", 1000)
    recipes, diff_id = Recipes(content), DiffID(digest_bytes(data))
    assert recipes.write(diff_id, io.BytesIO(data).read, str(tree))
    assert 5000 < recipes.size() < 7000
    assert again(recipes, diff_id, tree) == data


def test_a_tree_with_too_little_of_it_has_no_recipe(tmp_path: Path, content: ContentStore) -> None:
    data = Archive().add("a", noise(INLINED + 1)).add("a", b"new").done()
    tree = tmp_path / "tree"
    unpack(data, tree)
    recipes, diff_id = Recipes(content), DiffID(digest_bytes(data))
    assert not recipes.write(diff_id, io.BytesIO(data).read, str(tree))
    with pytest.raises(InvalidParameter, match="has the diff id"):
        recipes.write(DiffID("sha256:" + "0" * 64), io.BytesIO(all_kinds()).read, str(tree))
    assert not list(Path(content.root, "recipes").iterdir())


def test_a_changed_tree_or_recipe_is_an_error_and_never_another_archive(
    tmp_path: Path, content: ContentStore
) -> None:
    data = Archive().add("a", noise(50_000)).add("b", b"b" * 3000).done()
    tree = tmp_path / "tree"
    unpack(data, tree)
    recipes, diff_id = Recipes(content), DiffID(digest_bytes(data))
    assert recipes.write(diff_id, io.BytesIO(data).read, str(tree))
    (tree / "a").write_bytes(noise(49_999) + b"?")
    with pytest.raises(InvalidParameter, match="have changed: pull the image again"):
        again(recipes, diff_id, tree)
    os.truncate(tree / "a", 49_999)
    with pytest.raises(InvalidParameter, match="a in the layer's tree is too short"):
        again(recipes, diff_id, tree)
    (tree / "a").unlink()
    (tree / "a").symlink_to("/etc/passwd")
    with pytest.raises(InvalidParameter, match="lacks a"):
        again(recipes, diff_id, tree)

    path = next(Path(content.root, "recipes").iterdir())
    whole = path.read_bytes()
    for damaged in (whole[:-20], b"", b"R" * 9, whole[:40] + b"\0" * 40 + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(DockpyError):
            again(recipes, diff_id, tree)
