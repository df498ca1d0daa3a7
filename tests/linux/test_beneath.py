"""One contract, two implementations: each test runs on openat2 and on the walk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dockpy.linux import beneath

Open = Callable[..., int]


@pytest.fixture(params=["openat2", "walk"])
def open_in_root(request: pytest.FixtureRequest) -> Open:
    function: Open = {"openat2": beneath.open_by_openat2, "walk": beneath.open_by_walk}[
        request.param
    ]
    try:
        os.close(function(os.open("/", os.O_PATH), "/", os.O_PATH))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            pytest.skip("this kernel has no openat2 (5.6)")
        raise
    return function


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    inner = tmp_path / "root"
    (inner / "etc").mkdir(parents=True)
    (inner / "etc" / "passwd").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("outside")
    fd = os.open(inner, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(open_in_root: Open, root: int, path: str, flags: int = os.O_RDONLY) -> str:
    fd = open_in_root(root, path, flags)
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "path",
    [
        "etc/passwd",
        "/etc/passwd",
        "//etc/./passwd",
        "../etc/passwd",
        "etc/../../../etc/passwd",
        "/../../etc/passwd",
    ],
)
def test_paths_stay_inside(open_in_root: Open, root: int, path: str) -> None:
    assert read(open_in_root, root, path) == "inside"


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../etc/passwd",
        "../../../../etc/passwd",
        "etc/passwd",
        "/etc/../../etc/passwd",
    ],
)
def test_symlinks_stay_inside(open_in_root: Open, root: int, target: str) -> None:
    os.symlink(target, "link", dir_fd=root)
    assert read(open_in_root, root, "link") == "inside"


def test_chains_of_symlinks_and_loops(open_in_root: Open, root: int) -> None:
    os.symlink("/two", "one", dir_fd=root)
    os.symlink("etc", "two", dir_fd=root)
    assert read(open_in_root, root, "one/passwd") == "inside"
    os.symlink("loop", "loop", dir_fd=root)
    with pytest.raises(OSError) as caught:
        open_in_root(root, "loop", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP


def test_no_symlinks_when_asked(open_in_root: Open, root: int) -> None:
    os.symlink("etc", "link", dir_fd=root)
    with pytest.raises(OSError) as caught:
        open_in_root(root, "link/passwd", os.O_PATH, no_symlinks=True)
    assert caught.value.errno == errno.ELOOP
    os.close(open_in_root(root, "etc/passwd", os.O_PATH, no_symlinks=True))


def test_a_last_symlink_is_not_followed_when_asked(open_in_root: Open, root: int) -> None:
    os.symlink("etc", "link", dir_fd=root)
    fd = open_in_root(root, "link", os.O_PATH | os.O_NOFOLLOW)
    assert os.readlink("", dir_fd=fd) == "etc"
    os.close(fd)
    with pytest.raises(OSError) as caught:
        open_in_root(root, "link", os.O_RDONLY | os.O_NOFOLLOW)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("name", ["self/fd/0", "self/exe", "self/cwd", "self/root", "self/ns/mnt"])
def test_magic_links_of_proc_are_refused(open_in_root: Open, name: str) -> None:
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as caught:
            open_in_root(proc, name, os.O_PATH)
        assert caught.value.errno == errno.ELOOP
        # The ordinary links of procfs are followed.
        os.close(open_in_root(proc, "mounts", os.O_RDONLY))
    finally:
        os.close(proc)


@pytest.mark.parametrize(
    ("path", "flags", "number"),
    [
        ("no/such", os.O_RDONLY, errno.ENOENT),
        ("etc/passwd/x", os.O_RDONLY, errno.ENOTDIR),
        ("etc/passwd/", os.O_RDONLY, errno.ENOTDIR),
        ("etc/passwd", os.O_PATH | os.O_DIRECTORY, errno.ENOTDIR),
        ("etc/passwd", os.O_WRONLY | os.O_CREAT | os.O_EXCL, errno.EEXIST),
        ("etc", os.O_WRONLY, errno.EISDIR),
    ],
)
def test_errors_are_open_s(
    open_in_root: Open, root: int, path: str, flags: int, number: int
) -> None:
    with pytest.raises(OSError) as caught:
        open_in_root(root, path, flags, 0o600)
    assert caught.value.errno == number


def test_creation_makes_the_last_component(open_in_root: Open, root: int) -> None:
    fd = open_in_root(root, "etc/new", os.O_WRONLY | os.O_CREAT, 0o640)
    os.write(fd, b"x")
    os.close(fd)
    assert os.stat("etc/new", dir_fd=root).st_mode & 0o777 == 0o640


def test_descriptors_are_close_on_exec_and_none_leaks(open_in_root: Open, root: int) -> None:
    before = os.listdir("/proc/self/fd")
    fd = open_in_root(root, "etc/../etc/passwd", os.O_RDONLY)
    assert os.get_inheritable(fd) is False
    os.close(fd)
    for path in ("no/such", "etc/passwd/x"):
        with pytest.raises(OSError):
            open_in_root(root, path, os.O_RDONLY)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_folders_are_made_inside_through_symlinks(
    open_in_root: Open, root: int, tmp_path: Path
) -> None:
    os.symlink("/../etc", "link", dir_fd=root)
    os.close(beneath.make_directories(root, "/link/a/../b/c", opens=open_in_root))
    assert (tmp_path / "root/etc/b/c").is_dir()
    assert not (tmp_path / "etc/b").exists()


def test_a_dangling_symlink_is_never_created_through(
    open_in_root: Open, root: int, tmp_path: Path
) -> None:
    os.symlink(f"{tmp_path}/made", "link", dir_fd=root)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: beneath.make_directories(root, "link", opens=open_in_root),
        lambda: beneath.create_file(root, "link", opens=open_in_root),
    )
    for call in calls:
        with pytest.raises(OSError):
            call()
    assert not (tmp_path / "made").exists()


def test_files_are_made_with_their_folders_and_kept_when_there(
    open_in_root: Open, root: int, tmp_path: Path
) -> None:
    os.close(beneath.create_file(root, "/x/y/file", opens=open_in_root))
    os.close(beneath.create_file(root, "/etc/passwd", opens=open_in_root))
    assert (tmp_path / "root/x/y/file").read_text() == ""
    assert (tmp_path / "root/etc/passwd").read_text() == "inside"


def test_only_regular_files_are_read_and_only_so_much(
    open_in_root: Open, root: int, tmp_path: Path
) -> None:
    assert beneath.read_file(root, "etc/passwd", 3, opens=open_in_root) == b"ins"
    os.mkfifo(tmp_path / "root" / "pipe")
    for name in ("pipe", "etc"):
        with pytest.raises(OSError):
            beneath.read_file(root, name, 10, opens=open_in_root)
