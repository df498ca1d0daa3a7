"""Paths that somebody else wrote, resolved inside a root folder: nothing outside it is ever
reached.

The root behaves as "/" does after chroot: absolute symlinks start at it, ".." stops at it. Magic
links of /proc (fd, exe, cwd, root, ns …) are refused with ELOOP: they lead out of any root. What
is answered is a descriptor; work on it (or on /proc/self/fd/N), never on the path again.

One contract, two implementations: openat2(2), and a walk by O_PATH|O_NOFOLLOW for kernels before
5.6 and for hosts whose seccomp policy has never heard of openat2 (they say ENOSYS, older ones
EPERM).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from dockpy.linux.libc import AT_FDCWD, raise_errno, syscall
from dockpy.linux.mounts import PROC_SUPER_MAGIC, fstatfs_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeAlias

    # What open_in_root is: the functions at the end work with either implementation.
    Open: TypeAlias = Callable[..., int]

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# The kernel's own bound on nested symlinks (MAXSYMLINKS).
MOST_LINKS = 40
# openat2 says EAGAIN when a rename anywhere raced with a ".."; more than this is an attack.
MOST_RACES = 128


class open_how(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_openat2 = syscall(
    "openat2", ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(open_how), ctypes.c_size_t
)


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    how = open_how(flags | os.O_CLOEXEC, mode, resolve)
    fd = _openat2(dirfd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        raise_errno(path)
    return fd


def open_in_root(
    root: int, path: str, flags: int, mode: int = 0, *, no_symlinks: bool = False
) -> int:
    """open(2) with folder `root` as "/"; O_CREAT makes the last component only.

    `no_symlinks`: any symlink on the way is ELOOP.
    """
    try:
        return open_by_openat2(root, path, flags, mode, no_symlinks=no_symlinks)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    return open_by_walk(root, path, flags, mode, no_symlinks=no_symlinks)


def open_straight(path: str) -> int:
    """An O_PATH descriptor of the folder `path` (absolute): ELOOP where a symbolic link is on the way to it."""
    return openat2(AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_NO_SYMLINKS)


def open_by_openat2(
    root: int, path: str, flags: int, mode: int = 0, *, no_symlinks: bool = False
) -> int:
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    if no_symlinks:
        resolve |= RESOLVE_NO_SYMLINKS
    races = 0
    while True:
        try:
            return openat2(root, path, flags, mode if flags & os.O_CREAT else 0, resolve)
        except OSError as error:
            races += 1
            if error.errno != errno.EAGAIN or races > MOST_RACES:
                raise


def open_by_walk(
    root: int, path: str, flags: int, mode: int = 0, *, no_symlinks: bool = False
) -> int:
    pending = _components(path)
    trail = [os.dup(root)]  # the folders from the root to where we are: ".." goes back, never up
    links = 0
    wants_folder = path.endswith("/") or not pending or pending[-1] in (".", "..")
    try:
        while pending:
            name = pending.pop(0)
            if name == ".":
                continue
            if name == "..":
                if len(trail) > 1:
                    os.close(trail.pop())
                continue
            here = trail[-1]
            last = not pending
            if last and flags & os.O_CREAT and not wants_folder:
                try:  # O_EXCL: a symlink put there meanwhile is not followed
                    return os.open(
                        name, flags | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=here
                    )
                except FileExistsError:
                    if flags & os.O_EXCL:
                        raise
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            kind = os.fstat(fd).st_mode
            if stat.S_ISLNK(kind):
                if last and flags & os.O_NOFOLLOW and not wants_folder:
                    if flags & os.O_PATH:
                        return fd
                    os.close(fd)
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                links += 1
                try:
                    target = _target(fd, path, links, no_symlinks)
                finally:
                    os.close(fd)
                if target.startswith("/"):
                    while len(trail) > 1:
                        os.close(trail.pop())
                wants_folder = wants_folder or (last and target.endswith("/"))
                pending = _components(target) + pending
                continue
            if last and not wants_folder:
                return _reopen(fd, here, name, flags)
            trail.append(fd)
            if not stat.S_ISDIR(kind):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return _reopen(os.dup(trail[-1]), trail[-1], ".", flags)
    finally:
        for fd in trail:
            os.close(fd)


def _components(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _target(fd: int, path: str, links: int, no_symlinks: bool) -> str:
    """The text of symlink `fd`; ELOOP for one too many and for a magic link."""
    if not no_symlinks and links <= MOST_LINKS:
        target = os.readlink("", dir_fd=fd)
        # The ordinary links of procfs are relative names (self, mounts); magic ones show where they
        # lead: "/a/path", "pipe:[4]", "net:[5]", "(unreachable)/a/path".
        magic = target.startswith(("/", "(")) or ":" in target
        if not (magic and fstatfs_type(fd) == PROC_SUPER_MAGIC):
            return target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _reopen(fd: int, parent: int, name: str, flags: int) -> int:
    """`fd`, an O_PATH descriptor, as the open that was asked for; closes it unless it is the
    answer.
    """
    kind = os.fstat(fd).st_mode
    if flags & os.O_PATH and not (flags & os.O_DIRECTORY and not stat.S_ISDIR(kind)):
        return fd
    try:
        wanted = flags & ~(os.O_CREAT | os.O_EXCL)
        again = os.open(name, wanted | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(fd)
    return again


def make_directories(root: int, path: str, mode: int = 0o755, *, opens: Open = open_in_root) -> int:
    """mkdir -p of `path` in `root`; an O_PATH descriptor of the last folder.

    Symlinks to folders inside the root are followed; a dangling one is ENOENT, never created
    through.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return opens(root, path, flags)
    except FileNotFoundError:
        pass
    parent = opens(root, "/", flags)
    walked = ""
    for name in _components(os.path.normpath("/" + path)):
        walked += "/" + name
        try:
            fd = opens(root, walked, flags)
        except FileNotFoundError:
            try:
                os.mkdir(name, mode, dir_fd=parent)
            except FileExistsError:  # made meanwhile, or a dangling symlink: then ENOENT below
                pass
            except BaseException:
                os.close(parent)
                raise
            try:
                fd = opens(root, walked, flags)
            except BaseException:
                os.close(parent)
                raise
        except BaseException:
            os.close(parent)
            raise
        os.close(parent)
        parent = fd
    return parent


def create_file(root: int, path: str, mode: int = 0o644, *, opens: Open = open_in_root) -> int:
    """An O_PATH descriptor of `path` in `root`, made as an empty file (with its folders) when
    missing.
    """
    try:
        return opens(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    folder, name = os.path.split(os.path.normpath("/" + path))
    parent = make_directories(root, folder, opens=opens)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, mode, dir_fd=parent))
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)


def read_file(root: int, path: str, limit: int, *, opens: Open = open_in_root) -> bytes:
    """A regular file of the root, at most `limit` bytes of it; a pipe or device put there never
    blocks us.
    """
    fd = opens(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        parts = []
        while limit > 0:
            part = os.read(fd, min(limit, 1 << 20))
            if not part:
                break
            parts.append(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)
