"""A layer's files held against its archive, byte for byte."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from dockpy.storage.check import tree_problem
from dockpy.storage.owners import SideTable
from dockpy.storage.view import Tree
from tests.storage.archives import Archive, reader, unpack

NOISE = random.Random(1).randbytes(3 << 20)
OTHER = "has other bytes than in its archive"


def problem(data: bytes, tree: Path) -> str:
    return tree_problem(reader(data), Tree(str(tree), SideTable()), content=True)


def flip(path: Path, at: int) -> None:
    """A byte of a file that keeps its size and its times."""
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes((byte[0] ^ 1,)))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("at", [0, 1 << 20, len(NOISE) - 1])
def test_one_byte_is_found_wherever_it_is(tmp_path: Path, at: int) -> None:
    data = Archive().folder("d").add("d/f", NOISE).add("g", b"g").hardlink("h", "d/f").done()
    tree = tmp_path / "tree"
    unpack(data, tree)
    assert problem(data, tree) == ""
    flip(tree / "d/f", at)
    assert problem(data, tree) == f"d/f {OTHER}"
    flip(tree / "g", 0)
    assert problem(data, tree) == f"d/f {OTHER}, and 1 more"
    assert tree_problem(reader(data), Tree(str(tree), SideTable())) == ""


def test_the_last_of_several_members_of_a_file_counts(tmp_path: Path) -> None:
    """The same name twice, two ways to one file, a file that is hidden again, and one that becomes a folder."""
    archive = Archive().add("a", b"1").add("a", b"2").folder("usr/lib").symlink("lib", "usr/lib")
    archive.add("lib/x", b"3").add("usr/lib/x", b"4").add("gone", b"5").add(".wh.gone")
    data = archive.add("f", b"6").folder("f").add("f/g", b"7").done()
    tree = tmp_path / "tree"
    unpack(data, tree)
    assert problem(data, tree) == ""
    flip(tree / "usr/lib/x", 0)
    assert problem(data, tree).endswith(f"lib/x {OTHER}")


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar is not installed")
@pytest.mark.parametrize("kind", ["--format=gnu", "--format=pax"])
def test_of_a_sparse_file_data_and_holes_are_compared(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "f").open("wb") as file:
        for at in (1 << 20, 5 << 20):
            file.seek(at)
            file.write(b"x" * 4096)
        file.truncate(1 << 34)
    data = subprocess.run(
        ["tar", "--sparse", kind, "-C", source, "-cf", "-", "f"], capture_output=True, check=True
    ).stdout
    assert len(data) < 1 << 20
    tree = tmp_path / "tree"
    unpack(data, tree)
    assert problem(data, tree) == ""
    for at in (5 << 20, 3 << 20, (1 << 34) - 1):
        flip(tree / "f", at)
        assert problem(data, tree) == f"f {OTHER}"
        flip(tree / "f", at)
        assert problem(data, tree) == ""


def test_what_is_no_file_any_more_is_told_once(tmp_path: Path) -> None:
    data = Archive().add("a", b"1").add("b", b"2").add("c", b"3").add("d", b"4").done()
    tree = tmp_path / "tree"
    unpack(data, tree)
    for name in "abc":
        (tree / name).unlink()
    os.mkfifo(tree / "a")
    (tree / "b").symlink_to("d")
    assert problem(data, tree) == "a is no file, and 2 more"
