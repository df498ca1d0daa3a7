"""Trees come out as archives that say what went in, and come in again the same."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from dockpy.storage.copy import merge
from dockpy.storage.diff import Change, changes, compared
from dockpy.storage.owners import SideTable
from dockpy.storage.tree import write_tar
from dockpy.storage.view import USER_OPAQUE, Tree
from tests.storage.archives import Archive, unpack


def written(*trees: Tree, diff: bool = False) -> bytes:
    output = io.BytesIO()
    write_tar(output.write, trees, USER_OPAQUE, diff=diff)
    return output.getvalue()


def unpacked(archive: bytes, target: Path, real: bool = False) -> Tree:
    return Tree(str(target), unpack(archive, target, real=real)[1])


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    return {member.name: member for member in tarfile.open(fileobj=io.BytesIO(data))}


def full() -> bytes:
    archive = Archive().folder("d", 0o2750, uid=5, gid=6, mtime=7).add("d/f", b"x" * 1000, uid=1000)
    archive.hardlink("h", "d/f").add("s", type=tarfile.SYMTYPE, link="d/f", uid=3, mode=0o777)
    archive.add("sda", type=tarfile.BLKTYPE, mode=0o660, gid=6, device=(8, 1), mtime=0)
    archive.add("p", type=tarfile.FIFOTYPE, mode=0o600).add("n" * 150 + "é", b"", mtime=1.25)
    archive.add("x", b"1", mode=0o4755, pax={"SCHILY.xattr.user.k": "v"})
    return archive.done()


def test_a_tree_goes_out_and_in_unchanged(tmp_path: Path) -> None:
    first = written(unpacked(full(), tmp_path / "a"))
    assert first == written(unpacked(first, tmp_path / "b"))
    found = members(first)
    assert (found["d"].uid, found["d"].gid, found["d"].mode, found["d"].mtime) == (5, 6, 0o2750, 7)
    assert found["h"].uid == found["d/f"].uid == 1000
    assert found["d/f"].islnk() and found["d/f"].linkname == "h"
    assert (found["s"].linkname, found["s"].uid) == ("d/f", 3)
    assert (found["sda"].isblk(), found["sda"].devmajor, found["sda"].devminor) == (True, 8, 1)
    assert found["x"].mode == 0o4755
    assert found["x"].pax_headers["SCHILY.xattr.user.k"] == "v"
    assert found["n" * 150 + "é"].mtime == 1.25
    assert not [name for name in found if "override" in str(found[name].pax_headers)]


def test_names_come_sorted_and_equal_trees_are_equal_bytes(tmp_path: Path) -> None:
    one = Archive().add("b").add("a").folder("c").add("c/2").add("c/1").done()
    two = Archive().folder("c").add("c/1").add("a").add("c/2").add("b").done()
    first = written(unpacked(one, tmp_path / "1"))
    second = written(unpacked(two, tmp_path / "2"))
    assert first == second
    assert list(members(first)) == ["a", "b", "c", "c/1", "c/2"]


def test_holes_are_written_as_zeros(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with open(tmp_path / "t" / "f", "wb") as file:
        file.write(b"start")
        file.seek(3 << 20)
        file.write(b"middle")
        file.truncate(5 << 20)
    data = written(Tree(str(tmp_path / "t"), SideTable()))
    content = (tmp_path / "t" / "f").read_bytes()
    assert content in data


def test_a_stack_is_written_as_it_shows(tmp_path: Path) -> None:
    bottom = Archive().folder("d").add("d/a", b"1").add("d/b").add("gone").folder("o").add("o/old")
    top = Archive().add("d/a", b"22").add(".wh.gone").add("o/.wh..wh..opq").add("o/new").add("d/c")
    lower = unpacked(bottom.done(), tmp_path / "l")
    upper = unpacked(top.done(), tmp_path / "u")
    found = members(written(upper, lower))
    assert sorted(found) == ["d", "d/a", "d/b", "d/c", "o", "o/new"]
    assert found["d/a"].size == 2


def test_a_diff_has_whiteouts_and_opaque_marks(tmp_path: Path) -> None:
    layer = Archive().add(".wh.gone").folder("o").add("o/.wh..wh..opq").add("o/new").done()
    found = members(written(unpacked(layer, tmp_path / "u"), diff=True))
    assert sorted(found) == [".wh.gone", "o", "o/.wh..wh..opq", "o/new"]


def test_changes_are_told_as_docker_does(tmp_path: Path) -> None:
    bottom = Archive().folder("d").add("d/a", b"1").add("d/b").add("gone").folder("o").add("o/old")
    top = Archive().add("d/a", b"22").add(".wh.gone").folder("o").add("o/.wh..wh..opq").add("o/new")
    lower = unpacked(bottom.done(), tmp_path / "l")
    upper = unpacked(top.done(), tmp_path / "u")
    expected = [
        Change("C", b"/d"), Change("C", b"/d/a"), Change("D", b"/gone"), Change("C", b"/o"),
        Change("A", b"/o/new"), Change("D", b"/o/old"),
    ]  # fmt: skip
    assert list(changes(upper, [lower], USER_OPAQUE)) == expected
    (tmp_path / "whole").mkdir()
    table = merge([upper, lower], str(tmp_path / "whole"), USER_OPAQUE, real_owners=False)
    whole = Tree(str(tmp_path / "whole"), table)
    assert list(compared(whole, [lower], USER_OPAQUE)) == expected


@pytest.mark.parametrize("link", [False, True])
def test_merged_trees_show_the_same_as_their_stack(tmp_path: Path, link: bool) -> None:
    lower = unpacked(full(), tmp_path / "l")
    top = Archive().add("d/f", b"new", uid=9).add(".wh.p").add("z/y/x", b"deep", mode=0o400)
    upper = unpacked(top.done(), tmp_path / "u")
    (tmp_path / "m").mkdir()
    table = merge([upper, lower], str(tmp_path / "m"), USER_OPAQUE, real_owners=False, link=link)
    assert written(Tree(str(tmp_path / "m"), table)) == written(upper, lower)
    same = os.stat(tmp_path / "m/z/y/x").st_ino == os.stat(tmp_path / "u/z/y/x").st_ino
    assert same is link
