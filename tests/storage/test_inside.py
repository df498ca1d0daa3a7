"""dockpy/storage/inside.py: what a path of the archive calls means, beneath a root."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockpy.storage import inside
from dockpy.storage.pack import Packer


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_text("1")
    for name, to in (("abs", "/d/e"), ("rel", "d/e"), ("up", "../../../d"), ("broken", "/no/where"),
                     ("loop", "loop"), ("two", "/abs/f")):  # fmt: skip
        (tmp_path / name).symlink_to(to)
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "clean"),
    [("a", "/a"), ("/a/../b", "/b"), ("a/", "/a/"), ("a/.", "/a/."), ("a/./", "/a/."), ("/", "/"),
     ("..", "/"), (".", "/."), ("/.", "/."), ("//a//b", "/a/b")],
)  # fmt: skip
def test_paths_are_cleaned_as_docker_cleans_them(path: str, clean: str) -> None:
    assert inside.cleaned(path) == clean


@pytest.mark.parametrize(
    ("path", "name", "target"),
    [("abs", "abs", "/d/e"), ("rel", "rel", "/d/e"), ("up", "up", "/d"), ("two", "two", "/d/e/f"),
     ("broken", "broken", "/no/where"), ("abs/", "abs", ""), ("d/e/.", ".", ""), ("/", "/", "")],
)  # fmt: skip
def test_what_lies_at_a_path(root: int, path: str, name: str, target: str) -> None:
    found = inside.look(root, path)
    assert (found.name, found.target) == (name, target)


def test_what_cannot_be_found(root: int) -> None:
    for path in ("nope", "broken/", "broken/x"):
        with pytest.raises(FileNotFoundError):
            inside.look(root, path)
    with pytest.raises(NotADirectoryError):
        inside.look(root, "d/e/f/")
    with pytest.raises(OSError, match="too many links"):
        inside.look(root, "loop")
    with pytest.raises(NotADirectoryError, match="extraction point is not a directory"):
        inside.folder(root, "two")
    assert inside.folder(root, "up/e") == "/d/e"


def test_the_kernels_file_systems_are_not_there() -> None:
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(FileNotFoundError):
            inside.look(fd, "/proc/1/status")
        output = io.BytesIO()
        packer = Packer(output.write)
        names: list[str] = []
        inside.pack(fd, "/dev", packer, lambda path, *rest: names.append(path) or (0, 0, 0o700),  # type: ignore[func-returns-value]
                    lambda path: path != "/dev")  # fmt: skip
        packer.end()
        assert "/dev/pts" in names and not any(name.startswith("/dev/pts/") for name in names)
    finally:
        os.close(fd)


def test_sparse_files_and_hard_links(root: int, tmp_path: Path) -> None:
    with (tmp_path / "d" / "sparse").open("wb") as file:
        file.truncate(5 << 20)
        file.seek(3 << 20)
        file.write(b"x" * 4096)
    os.link(tmp_path / "d" / "e" / "f", tmp_path / "d" / "h")
    output = io.BytesIO()
    packer = Packer(output.write)
    inside.pack(root, "d", packer, lambda *_: (7, 8, 0o640), lambda path: False)
    packer.end()
    with tarfile.open(fileobj=io.BytesIO(output.getvalue())) as tar:
        names = tar.getnames()
        assert names == ["d", "d/e", "d/e/f", "d/h", "d/sparse"]
        assert tar.getmember("d/h").linkname == "d/e/f"
        sparse = tar.extractfile("d/sparse")
        assert sparse is not None
        assert sparse.read() == bytes(3 << 20) + b"x" * 4096 + bytes((2 << 20) - 4096)
        assert (tar.getmember("d/e").uid, tar.getmember("d/e").gid) == (7, 8)
