from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from dockpy.storage.remove import empty_folder, remove_path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("x")
    return tmp_path / "outside"


def test_links_are_removed_not_followed(tmp_path: Path, outside: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "l").symlink_to(outside)
    (tree / "d" / "l").symlink_to(outside / "victim")
    remove_path(str(tree))
    assert not tree.exists()
    assert (outside / "victim").read_text() == "x"
    (tmp_path / "link").symlink_to(outside)
    remove_path(str(tmp_path / "link"))
    assert os.listdir(tmp_path) == ["outside"]
    remove_path(str(tmp_path / "nothing" / "there"))
    remove_path(str(tmp_path / "nothing"))


def make_forbidden(tree: Path) -> None:
    (tree / "a" / "b" / "c").mkdir(parents=True)
    (tree / "a" / "b" / "f").write_text("x")
    (tree / "a" / "ro").mkdir()
    (tree / "a" / "ro" / "f").write_text("x")
    (tree / "a" / "ro").chmod(0o500)
    (tree / "a" / "b").chmod(0)


def test_directories_without_any_permission_go() -> None:
    """Meaningful for whoever is not root: run as nobody when we are."""
    # Not pytest's folder: nobody may not enter it.
    folder = Path(tempfile.mkdtemp(prefix="dockpy-test-"))
    folder.chmod(0o755)
    make_forbidden(folder / "tree")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                for root, _, names in os.walk(folder):
                    for path in [root, *(os.path.join(root, name) for name in names)]:
                        os.chown(path, 65534, 65534)
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            remove_path(str(folder / "tree"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    folder.rmdir()


def test_a_tree_deeper_than_any_path_goes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 50, dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    remove_path(str(tree))
    assert os.listdir(tmp_path) == []


def test_a_folder_is_emptied(tmp_path: Path) -> None:
    for number in range(5000):
        (tmp_path / str(number)).touch()
    (tmp_path / "d" / "e").mkdir(parents=True)
    fd = os.open(tmp_path, os.O_RDONLY)
    empty_folder(fd)
    os.close(fd)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root (mkfifo is for all, mknod is not)")
def test_every_kind_of_file_goes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "p")
    try:
        os.mknod(tree / "w", 0o020000, os.makedev(0, 0))
    except PermissionError:
        pass
    subprocess.run(["mkdir", "-m", "0", str(tree / "closed")], check=True)
    remove_path(str(tree))
    assert not tree.exists()
