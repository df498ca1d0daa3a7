"""Trees removed beneath a descriptor: no link is followed, no depth is too deep, no mode stops it.

A container's tree is hostile: directories nested past PATH_MAX, mode 000, a million names in one folder.
Files of other owners go because the daemon has CAP_DAC_OVERRIDE and CAP_FOWNER in its user namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import islice

_DEPTH = 64  # descriptors held at once; below it, subtrees are moved up to the top and removed from there
_BATCH = 4096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(dir_fd: int, name: str | bytes) -> None:
    """Removes `name` in `dir_fd`, whatever it is; nothing there is no error."""
    base = os.fsencode(name)
    try:
        os.unlink(base, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass  # EPERM is what unlink(2) says of directories on some file systems
    _Removal(dir_fd, base).run()


def remove_path(path: str) -> None:
    """Removes the tree at `path`, whose parent is a folder of ours."""
    parent, name = os.path.split(path)
    try:
        fd = os.open(parent, _FOLDER)
    except FileNotFoundError:
        return
    try:
        remove_tree(fd, name)
    finally:
        os.close(fd)


def empty_folder(fd: int) -> None:
    """Removes everything in the folder `fd`, not the folder itself."""
    for name in os.listdir(fd):
        remove_tree(fd, name)


class _Removal:
    def __init__(self, dir_fd: int, base: bytes) -> None:
        self._top = dir_fd
        self._base = base
        self._moved: list[bytes] = []

    def run(self) -> None:
        self._folder(self._top, self._base, 0)
        while self._moved:
            self._folder(self._top, self._moved.pop(), 0)

    def _folder(self, parent: int, name: bytes, depth: int) -> None:
        fd = _open_folder(parent, name)
        if fd < 0:
            return
        try:
            self._contents(fd, depth)
        finally:
            os.close(fd)
        _retry_writable(parent, lambda: os.rmdir(name, dir_fd=parent))

    def _contents(self, fd: int, depth: int) -> None:
        while True:
            # In batches, each from a fresh start: names read while others go may be skipped.
            with os.scandir(fd) as entries:
                batch = [
                    (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
                    for entry in islice(entries, _BATCH)
                ]
            if not batch:
                return
            for name, is_dir in batch:
                if not is_dir:
                    self._unlink(fd, name)
                elif depth < _DEPTH:
                    self._folder(fd, name, depth + 1)
                else:
                    self._move_up(fd, name)

    def _unlink(self, fd: int, name: bytes) -> None:
        _retry_writable(fd, lambda: os.unlink(name, dir_fd=fd))

    def _move_up(self, fd: int, name: bytes) -> None:
        moved = b".removed." + os.urandom(8).hex().encode()
        inner = _open_folder(fd, name)  # rename changes "..": the folder itself must be writable
        if inner < 0:
            return
        os.close(inner)
        _retry_writable(fd, lambda: os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=self._top))
        self._moved.append(moved)


def _open_folder(parent: int, name: bytes) -> int:
    """A descriptor of a folder, made readable, writable and searchable when it is not; -1 when gone."""
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return -1
    except PermissionError:
        pass
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        # fchmod(2) refuses O_PATH descriptors; through /proc it reaches this very inode.
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(b".", _FOLDER, dir_fd=handle)
    finally:
        os.close(handle)


def _retry_writable(fd: int, call: Callable[[], None]) -> None:
    try:
        call()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        os.fchmod(fd, 0o700)
        call()
