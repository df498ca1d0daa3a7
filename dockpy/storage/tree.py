"""A tree, or what a stack of trees shows, as a tar stream: for export, save and commit.

Deterministic: names sorted, no times or names but the files' own, pax records only where a plain header
cannot hold a value. Owners are those remembered. Hard links stay links; holes are read as zeros without
touching the disk (the format's sparse extensions are not everyone's). Sockets are left out. A file that
grows or shrinks while it is read (a running container's) keeps the size its header said.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Sequence

from dockpy.storage import tar
from dockpy.storage.layer import WHITEOUT
from dockpy.storage.tar import Entry
from dockpy.storage.view import OPAQUE, Item, Tree, is_opaque, is_whiteout, owner_of, walk

Write = Callable[[bytes], object]

CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ZEROS = bytes(CHUNK)


def write_tar(
    write: Write,
    trees: Sequence[Tree],
    opaque_xattr: str,
    *,
    diff: bool = False,
    only: Collection[bytes] | None = None,
    removed: Sequence[bytes] = (),
) -> None:
    """Writes what `trees` (topmost first) show, without the root itself.

    `diff`: `trees` is one upper tree, and its whiteouts and opaque marks are written as the layer
    format's .wh. files. `only`: just these paths; `removed`: whiteouts to add, before all else.
    """
    output = _Output(write, trees, opaque_xattr, diff)
    for path in removed:
        output.whiteout(path)
    for item in walk(trees, opaque_xattr, raw=diff):
        if only is None or item.path in only:
            output.add(item)
    output.write(bytes(2 * tar.BLOCK))
    output.flush()


class _Output:
    def __init__(self, write: Write, trees: Sequence[Tree], opaque_xattr: str, diff: bool) -> None:
        self._write = write
        self._trees = trees
        self._opaque_xattr = opaque_xattr
        self._diff = diff
        self._first: dict[tuple[int, int, int], bytes] = {}
        self._waiting: list[bytes] = []
        self._size = 0
        if diff:
            self._side_marks(trees[0])

    def write(self, data: bytes) -> None:
        """Small pieces are gathered: most of a tree is headers and little files."""
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            self.flush()

    def flush(self) -> None:
        self._write(b"".join(self._waiting))
        self._waiting, self._size = [], 0

    def _side_marks(self, tree: Tree) -> None:
        for path, known in sorted(tree.table.items().items()):
            if known.kind == "w":
                self.whiteout(path)
            elif known.kind == "o":
                self._mark(path, OPAQUE)

    def whiteout(self, path: bytes) -> None:
        folder, _, base = path.rpartition(b"/")
        self._mark(folder, WHITEOUT + base)

    def _mark(self, folder: bytes, name: bytes) -> None:
        path = folder + b"/" + name if folder else name
        self.write(tar.header_of(Entry(path, tar.REGULAR, 0)))

    def add(self, item: Item) -> None:
        state = item.state
        if state is None:
            self._remembered_device(item)
        elif is_whiteout(state):
            self.whiteout(item.path)
        elif stat.S_ISDIR(state.st_mode):
            self._folder(item, state)
        elif stat.S_ISSOCK(state.st_mode) or self._linked(item, state):
            pass
        elif stat.S_ISREG(state.st_mode):
            self._file(item, state)
        else:
            self._special(item, state)

    def _entry(self, item: Item, state: os.stat_result, kind: bytes) -> Entry:
        uid, gid, mode = owner_of(item, self._trees)
        return Entry(item.path, kind, mode, uid, gid, mtime_ns=state.st_mtime_ns)

    def _remembered_device(self, item: Item) -> None:
        known = self._trees[item.tree].table.get(item.path)
        assert known is not None  # a device without a file is known from there only
        kind = known.kind.encode()
        entry = Entry(item.path, kind, known.mode, known.uid, known.gid, device=known.device)
        self.write(tar.header_of(entry))

    def _folder(self, item: Item, state: os.stat_result) -> None:
        entry = self._entry(item, state, tar.DIRECTORY)
        entry.name += b"/"
        try:
            fd = os.open(item.base, _FOLDER, dir_fd=item.parent)
        except FileNotFoundError:
            return
        try:
            entry.xattrs = self._xattrs(fd)
            opaque = self._diff and is_opaque(fd, self._opaque_xattr)
        finally:
            os.close(fd)
        self.write(tar.header_of(entry))
        if opaque:
            self._mark(item.path, OPAQUE)

    def _linked(self, item: Item, state: os.stat_result) -> bool:
        if state.st_nlink < 2:
            return False
        first = self._first.setdefault((item.tree, state.st_dev, state.st_ino), item.path)
        if first == item.path:
            return False
        entry = self._entry(item, state, tar.HARDLINK)
        entry.link = first
        self.write(tar.header_of(entry))
        return True

    def _special(self, item: Item, state: os.stat_result) -> None:
        mode = state.st_mode
        if stat.S_ISLNK(mode):
            entry = self._entry(item, state, tar.SYMLINK)
            entry.link = os.readlink(item.base, dir_fd=item.parent)
            entry.mode = 0o777
        elif stat.S_ISFIFO(mode):
            entry = self._entry(item, state, tar.FIFO)
        else:
            kind = tar.CHARACTER if stat.S_ISCHR(mode) else tar.BLOCK_DEVICE
            entry = self._entry(item, state, kind)
            entry.device = (os.major(state.st_rdev), os.minor(state.st_rdev))
        self.write(tar.header_of(entry))

    def _file(self, item: Item, state: os.stat_result) -> None:
        try:
            fd = os.open(item.base, _READ, dir_fd=item.parent)
        except FileNotFoundError:
            return
        try:
            state = os.fstat(fd)
            entry = self._entry(item, state, tar.REGULAR)
            entry.size = state.st_size
            entry.xattrs = self._xattrs(fd)
            self.write(tar.header_of(entry))
            self._data(fd, entry.size)
            self.write(bytes(-entry.size % tar.BLOCK))
        finally:
            os.close(fd)

    def _data(self, fd: int, size: int) -> None:
        position = 0
        while position < size:
            start = min(size, _seek(fd, position, os.SEEK_DATA, size))
            while position < start:
                zeros = _ZEROS[: start - position]
                self.write(zeros)
                position += len(zeros)
            end = min(size, _seek(fd, position, os.SEEK_HOLE, size))
            while position < end:
                data = os.pread(fd, min(CHUNK, end - position), position)
                if not data:  # it was cut meanwhile
                    data = _ZEROS[: end - position]
                self.write(data)
                position += len(data)

    def _xattrs(self, fd: int) -> dict[bytes, bytes]:
        xattrs: dict[bytes, bytes] = {}
        try:
            names = os.listxattr(fd)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            return xattrs
        for name in names:
            wanted = name == "security.capability" or name.startswith("user.")
            if wanted and not name.startswith(("user.overlay.", "user.containers.")):
                xattrs[os.fsencode(name)] = os.getxattr(fd, name)
        return xattrs


def _seek(fd: int, position: int, whence: int, size: int) -> int:
    try:
        return os.lseek(fd, position, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size  # only a hole follows, or nothing
        raise
