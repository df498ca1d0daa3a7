"""dockpy/storage/untar.py: archives into living trees, docker's rules, and nothing outside the place."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import threading
from pathlib import Path

import pytest

from dockpy.errors import DockpyError, InvalidParameter
from dockpy.storage.untar import CannotOverwrite, Place, untar
from tests.storage.archives import Archive, reader


def into(path: Path, archive: Archive | bytes, *, follow: bool = True, **options: object) -> None:
    data = archive if isinstance(archive, bytes) else archive.done()
    root = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        untar(reader(data), Place(root, "", follow=follow), own=None, **options)  # type: ignore[arg-type]  # flags
    finally:
        os.close(root)


def test_directories_are_merged_and_all_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "kept").write_text("kept")
    (tmp_path / "d" / "f").write_text("old")
    (tmp_path / "link").symlink_to("d")
    archive = Archive().folder("d", 0o750, mtime=5).add("d/f", b"new", mode=0o640, mtime=6)
    into(tmp_path, archive.add("link", b"a file").folder("made/by/itself"))
    assert (tmp_path / "d" / "kept").read_text() == "kept"
    assert (tmp_path / "d" / "f").read_text() == "new"
    assert (tmp_path / "link").read_text() == "a file"
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    assert (tmp_path / "d").stat().st_mtime == 5
    assert sorted(os.listdir(tmp_path / "d")) == ["f", "kept"]  # nothing is left aside


def test_every_kind_arrives(tmp_path: Path) -> None:
    archive = Archive().add("f", b"x" * 5000).hardlink("h", "f").symlink("s", "nowhere/at/all")
    archive.add("p", type=tarfile.FIFOTYPE, mode=0o622).add("new\nline").add("é" * 80 + "x" * 90)
    archive.add("set", b"", mode=0o4711)
    into(tmp_path, archive)
    assert (tmp_path / "f").stat().st_ino == (tmp_path / "h").stat().st_ino
    assert os.readlink(tmp_path / "s") == "nowhere/at/all"
    assert stat.S_ISFIFO((tmp_path / "p").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o622
    assert stat.S_IMODE((tmp_path / "set").stat().st_mode) == 0o4711
    assert (tmp_path / "new\nline").exists() and (tmp_path / ("é" * 80 + "x" * 90)).exists()
    into(tmp_path, archive)  # and again, over itself
    assert len(os.listdir(tmp_path)) == 7


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/../out"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(InvalidParameter, match="out of the archive's root"):
        into(place, Archive().add(name, b"x"))
    assert os.listdir(tmp_path) == ["place"]


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("target", ["/", "..", "../..", "/../.."])
def test_a_link_of_the_archive_leads_nowhere_outside(
    tmp_path: Path, target: str, follow: bool
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    archive = Archive().symlink("l", target).add("l/evil", b"x").hardlink("hard", "l/evil")
    try:
        into(place, archive, follow=follow)
    except DockpyError:
        assert not follow  # a link on the way is an error here
    assert not os.path.exists("/evil") and not (tmp_path / "evil").exists()
    assert os.path.exists(place / "evil") == follow


def test_no_overwrite_keeps_kinds(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("f")
    with pytest.raises(
        CannotOverwrite, match='cannot overwrite directory "/d" with non-directory "/"'
    ):
        into(tmp_path, Archive().add("d", b""), no_overwrite=True)
    with pytest.raises(
        CannotOverwrite, match='cannot overwrite non-directory "/f" with directory "/"'
    ):
        into(tmp_path, Archive().folder("f"), no_overwrite=True)
    into(tmp_path, Archive().add("d", b"1").folder("f"))
    assert (tmp_path / "d").read_text() == "1" and (tmp_path / "f").is_dir()


def test_names_are_replaced(tmp_path: Path) -> None:
    archive = Archive().folder("a").add("a/f", b"1").hardlink("a/h", "a/f")
    into(tmp_path, archive, rename=lambda name: name.replace(b"a", b"z", 1))
    assert (tmp_path / "z" / "h").read_text() == "1"


def test_two_archives_at_once_have_the_same_names(tmp_path: Path) -> None:
    data = Archive().folder("d").add("d/f", b"x").symlink("d/s", "f").done()
    wrong: list[DockpyError] = []

    def write() -> None:
        try:
            into(tmp_path, data)
        except DockpyError as error:
            wrong.append(error)

    for _ in range(100):
        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert sorted(os.listdir(tmp_path / "d")) == ["f", "s"]
        shutil.rmtree(tmp_path / "d")


def test_a_cut_archive_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    whole = Archive().add("f", b"n" * 4096).done()
    with pytest.raises(InvalidParameter, match="too early"):
        into(tmp_path, whole[:2048])
    assert os.listdir(tmp_path) == ["f"] and (tmp_path / "f").read_text() == "old"
    with pytest.raises(InvalidParameter, match="too early"):
        into(tmp_path, Archive().add("g", b"n" * 4096).done()[:2048])
    assert os.listdir(tmp_path) == ["f"]


def test_xattrs_that_would_forge_ours_are_not_taken(tmp_path: Path) -> None:
    pax = {f"SCHILY.xattr.user.{name}": "1" for name in ("ok", "overlay.opaque", "containers.x")}
    into(tmp_path, Archive().add("f", b"", pax=pax))
    assert os.listxattr(tmp_path / "f") == ["user.ok"]


def test_the_kernels_own_file_systems_are_no_place(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(DockpyError, match="kernel"):
            untar(
                reader(Archive().add("f").done()), Place(root, "/proc/self", follow=True), own=None
            )
    finally:
        os.close(root)
