"""mount(2) and its younger relatives: open_tree, move_mount, mount_setattr, fsopen, pivot_root."""

from __future__ import annotations

import ctypes
import os

from dockpy.linux.libc import AT_EMPTY_PATH, prototype, raise_errno, syscall

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_SIZE_VER0 = 32

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

# statfs(2) f_type, as far as a target must be proven to be what it is called.
PROC_SUPER_MAGIC = 0x9FA0
DEVPTS_SUPER_MAGIC = 0x1CD1
TMPFS_MAGIC = 0x01021994
SYSFS_MAGIC = 0x62656572
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630


class mount_attr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_int, _uint, _ulong, _str = ctypes.c_int, ctypes.c_uint, ctypes.c_ulong, ctypes.c_char_p
_mount = prototype("mount", _str, _str, _str, _ulong, _str)
_umount2 = prototype("umount2", _str, _int)
_pivot_root = syscall("pivot_root", _str, _str)
_open_tree = syscall("open_tree", _int, _str, _uint)
_move_mount = syscall("move_mount", _int, _str, _int, _str, _uint)
_mount_setattr = syscall(
    "mount_setattr", _int, _str, _uint, ctypes.POINTER(mount_attr), ctypes.c_size_t
)
_fsopen = syscall("fsopen", _str, _uint)
_fsconfig = syscall("fsconfig", _int, _uint, _str, _str, _int)
_fsmount = syscall("fsmount", _int, _uint, _uint)
# struct statfs is longer on no architecture of ours, and begins with f_type, a long, on each.
_fstatfs = prototype("fstatfs", _int, ctypes.c_char_p)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(
    source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None
) -> None:
    if _mount(_bytes(source), os.fsencode(target), _bytes(fstype), flags, _bytes(data)) < 0:
        raise_errno(target)


def umount2(target: str, flags: int = 0) -> None:
    if _umount2(os.fsencode(target), flags) < 0:
        raise_errno(target)


def pivot_root(new_root: str, put_old: str) -> None:
    if _pivot_root(os.fsencode(new_root), os.fsencode(put_old)) < 0:
        raise_errno(new_root)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """A descriptor of the mount at `path`; with OPEN_TREE_CLONE of a detached copy of it."""
    fd = _open_tree(dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)
    if fd < 0:
        raise_errno(path)
    return fd


def move_mount(from_fd: int, to_fd: int) -> None:
    """Attaches the detached mount `from_fd` on the very file or folder `to_fd` is."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    if _move_mount(from_fd, b"", to_fd, b"", flags) < 0:
        raise_errno()


def mount_setattr(
    fd: int, attr_set: int, attr_clr: int = 0, propagation: int = 0, flags: int = 0
) -> None:
    """Changes the mount `fd` lies on top of (with AT_RECURSIVE in flags also those beneath it)."""
    attr = mount_attr(attr_set, attr_clr, propagation, 0)
    size = MOUNT_ATTR_SIZE_VER0
    if _mount_setattr(fd, b"", flags | AT_EMPTY_PATH, ctypes.byref(attr), size) < 0:
        raise_errno()


def fsopen(fstype: str) -> int:
    fd = _fsopen(fstype.encode(), FSOPEN_CLOEXEC)
    if fd < 0:
        raise_errno(fstype)
    return fd


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    if _fsconfig(fd, command, _bytes(key), _bytes(value), 0) < 0:
        raise_errno(key)


def fsmount(fd: int, attributes: int = 0) -> int:
    mounted = _fsmount(fd, FSMOUNT_CLOEXEC, attributes)
    if mounted < 0:
        raise_errno()
    return mounted


def fstatfs_type(fd: int) -> int:
    """f_type of the file system `fd` lies on."""
    buffer = ctypes.create_string_buffer(256)
    if _fstatfs(fd, buffer) < 0:
        raise_errno()
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF
