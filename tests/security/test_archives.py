"""Archives by a machine that knows what hurts: each is unpacked inside its root or refused in a
sentence, and never a traceback, a descriptor or a file elsewhere is left."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from dockpy.errors import DockpyError, InvalidParameter
from dockpy.storage import remove
from dockpy.storage.layer import extract
from dockpy.storage.owners import Owners

FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
KINDS = (
    *(tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE),
)
NAMES = (
    *("a", "a/b", "a/b/c", "l", "l/x", "../x", "/abs", "a/../b", ".wh.a", "a/.wh..wh..opq"),
    *("d" * 120 + "/e", "a/.wh.b", "l/.wh.y", ".", "a/./b"),
)
# Offsets of a header's fields, where a changed byte means most.
FIELDS = (0, 100, 108, 116, 124, 125, 126, 135, 136, 148, 156, 157, 257, 263, 329, 345, 386, 482)


def archive(dice: random.Random, outside: str) -> bytearray:
    """Some members that get in each other's way, and then some bytes changed."""
    stream = io.BytesIO()
    links = ("a", f"../../../../../../..{outside}", outside, "/", "..", "l", "a/b", ".")
    with tarfile.open(fileobj=stream, mode="w", format=dice.choice(FORMATS)) as tar:
        for _ in range(dice.randrange(1, 12)):
            member = tarfile.TarInfo(dice.choice(NAMES))
            member.type = dice.choice(KINDS)
            member.mode = dice.choice([0o755, 0o644, 0o4755, 0, 0o7777])
            member.uid = dice.choice([0, 5, 70000])
            member.mtime = dice.choice([0, 10**9, -1])
            if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = dice.choice(links)
            data = bytes(dice.choice([0, 1, 511, 512, 513, 3000]))
            try:
                if member.type == tarfile.REGTYPE:
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                else:
                    tar.addfile(member)
            except ValueError:  # what this format cannot say
                continue
    result = bytearray(stream.getvalue()[: 512 * 40])
    for _ in range(dice.choice([0, 0, 1, 3, 10])):
        block = dice.randrange(len(result)) // 512 * 512
        at = block + dice.choice([*FIELDS, dice.randrange(512)])
        result[at] = dice.choice([*b"\0 ./0179\x80\xff", dice.randrange(256)])
        if dice.random() < 0.9:  # a checksum that fits, so that it is read at all
            total = sum(result[block : block + 512]) - sum(result[block + 148 : block + 156])
            result[block + 148 : block + 156] = b"%06o\0 " % (total + 8 * 32)
    return result


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_a_hostile_archive_stays_inside_or_is_refused(tmp_path: Path, first: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    before = os.stat(outside)
    descriptors = len(os.listdir("/proc/self/fd"))
    for seed in range(first, first + 250):
        dice = random.Random(seed)
        root = tmp_path / "root"
        root.mkdir()
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            extract(io.BytesIO(archive(dice, str(outside))).read, fd, Owners(dice.random() < 0.5))
        except DockpyError as error:
            assert "\n" not in str(error), seed
        finally:
            os.close(fd)
        remove.remove_path(str(root))
        after = os.stat(outside)
        assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode), seed
        assert os.listdir(tmp_path) == ["outside"], seed
        assert os.listdir(outside) == [], seed
        assert len(os.listdir("/proc/self/fd")) == descriptors, seed


@pytest.mark.parametrize(("major", "minor"), [(4096, 0), (0, 1 << 20), (0o7777777, 0o7777777)])
def test_a_device_number_that_no_kernel_has_is_refused(
    tmp_path: Path, major: int, minor: int
) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("node")
        member.type, member.devmajor, member.devminor = tarfile.CHRTYPE, major, minor
        tar.addfile(member)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(InvalidParameter, match="device number"):
            extract(io.BytesIO(stream.getvalue()).read, fd, Owners(True))
    finally:
        os.close(fd)
