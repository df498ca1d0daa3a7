"""Paths inside a container as docker's archive calls read them, beneath a descriptor of its root.

A path is cleaned as text first (so `..` stops at the root, whatever the links are), but for a last `/`
or `/.`, which say that a folder is meant: then a link there is followed, else it is not.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dockpy.linux import beneath
from dockpy.storage.owners import OVERRIDE, Owners, remembered_fd
from dockpy.storage.pack import Packer, below, is_kernel_s
from dockpy.storage.view import Tree

if TYPE_CHECKING:
    from dockpy.storage.pack import Owner

_HANDLE = os.O_PATH | os.O_NOFOLLOW
_MOST_LINKS = 255  # of one path, as Go's EvalSymlinks


@dataclass(frozen=True)
class Found:
    """What lies at a path: `name` as docker calls it, `target` where a link leads (absolute, as far as it goes)."""

    name: str
    state: os.stat_result
    target: str


def cleaned(path: str) -> str:
    """Absolute and without `.` and `..`, but for a last one that the path had."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if posixpath.basename(path.rstrip("/")) == "." or path == ".":
        return clean.rstrip("/") + "/."
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def look(root: int, path: str) -> Found:
    """OSError as lstat(2) says it."""
    path = cleaned(path)
    fd = _open(root, path)
    try:
        state = os.fstat(fd)
    finally:
        os.close(fd)
    target = evaluated(root, path) if stat.S_ISLNK(state.st_mode) else ""
    return Found(posixpath.basename(path.rstrip("/")) or "/", state, target)


def folder(root: int, path: str) -> str:
    """The folder that `path` means with all links followed, as a path without any; NotADirectoryError."""
    real = evaluated(root, cleaned(path))
    fd = beneath.open_in_root(root, real, os.O_PATH)
    try:
        _refuse_kernel_s(fd, path)
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "extraction point is not a directory", path)
    finally:
        os.close(fd)
    return real


def evaluated(root: int, path: str) -> str:
    """`path` with every link in it followed, also where what it leads to is not there."""
    pending = [part for part in path.split("/") if part not in ("", ".")][::-1]
    real = ""
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            real = posixpath.dirname(real).rstrip("/")
            continue
        target = _link(root, f"{real}/{part}")
        if target is None:
            real = f"{real}/{part}"
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, "too many links", path)
        if target.startswith("/"):
            real = ""
        pending += reversed(target.split("/"))
    return real or "/"


def _link(root: int, path: str) -> str | None:
    try:
        fd = beneath.open_in_root(root, path, _HANDLE)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            return None
        _refuse_kernel_s(fd, path)  # where those of procfs lead is no text
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


def pack(
    root: int,
    path: str,
    packer: Packer,
    owner: Callable[[str, int, bytes, os.stat_result], Owner],
    hidden: Callable[[str], bool],
) -> None:
    """What lies at `path` as one archive, its first name that of the path (`.` for `path/.`).

    `owner(path in the container, parent, base, state)`; folders for which `hidden` is true show as empty.
    """
    path = cleaned(path)
    fd = _open(root, path)
    try:
        state = os.fstat(fd)
        name = os.fsencode(posixpath.basename(path.rstrip("/")))
        if not stat.S_ISDIR(state.st_mode):
            _pack_one(root, path, packer, owner)
            return
        real = evaluated(root, path)
        top = beneath.open_in_root(fd, ".", os.O_PATH | os.O_DIRECTORY)
    finally:
        os.close(fd)
    try:
        prefix = "" if real == "/" else real
        first = name + b"/" if name else b"/"
        packer.add(first, top, b".", state, owner(real, top, b".", state))
        if hidden(real):
            return
        for inner, parent, base, state in below(
            top, lambda inner: hidden(f"{prefix}/{os.fsdecode(inner)}")
        ):
            whole = f"{prefix}/{os.fsdecode(inner)}"
            packer.add(first + inner, parent, base, state, owner(whole, parent, base, state))
    finally:
        os.close(top)


def _pack_one(
    root: int,
    path: str,
    packer: Packer,
    owner: Callable[[str, int, bytes, os.stat_result], Owner],
) -> None:
    folder_path, base = posixpath.split(path)
    parent = beneath.open_in_root(root, folder_path, os.O_PATH | os.O_DIRECTORY)
    try:
        name = os.fsencode(base)
        state = os.stat(name, dir_fd=parent, follow_symlinks=False)
        packer.add(name, parent, name, state, owner(path, parent, name, state))
    finally:
        os.close(parent)


def _open(root: int, path: str) -> int:
    fd = beneath.open_in_root(root, path, _HANDLE)
    try:
        _refuse_kernel_s(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_kernel_s(fd: int, path: str) -> None:
    """proc, sysfs and their like are mounted in a running container only; docker does not show them at all."""
    if is_kernel_s(fd):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


class Intended:
    """Who the files of a container are meant to belong to, seen and set through its own mounts.

    `trees` gives the layers whose side tables know about links; they are read when first needed.
    """

    def __init__(self, root: int, *, real: bool, trees: Callable[[], Sequence[Tree]]) -> None:
        self._device = os.fstat(root).st_dev
        self._owners = Owners(real)
        self._trees = trees
        self._known: Sequence[Tree] | None = None

    def of(self, path: str, parent: int, base: bytes, state: os.stat_result) -> Owner:
        plain = (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode))
        if stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode):
            try:
                fd = os.open(base, _HANDLE | os.O_CLOEXEC, dir_fd=parent)
            except FileNotFoundError:
                return plain
            try:
                return remembered_fd(f"/proc/self/fd/{fd}") or plain
            finally:
                os.close(fd)
        if self._owners.real or state.st_dev != self._device:
            return plain
        return self._of_link(os.fsencode(path.lstrip("/"))) or plain

    def _of_link(self, path: bytes) -> Owner | None:
        """As the topmost layer that has the path remembers it."""
        if self._known is None:
            self._known = self._trees()
        if not any(len(tree.table) for tree in self._known):
            return None
        for tree in self._known:
            top = os.open(tree.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.close(beneath.open_in_root(top, os.fsdecode(path), _HANDLE, no_symlinks=True))
            except OSError:
                continue  # it is not in this one
            finally:
                os.close(top)
            known = tree.table.get(path)
            return None if known is None else (known.uid, known.gid, known.mode)
        return None

    def give(self, fd: int, uid: int, gid: int, mode: int) -> None:
        """As untar's `own`. What only can be remembered is, in the container's own tree, for files and folders."""
        place = f"/proc/self/fd/{fd}"
        if self._owners.real:
            try:
                os.chown(place, uid, gid)
            except OSError as error:
                if error.errno != errno.EINVAL:  # not in this user namespace's map
                    raise
            else:
                return
        state = os.fstat(fd)
        plain = stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)
        if not plain or state.st_dev != self._device:
            return
        try:
            if uid or gid:
                os.setxattr(fd, OVERRIDE, f"{uid}:{gid}:0{mode:o}".encode())
            else:
                os.removexattr(fd, OVERRIDE)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENODATA):
                raise
