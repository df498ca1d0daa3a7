"""Who a file belongs to, where the kernel cannot say it.

With real ids (root, a subuid range) ownership is chown(2). With a single id every file is ours, and the
intended owner is remembered: on files and directories in the xattr `user.containers.override_stat`
("uid:gid:0mode", as containers/storage and fuse-overlayfs write it), only when it is not 0:0; for what
cannot have user xattrs (symbolic links, FIFOs), what cannot be made (devices), and file systems without
xattrs, in a side table: one JSON line a path. An id outside the range of a subuid user is remembered too.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from dockpy import files
from dockpy.errors import Unavailable

OVERRIDE = "user.containers.override_stat"
_NO_XATTR = (errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True)
class Remembered:
    """What a path is meant to be. `kind` is tar's type flag; "w" and "o" stand for a whiteout and an
    opaque directory on file systems that can hold neither."""

    uid: int
    gid: int
    mode: int
    kind: str
    device: tuple[int, int] = (0, 0)


class SideTable:
    """Remembered things by path (relative, bytes) of one tree."""

    def __init__(self, entries: Mapping[bytes, Remembered] | None = None) -> None:
        self._entries: dict[bytes, Remembered] = dict(entries or {})

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, path: bytes) -> Remembered | None:
        return self._entries.get(path)

    def items(self) -> Mapping[bytes, Remembered]:
        return self._entries

    def put(self, path: bytes, what: Remembered) -> None:
        self._entries[path] = what

    def forget(self, path: bytes) -> None:
        self._entries.pop(path, None)

    def forget_tree(self, path: bytes) -> None:
        prefix = path + b"/"
        for known in [known for known in self._entries if known.startswith(prefix)]:
            del self._entries[known]
        self.forget(path)

    def save(self, path: str) -> None:
        """Written only when there is something to remember."""
        if not self._entries:
            files.unlink_if_exists(path)
            return
        lines = [
            json.dumps([os.fsdecode(name), e.uid, e.gid, e.mode, e.kind, *e.device])
            for name, e in self._entries.items()
        ]
        files.write_atomic(path, "\n".join(lines).encode() + b"\n", durable=False)


def load_table(path: str) -> SideTable:
    """The table at `path`; an empty one when there is none, Unavailable when it cannot be read."""
    try:
        data = files.read_bytes(path, 1 << 30)
    except FileNotFoundError:
        return SideTable()
    entries = {}
    try:
        for line in data.splitlines():
            name, *numbers, kind, major, minor = json.loads(line)
            if not all(type(number) is int for number in (*numbers, major, minor)):
                raise ValueError("a number is none")
            uid, gid, mode = numbers
            entries[os.fsencode(name)] = Remembered(uid, gid, mode, str(kind), (major, minor))
    except (ValueError, TypeError, RecursionError) as error:
        raise Unavailable(
            f"{path} is damaged ({error}): 'dockpy system check --repair' sets it aside"
        ) from None
    return SideTable(entries)


class Owners:
    """Gives files of one tree to their owners: by chown when `real`, else by remembering."""

    def __init__(self, real: bool, table: SideTable | None = None) -> None:
        self.real = real
        self.table = SideTable() if table is None else table

    def own_fd(self, fd: int, path: bytes, uid: int, gid: int, mode: int, kind: str) -> None:
        """`fd`: an open file or directory that is 0:0 now. chown clears set-id bits: chmod comes after."""
        if self.real and self._chowned(fd, None, uid, gid):
            return
        value = f"{uid}:{gid}:0{mode:o}".encode()
        try:
            os.setxattr(fd, OVERRIDE, value)
        except OSError as error:
            if error.errno not in _NO_XATTR:
                raise
            self.table.put(path, Remembered(uid, gid, mode, kind))

    def own_name(
        self, dir_fd: int, base: bytes, path: bytes, uid: int, gid: int, mode: int, kind: str
    ) -> None:
        """A symbolic link, FIFO or device, by name below `dir_fd`."""
        if not (self.real and self._chowned(dir_fd, base, uid, gid)):
            self.table.put(path, Remembered(uid, gid, mode, kind))

    def _chowned(self, fd: int, base: bytes | None, uid: int, gid: int) -> bool:
        try:
            if base is None:
                os.chown(fd, uid, gid)
            else:
                os.chown(base, uid, gid, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: not in this user namespace's map
                raise
            return not self.real
        return self.real


def remembered_fd(fd: int | str) -> tuple[int, int, int] | None:
    """(uid, gid, permission bits) remembered on an open file (or a /proc/self/fd path), or None."""
    try:
        value = os.getxattr(fd, OVERRIDE)
    except OSError:
        return None
    return parse_override(value)


def parse_override(value: bytes) -> tuple[int, int, int] | None:
    """The first three fields; newer writers add the type. None for what nobody of ours wrote."""
    parts = value.split(b":")
    if len(parts) < 3 or not all(part.isdigit() for part in parts[:3]):
        return None
    try:
        return int(parts[0]), int(parts[1]), stat.S_IMODE(int(parts[2], 8))
    except ValueError:
        return None


def like_folder(source: str, target: str, real_owners: bool) -> None:
    """Gives folder `target` the owner, mode and time of `source`: the merged root shows the top's."""
    state = os.stat(source)
    if real_owners and (state.st_uid or state.st_gid):
        os.chown(target, state.st_uid, state.st_gid)
    with contextlib.suppress(OSError):  # nothing remembered
        os.setxattr(target, OVERRIDE, os.getxattr(source, OVERRIDE))
    os.chmod(target, state.st_mode & 0o7777)
    os.utime(target, ns=(state.st_mtime_ns, state.st_mtime_ns))
