"""Honest layers come out as they went in; hostile ones are refused, or do no harm, and never leave the root."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockpy.errors import DockpyError, InvalidParameter, Unavailable
from dockpy.storage.owners import OVERRIDE
from dockpy.storage.remove import remove_path
from dockpy.storage.source import Limits
from tests.storage.archives import Archive, padded, pax_header, pax_record, raw_header, unpack

END = bytes(1024)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (chown, mknod)")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """The root, with a neighbour that nothing may touch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    yield tmp_path / "root"
    assert (outside / "victim").read_text() == "untouched"
    assert os.listdir(outside) == ["victim"]
    assert sorted(os.listdir(tmp_path)) in (["outside"], ["outside", "root"])
    if (tmp_path / "root").exists():
        remove_path(str(tmp_path / "root"))


def refused(data: bytes, target: Path, words: str | None = None, **options: object) -> None:
    with pytest.raises(InvalidParameter, match=words) as caught:
        unpack(data, target, **options)  # type: ignore[arg-type]  # passed on
    assert "\n" not in str(caught.value)


# Honest archives


def test_files_directories_links_modes_and_times(target: Path) -> None:
    archive = Archive().folder("d/", 0o750, mtime=1).add("d/f", b"hello", mode=0o640, mtime=1.5)
    archive.symlink("s", "d/f").hardlink("h", "d/f").add("p", type=tarfile.FIFOTYPE, mode=0o622)
    archive.add("su", b"x", mode=0o4755).add("./deep/er/f", b"y", mode=0o444)
    extracted, _ = unpack(archive.done(), target)
    assert (target / "d/f").read_bytes() == b"hello"
    assert stat.S_IMODE((target / "d/f").stat().st_mode) == 0o640
    assert (target / "d/f").stat().st_mtime_ns == 1_500_000_000
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o750
    assert (target / "d").stat().st_mtime == 1
    assert os.readlink(target / "s") == "d/f"
    assert (target / "h").stat().st_ino == (target / "d/f").stat().st_ino
    assert stat.S_ISFIFO((target / "p").stat().st_mode)
    assert stat.S_IMODE((target / "p").stat().st_mode) == 0o622
    assert stat.S_IMODE((target / "su").stat().st_mode) == 0o4755
    assert stat.S_IMODE((target / "deep").stat().st_mode) == 0o755
    assert extracted.size == 7


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(target: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        unpack(Archive().add("a", mode=0o666).folder("b", 0o777).done(), target)
    finally:
        os.umask(old)
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o666
    assert stat.S_IMODE((target / "b").stat().st_mode) == 0o777


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_format(target: Path, format: int) -> None:
    folder = "n" * 90
    name = (
        f"{folder}/{'f' * 95}"
        if format == tarfile.USTAR_FORMAT
        else f"{folder}/{folder}/" + "f" * 200
    )
    archive = Archive(format).add(name, b"long")
    if format != tarfile.USTAR_FORMAT:
        archive.symlink("link", "t" * 300)
    unpack(archive.done(), target)
    assert (target / name).read_bytes() == b"long"
    if format != tarfile.USTAR_FORMAT:
        assert os.readlink(target / "link") == "t" * 300


def test_names_are_bytes(target: Path) -> None:
    data = raw_header(b"\xff\xfe") + raw_header("é".encode()) + END
    unpack(data, target)
    assert sorted(os.listdir(os.fsencode(target))) == ["é".encode(), b"\xff\xfe"]


def test_size_in_base_256_and_in_a_pax_record(target: Path) -> None:
    data = raw_header(b"a", size=b"\x80" + (3).to_bytes(11, "big")) + padded(b"abc")
    data += pax_header(pax_record(b"size", b"4")) + raw_header(b"b") + padded(b"abcd") + END
    unpack(data, target)
    assert (target / "a").read_bytes() == b"abc"
    assert (target / "b").read_bytes() == b"abcd"


def test_a_negative_time_and_one_out_of_range(target: Path) -> None:
    data = raw_header(b"a", mtime=b"\xff" * 11 + b"\xfe") + raw_header(
        b"b", mtime=b"\x80" + b"\x7f" + b"\xff" * 3 + bytes(7)
    )
    with pytest.raises(InvalidParameter, match="mtime"):
        unpack(data + END, target)
    unpack(raw_header(b"a", mtime=b"\xff" * 11 + b"\xfe") + END, target)
    assert (target / "a").stat().st_mtime == -2
    unpack(pax_header(pax_record(b"mtime", b"9" * 19)) + raw_header(b"c") + END, target)
    assert (target / "c").stat().st_mtime == 0


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar is not installed")
@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_in_every_format(target: Path, tmp_path: Path, version: str) -> None:
    made = target / "made"
    made.mkdir(parents=True)
    with open(made / "hole", "wb") as file:
        for position in range(0, 40 << 20, 1 << 20):
            file.seek(position)
            file.write(b"%08d" % position)
        file.truncate(50 << 20)
    kind = ["--format=gnu"] if version == "gnu" else ["--format=pax", f"--sparse-version={version}"]
    data = subprocess.run(
        ["tar", "-C", str(made), "-S", *kind, "-cf", "-", "hole"],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert len(data) < 2 << 20
    unpack(data, target / "out")
    assert (target / "out" / "hole").read_bytes() == (made / "hole").read_bytes()
    assert (target / "out" / "hole").stat().st_blocks * 512 < 5 << 20


@as_root
def test_owners_are_given_and_set_id_bits_survive_it(target: Path) -> None:
    archive = Archive().add("f", mode=0o6755, uid=1000, gid=2000).folder("d", 0o2770, uid=5, gid=6)
    unpack(archive.add("l", type=tarfile.SYMTYPE, link="f", uid=7, gid=8).done(), target, real=True)
    for name, uid, gid in (("f", 1000, 2000), ("d", 5, 6), ("l", 7, 8)):
        assert ((target / name).lstat().st_uid, (target / name).lstat().st_gid) == (uid, gid)
    assert stat.S_IMODE((target / "f").stat().st_mode) == 0o6755
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o2770


def test_owners_are_remembered_with_a_single_id(target: Path) -> None:
    archive = Archive().add("f", mode=0o400, uid=1000, gid=2000).folder("d", 0o2770, uid=5, gid=6)
    archive.add("mine").add("l", type=tarfile.SYMTYPE, link="f", uid=7, gid=8)
    archive.add("sda", type=tarfile.BLKTYPE, mode=0o660, gid=6, device=(8, 0)).hardlink("l2", "l")
    archive.hardlink("sdb", "sda")
    _, table = unpack(archive.done(), target, real=False)
    assert os.getxattr(target / "f", OVERRIDE) == b"1000:2000:0400"
    assert os.getxattr(target / "d", OVERRIDE) == b"5:6:02770"
    assert OVERRIDE not in os.listxattr(target / "mine")
    for name in (b"l", b"l2"):
        known = table.get(name)
        assert known is not None and (known.uid, known.gid, known.kind) == (7, 8, "2")
    assert table.get(b"sdb") == table.get(b"sda")
    device = table.get(b"sda")
    assert device is not None and (device.gid, device.mode, device.kind, device.device) == (
        6,
        0o660,
        "4",
        (8, 0),
    )
    assert not os.path.lexists(target / "sda")


@as_root
def test_devices_are_made_by_root_but_never_a_whiteout(target: Path) -> None:
    archive = Archive().add("null", type=tarfile.CHRTYPE, mode=0o666, device=(1, 3))
    _, table = unpack(
        archive.add("zero", type=tarfile.CHRTYPE, device=(0, 0)).done(), target, real=True
    )
    assert not os.path.lexists(target / "zero")
    assert table.get(b"zero") is not None
    if os.path.lexists(target / "null"):
        assert (target / "null").stat().st_rdev == os.makedev(1, 3)
    else:
        assert table.get(b"null") is not None


# Names that lead out


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "/../x", "./../outside/victim"])
def test_dot_dot_above_the_root_is_refused(target: Path, name: str) -> None:
    refused(Archive().add(name, b"evil").done(), target, "leads out")


def test_dot_dot_inside_the_root_and_absolute_names_are_harmless(target: Path) -> None:
    unpack(Archive().add("a/../b", b"1").add("/etc/x", b"2").add("//c//./d", b"3").done(), target)
    assert (target / "b").read_bytes() == b"1"
    assert (target / "etc/x").read_bytes() == b"2"
    assert (target / "c/d").read_bytes() == b"3"


@pytest.mark.parametrize(
    "link",
    ["../outside", "/outside", "/", "..", "../../../../tmp", "/proc/self/root", "/proc/self/cwd"],
)
def test_a_symlinked_parent_resolves_inside_the_root(target: Path, link: str) -> None:
    try:
        unpack(Archive().symlink("way", link).add("way/victim", b"evil").done(), target)
    except InvalidParameter:
        assert not (target / "victim").exists()
    else:
        assert link in ("/", "..")
        assert (target / "victim").read_bytes() == b"evil"


def test_an_absolute_symlinked_parent_is_the_roots_own(target: Path) -> None:
    archive = Archive().folder("real").symlink("way", "/real").add("way/f", b"x")
    unpack(archive.done(), target)
    assert (target / "real/f").read_bytes() == b"x"


def test_a_file_is_not_written_through_a_symlink_of_its_name(target: Path) -> None:
    victim = target.parent / "outside" / "victim"
    unpack(Archive().symlink("f", str(victim)).add("f", b"evil").done(), target)
    assert (target / "f").read_bytes() == b"evil"
    assert not (target / "f").is_symlink()


def test_attributes_of_a_directory_do_not_go_through_a_symlink(target: Path) -> None:
    outside = target.parent / "outside"
    before = outside.stat()
    archive = (
        Archive().folder("d", 0o777, mtime=5).symlink("d", str(outside)).folder("e", 0o700, mtime=7)
    )
    unpack(archive.done(), target)
    after = outside.stat()
    assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)
    assert (target / "d").is_symlink()


def test_a_loop_of_symlinks_is_refused(target: Path) -> None:
    refused(Archive().symlink("a", "b").symlink("b", "a").add("a/f").done(), target, "a/f")


@pytest.mark.parametrize(
    "link",
    ["../outside/victim", "/outside/victim", "way/victim", "missing", "", "/", "d", "../root/f"],
)
def test_a_hard_link_leads_nowhere_else(target: Path, link: str) -> None:
    archive = Archive().symlink("way", "../outside").folder("d").add("f").hardlink("h", link)
    refused(archive.done(), target)
    assert not (target / "h").exists()


def test_a_hard_link_to_a_symlink_is_one_to_the_link(target: Path) -> None:
    victim = target.parent / "outside" / "victim"
    unpack(Archive().symlink("s", str(victim)).hardlink("h", "s").done(), target)
    assert (target / "h").is_symlink()
    assert victim.stat().st_nlink == 1


def test_a_file_written_over_a_hard_link_does_not_change_the_other_name(target: Path) -> None:
    unpack(
        Archive().add("a", b"1").hardlink("b", "a").add("b", b"2").hardlink("a", "a").done(), target
    )
    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (b"1", b"2")


@pytest.mark.parametrize("name", [".wh.", ".wh...", "d/.wh.", "d/.wh..."])
def test_a_whiteout_that_aims_at_its_directory_is_refused(target: Path, name: str) -> None:
    if name.endswith("..."):
        name = name[:-3] + "..."
    refused(Archive().folder("d").add(name).done(), target, "whiteout")


def test_a_whiteout_of_dot_is_refused(target: Path) -> None:
    refused(raw_header(b".wh..") + END, target, "whiteout of nothing")


def test_whiteouts_behind_a_symlink_stay_inside(target: Path) -> None:
    try:
        unpack(Archive().symlink("way", "../outside").add("way/.wh.victim").done(), target)
    except InvalidParameter:
        pass
    try:
        unpack(Archive().symlink("way", "../outside").add("way/.wh..wh..opq").done(), target)
    except InvalidParameter:
        pass


def test_members_below_a_whiteout_are_refused(target: Path) -> None:
    refused(Archive().add(".wh.a/b").done(), target, "whiteout has no members")


def test_aufs_bookkeeping_is_ignored(target: Path) -> None:
    unpack(
        Archive().folder(".wh..wh.plnk").add(".wh..wh.plnk/1.2", b"x").add(".wh..wh.aufs").done(),
        target,
    )
    assert os.listdir(target) == []


def test_forged_marks_and_owners_are_not_taken(target: Path) -> None:
    forged = {
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.whiteout": "y",
        "SCHILY.xattr.user.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        f"SCHILY.xattr.{OVERRIDE}": "0:0:04755",
        "SCHILY.xattr.security.selinux": "x",
        "SCHILY.xattr.user.mine": "kept",
    }
    archive = Archive().add("d", type=tarfile.DIRTYPE, mode=0o755, pax=forged).add("f", pax=forged)
    unpack(archive.done(), target)
    for name in ("d", "f"):
        assert os.listxattr(target / name) == ["user.mine"]


@as_root
def test_file_capabilities_are_kept(target: Path) -> None:
    value = struct.pack("<IIIII", 0x02000000 | 1, 1 << 10, 0, 0, 0)
    data = pax_header(pax_record(b"SCHILY.xattr.security.capability", value)) + raw_header(b"ping")
    unpack(data + END, target, real=True)
    assert os.getxattr(target / "ping", "security.capability") == value


# What is said twice


def test_the_last_of_two_files_wins(target: Path) -> None:
    unpack(Archive().add("f", b"long one", mode=0o755).add("f", b"2", mode=0o600).done(), target)
    assert (target / "f").read_bytes() == b"2"
    assert stat.S_IMODE((target / "f").stat().st_mode) == 0o600


def test_a_file_replaces_a_directory_and_all_in_it(target: Path) -> None:
    archive = Archive().folder("d").add("d/a/b/c", b"x").add("d", b"file").add("other/f")
    unpack(archive.done(), target)
    assert (target / "d").read_bytes() == b"file"


def test_members_after_a_replaced_directory_go_to_the_new_one(target: Path) -> None:
    archive = Archive().add("d/e/old").add("d", b"file").add("d/e/new")
    refused(archive.done(), target, "Not a directory")
    archive = Archive().add("d/e/old").symlink("d", "x").folder("d").add("d/e/new")
    unpack(archive.done(), target / "again")
    assert sorted(path.name for path in (target / "again").rglob("*")) == ["d", "e", "new"]


def test_a_directory_replaces_a_symlink_and_not_what_it_points_to(target: Path) -> None:
    archive = Archive().folder("real").symlink("d", "real").add("d/x").folder("d").add("d/f")
    unpack(archive.done(), target)
    assert not (target / "d").is_symlink()
    assert os.listdir(target / "d") == ["f"]
    assert os.listdir(target / "real") == ["x"]


def test_a_directory_said_twice_keeps_its_files_and_the_last_mode(target: Path) -> None:
    unpack(Archive().folder("d", 0o700).add("d/f").folder("d", 0o711).done(), target)
    assert os.listdir(target / "d") == ["f"]
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o711


def test_directories_replaced_again_and_again_are_refused(target: Path) -> None:
    archive = Archive()
    for _ in range(20):
        archive.folder("d").add("d", b"")
    refused(archive.done(), target, "too often", limits=Limits(replaced_directories=10))


# Numbers and records that lie


@pytest.mark.parametrize(
    "size",
    [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\x80\0\0\0\x7f" + b"\xff" * 7, b"-0000000001", b"0x000000001", b"99999999999", b"1_000", b"+1"],
)  # fmt: skip
def test_sizes_negative_huge_or_not_a_number_are_refused(target: Path, size: bytes) -> None:
    refused(raw_header(b"f", size=size) + END, target)


def test_a_size_greater_than_the_disk_is_refused_before_it_is_read(target: Path) -> None:
    with pytest.raises(Unavailable, match="no space"):
        unpack(raw_header(b"f", size=b"\x80" + (1 << 42).to_bytes(11, "big")) + bytes(4096), target)


@pytest.mark.parametrize(
    "body",
    [
        b"0 path=x\n", b"99999 path=x\n", b"9 path=xx", b"x path=y\n", b"-9 path=y\n", b"path=x\n", b"10 path\n..", b"5 =x\n",
        b" 9 path=x", pax_record(b"path", b"a\0b"), pax_record(b"size", b"-1"), pax_record(b"size", b"1e3"), pax_record(b"uid", b"9" * 30),
        pax_record(b"mtime", b"nan"), pax_record(b"mtime", b"1.x"), pax_record(b"uid", b"4294967295"), b"1234567890123 path=x\n", b"3 \n",
    ],
)  # fmt: skip
def test_damaged_pax_records_are_refused(target: Path, body: bytes) -> None:
    refused(
        raw_header(b"p", kind=b"x", size=b"%011o" % len(body))
        + padded(body)
        + raw_header(b"f")
        + END,
        target,
    )


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_huge_extended_header_is_refused(target: Path, kind: bytes) -> None:
    refused(
        raw_header(b"p", kind=kind, size=b"%011o" % (2 << 20)) + bytes(1 << 20),
        target,
        "extended header",
    )


def test_a_global_pax_header_is_ignored(target: Path) -> None:
    body = pax_record(b"path", b"everything")
    data = (
        raw_header(b"g", kind=b"g", size=b"%011o" % len(body))
        + padded(body)
        + raw_header(b"f")
        + END
    )
    unpack(data, target)
    assert os.listdir(target) == ["f"]


@pytest.mark.parametrize("name", [b"n" * 256, b"/".join([b"d" * 200] * 30)])
def test_names_longer_than_the_kernel_takes_are_refused(target: Path, name: bytes) -> None:
    refused(pax_header(pax_record(b"path", name)) + raw_header(b"f") + END, target, "too long")


def test_very_deep_directories_are_made_and_removed(target: Path) -> None:
    name = b"/".join([b"d"] * 2000)
    unpack(pax_header(pax_record(b"path", name)) + raw_header(b"f") + END, target)


def test_more_members_than_allowed_are_refused(target: Path) -> None:
    archive = Archive()
    for number in range(12):
        archive.add(f"f{number}")
    refused(archive.done(), target, "more than 10", limits=Limits(entries=10))
    refused(
        Archive().add("a/" * 50 + "f").done(), target, "more than 10", limits=Limits(entries=10)
    )


@pytest.mark.parametrize(
    "regions",
    [[(0, 10), (5, 10)], [(100, 10)], [(0, 4)], [(-5, 10)], [(0, 1 << 62)], [(10, 5), (0, 5)]],
)  # fmt: skip
def test_sparse_maps_that_lie_are_refused(target: Path, regions: list[tuple[int, int]]) -> None:
    text = b",".join(b"%d,%d" % region for region in regions)
    header = pax_header(pax_record(b"GNU.sparse.size", b"50"), pax_record(b"GNU.sparse.map", text))
    refused(header + raw_header(b"f", size=b"00000000012") + padded(b"0123456789") + END, target)


@pytest.mark.parametrize(
    "map", [b"x\n", b"1\n", b"2\n0\n5\n", b"99999999\n" + b"1\n" * 200, b"-1\n", b"", b"1" * 600]
)
def test_sparse_maps_in_the_data_that_lie_are_refused(target: Path, map: bytes) -> None:
    header = pax_header(
        pax_record(b"GNU.sparse.major", b"1"), pax_record(b"GNU.sparse.minor", b"0"),
        pax_record(b"GNU.sparse.name", b"f"), pax_record(b"GNU.sparse.realsize", b"50"),
    )  # fmt: skip
    data = padded(map)
    refused(header + raw_header(b"f", size=b"%011o" % len(data)) + data + END, target)


def test_an_old_sparse_map_without_end_is_refused(target: Path) -> None:
    head = bytearray(raw_header(b"f", kind=b"S"))
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    refused(bytes(head), target, "too early")


def test_a_sparse_name_that_leads_out_is_refused(target: Path) -> None:
    header = pax_header(
        pax_record(b"GNU.sparse.name", b"../x"), pax_record(b"GNU.sparse.size", b"0"), pax_record(b"GNU.sparse.map", b"0,0"),
    )  # fmt: skip
    refused(header + raw_header(b"f") + END, target, "leads out")


# Archives that end, expand or are none


@pytest.mark.parametrize("cut", [1, 511, 513, 900, 1023])
def test_a_truncated_archive_is_refused(target: Path, cut: int) -> None:
    refused(Archive().add("f", b"x" * 2000).done()[: 512 + cut], target, "too early")


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"not a tar at all" * 100,
        b"\x1f\x8bjunk",
        b"\x28\xb5\x2f\xfdjunk",
        b"BZh9",
        b"\x1f\x8b",
    ],
)
def test_what_is_no_archive_is_refused(target: Path, data: bytes) -> None:
    refused(data, target)


def test_a_wrong_checksum_is_refused(target: Path) -> None:
    data = bytearray(Archive().add("f").done())
    data[0] ^= 1
    refused(bytes(data), target, "not a tar archive")


def test_an_unknown_kind_is_refused(target: Path) -> None:
    refused(raw_header(b"f", kind=b"Z") + END, target, "unknown kind")


def test_a_root_that_is_no_directory_is_refused(target: Path) -> None:
    refused(raw_header(b"./", kind=b"2", link=b"/etc") + END, target, "root")


def test_a_bomb_is_refused(target: Path) -> None:
    bomb = gzip.compress(raw_header(b"zeros", size=b"%011o" % (40 << 20)) + bytes(40 << 20) + END)
    refused(bomb, target, "expands", limits=Limits(ratio=100, ratio_from=10 << 20))
    unpack(bomb, target / "patient")


def test_a_truncated_gzip_stream_is_refused(target: Path) -> None:
    data = gzip.compress(Archive().add("f", os.urandom(5000)).done())
    refused(data[:-20], target, "too early|damaged")
    refused(data[:2000], target, "too early")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small tmpfs")
def test_a_full_disk_is_told_in_one_sentence(target: Path) -> None:
    target.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(target)], check=False
    )
    if mounted.returncode:
        pytest.skip("this host lets nobody mount a tmpfs")
    try:
        with pytest.raises(DockpyError, match="No space left"):
            unpack(Archive().add("f", bytes(3 << 20)).done(), target)
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_memory_stays_bounded_by_a_stream_of_any_size(target: Path) -> None:
    import resource

    size = 300 << 20
    header = raw_header(b"f", size=b"%011o" % size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pieces = iter([header, *[bytes(1 << 20)] * 300, END])

    def read(limit: int) -> bytes:
        return next(pieces, b"")

    from dockpy.storage.layer import extract
    from dockpy.storage.owners import Owners

    target.mkdir()
    fd = os.open(target, os.O_RDONLY)
    extract(read, fd, Owners(False))
    os.close(fd)
    assert (target / "f").stat().st_size == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120 << 10
