"""Trees merged by copying, for hosts without any overlay: an active tree is a whole one.

File data are shared where the file system can (FICLONE), copied inside the kernel where it cannot (copy_file_range).
`merge` with `link` makes hard links in place of copies: for lower trees that never change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence

from dockpy.linux import beneath
from dockpy.oci.spec import Mount
from dockpy.storage import diff
from dockpy.storage.diff import DELETED, Change
from dockpy.storage.owners import SideTable, like_folder
from dockpy.storage.records import Active, Layer
from dockpy.storage.snapshot import Write
from dockpy.storage.tree import write_tar
from dockpy.storage.trees import LayeredSnapshotter
from dockpy.storage.view import Item, Tree, walk

FICLONE = 0x40049409
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ENOTTY)


class CopySnapshotter(LayeredSnapshotter):
    name = "copy"

    def _make(self, active: Active, stack: tuple[Layer, ...]) -> None:
        target = f"{self.places.path(active.number)}/u"
        os.mkdir(target, 0o755)
        trees = [self._tree(one) for one in stack]
        table = merge(trees, target, self._opaque_xattr, real_owners=self.real_owners)
        table.save(self.places.table_path(active.number))
        if stack:
            like_folder(self.places.path(stack[0].number), target, self.real_owners)

    def _unmake(self, active: Active) -> None:
        """Nothing: files of its own are all that there is."""

    def layers(self, key: str) -> tuple[str, ...]:
        self._of_key(key)
        return ()

    def trees(self, key: str) -> tuple[Tree, ...]:
        return (self._upper_tree(key),)

    def changes(self, key: str) -> Iterator[Change]:
        return diff.compared(self._upper_tree(key), self._lower_trees(key), self._opaque_xattr)

    def write_layer(self, key: str, write: Write) -> None:
        changes = list(self.changes(key))
        there = {change.path[1:] for change in changes if change.kind != DELETED}
        gone = [change.path[1:] for change in changes if change.kind == DELETED]
        trees = (self._upper_tree(key),)
        write_tar(write, trees, self._opaque_xattr, only=there, removed=gone)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        return (Mount("/", "bind", self.upper(key), ("rbind", "rw")),)


def merge(
    trees: Sequence[Tree],
    target: str,
    opaque_xattr: str,
    *,
    real_owners: bool,
    link: bool = False,
) -> SideTable:
    """Makes in the empty folder `target` what `trees` show; the side table of the result."""
    job = _Merge(trees, target, opaque_xattr, real_owners, link)
    try:
        for item in walk(trees, opaque_xattr):
            job.add(item)
        job.finish()
    finally:
        os.close(job.root)
    return job.table


class _Merge:
    def __init__(
        self,
        trees: Sequence[Tree],
        target: str,
        opaque_xattr: str,
        real_owners: bool,
        link: bool,
    ) -> None:
        self._trees = trees
        self._opaque_xattr = opaque_xattr
        self._real_owners = real_owners
        self._link = link
        self.root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.table = SideTable()
        self._first: dict[tuple[int, int, int], bytes] = {}  # hard links: (tree, dev, ino)
        self._folders: list[tuple[bytes, os.stat_result]] = []
        self._at: tuple[bytes, int] = (b"", os.dup(self.root))

    def add(self, item: Item) -> None:
        known = self._trees[item.tree].table.get(item.path)
        if known is not None and known.kind not in ("w", "o"):
            self.table.put(item.path, known)
        if item.state is None:
            return
        folder = self._folder(item.path.rpartition(b"/")[0])
        if item.is_directory:
            os.mkdir(item.base, 0o700, dir_fd=folder)
            self._attributes(item, folder)
            self._folders.append((item.path, item.state))
        elif self._link:
            os.link(
                item.base, item.base,
                src_dir_fd=item.parent, dst_dir_fd=folder, follow_symlinks=False,
            )  # fmt: skip
        elif not self._linked(item, folder):
            self._copy(item, folder)

    def _folder(self, path: bytes) -> int:
        """The target's directory for `path`; the walk stays in one for a while."""
        if self._at[0] != path:
            fd = beneath.open_in_root(
                self.root, os.fsdecode(path) or ".", _FOLDER, no_symlinks=True
            )
            os.close(self._at[1])
            self._at = (path, fd)
        return self._at[1]

    def _linked(self, item: Item, folder: int) -> bool:
        state = item.state
        assert state is not None
        if state.st_nlink < 2:
            return False
        first = self._first.setdefault((item.tree, state.st_dev, state.st_ino), item.path)
        if first == item.path:
            return False
        where, _, base = first.rpartition(b"/")
        fd = beneath.open_in_root(self.root, os.fsdecode(where) or ".", _FOLDER, no_symlinks=True)
        try:
            os.link(base, item.base, src_dir_fd=fd, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(fd)
        return True

    def _copy(self, item: Item, folder: int) -> None:
        state = item.state
        assert state is not None
        mode = state.st_mode
        if stat.S_ISREG(mode):
            self._copy_file(item, folder)
            return
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(item.base, dir_fd=item.parent), item.base, dir_fd=folder)
        elif stat.S_ISFIFO(mode):
            os.mkfifo(item.base, 0o600, dir_fd=folder)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            os.mknod(item.base, mode, state.st_rdev, dir_fd=folder)
        else:
            return  # a socket: nobody listens any more
        if self._real_owners:
            owner = (state.st_uid, state.st_gid)
            os.chown(item.base, *owner, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            os.chmod(item.base, stat.S_IMODE(mode), dir_fd=folder)
        times = (state.st_mtime_ns, state.st_mtime_ns)
        os.utime(item.base, ns=times, dir_fd=folder, follow_symlinks=False)

    def _copy_file(self, item: Item, folder: int) -> None:
        state = item.state
        assert state is not None
        source = os.open(item.base, _READ, dir_fd=item.parent)
        try:
            target = os.open(item.base, _CREATE, 0o600, dir_fd=folder)
            try:
                copy_data(source, target, state.st_size)
                copy_xattrs(source, target, self._opaque_xattr)
                if self._real_owners and (state.st_uid or state.st_gid):
                    os.chown(target, state.st_uid, state.st_gid)
                os.fchmod(target, stat.S_IMODE(state.st_mode))
                os.utime(target, ns=(state.st_mtime_ns, state.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _attributes(self, item: Item, folder: int) -> None:
        """Owner and xattrs of a directory; its mode and time come last, when all is in it."""
        state = item.state
        assert state is not None
        source = os.open(item.base, _FOLDER, dir_fd=item.parent)
        try:
            target = os.open(item.base, _FOLDER, dir_fd=folder)
            try:
                copy_xattrs(source, target, self._opaque_xattr)
                if self._real_owners and (state.st_uid or state.st_gid):
                    os.chown(target, state.st_uid, state.st_gid)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def finish(self) -> None:
        os.close(self._at[1])
        for path, state in sorted(self._folders, key=lambda one: one[0].count(b"/"), reverse=True):
            name = os.fsdecode(path)
            fd = beneath.open_in_root(self.root, name, _FOLDER, no_symlinks=True)
            try:
                os.fchmod(fd, stat.S_IMODE(state.st_mode))
                os.utime(fd, ns=(state.st_mtime_ns, state.st_mtime_ns))
            finally:
                os.close(fd)


def copy_data(source: int, target: int, size: int) -> None:
    """All of `source` into the empty `target`: shared, else copied in the kernel, else read and written."""
    if not size:
        return
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    # Hole by hole: copy_file_range would fill them.
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole follows
            raise
        end = min(size, os.lseek(source, start, os.SEEK_HOLE))
        _copy_range(source, target, start, end)
        position = end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    in_kernel = True
    while start < end:
        done = 0
        if in_kernel:
            try:
                done = os.copy_file_range(source, target, end - start, start, start)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
        if done == 0:
            in_kernel = False
            data = os.pread(source, min(end - start, 1 << 20), start)
            if not data:
                return
            done = os.pwrite(target, data, start)
        start += done


def copy_xattrs(source: int, target: int, opaque_xattr: str) -> None:
    with contextlib.suppress(OSError):  # a file system without them
        for name in os.listxattr(source):
            if name != opaque_xattr and name.startswith(("user.", "security.capability")):
                with contextlib.suppress(OSError):
                    os.setxattr(target, name, os.getxattr(source, name))
