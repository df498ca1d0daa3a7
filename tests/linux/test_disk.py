"""Where the disk puts things, on the file systems that take wishes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from dockpy.linux.disk import FS_IOC_GETFLAGS, FS_TOPDIR_FL, spread_folders
from dockpy.linux.mounts import fstatfs_type

EXT4_SUPER_MAGIC = 0xEF53


def test_a_folder_on_ext4_is_the_top_of_its_trees(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if fstatfs_type(fd) != EXT4_SUPER_MAGIC:
            pytest.skip("this folder is not on ext4")
        for _ in range(2):
            spread_folders(str(tmp_path))
            flags = int.from_bytes(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))[:4], "little")
            assert flags & FS_TOPDIR_FL
    finally:
        os.close(fd)


def test_a_file_system_without_such_a_wish_is_left_alone() -> None:
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))
        before = os.fstat(fd)
        spread_folders("/proc")
        after = os.fstat(fd)
        assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    finally:
        os.close(fd)
