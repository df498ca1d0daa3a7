"""A layer archive into a tree, below a root descriptor, whoever wrote the archive.

One pass, streaming: nothing is held whole but the list of directories (their modes and times come last)
and the side table. Every parent directory is found by the kernel with RESOLVE_IN_ROOT, so a symbolic link in
the layer leads somewhere inside the root or nowhere; the last component is never followed; `..` above the
root, hard links and whiteouts that aim outside are refused. What the archive says twice, it means the last
time. The tree that results is what overlayfs takes as a lower directory: whiteouts are character devices 0/0,
opaque directories bear the xattr `<prefix>overlay.opaque`. Attributes that would forge those, or owners
(`user.overlay.*`, `trusted.*`, `user.containers.*`), are never taken from an archive.

Reading, decompression and the diff id's hash run in a thread (source.py). On an error the tree is left as it is: it is the caller's to remove.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dockpy.errors import DockpyError, InvalidParameter, Unavailable
from dockpy.oci.digest import DiffID
from dockpy.storage import remove, tar
from dockpy.storage.folders import FOLDER, Attributes, OpenFolders, inherited
from dockpy.storage.owners import Owners, Remembered
from dockpy.storage.source import HONEST, Limits, Source
from dockpy.storage.tar import Entry, TarReader, shown
from dockpy.storage.untrusted import REFUSED_XATTRS, bounded_time, safe_path
from dockpy.storage.view import OPAQUE, USER_OPAQUE, WHITEOUT

if TYPE_CHECKING:
    from dockpy.storage.twin import Lent

Read = Callable[[int], bytes]

AUFS = b".wh..wh."
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FREE_CHECK = 64 << 20  # files from this size on are measured against the free space first
# Of smaller ones a mark in place of the bytes saves nothing: it takes a block of ext4, too.
LENT_FROM = 4097


@dataclass(frozen=True)
class Extracted:
    """`opaque` says that the layer hides all below its root: no xattr can tell overlayfs that."""

    diff_id: DiffID | None
    size: int
    inodes: int
    opaque: bool


def extract(
    read: Read,
    target_fd: int,
    owners: Owners,
    *,
    parents: tuple[str, ...] = (),
    opaque_xattr: str = USER_OPAQUE,
    limits: Limits = HONEST,
    hashed: bool = True,
    lent: Lent | None = None,
) -> Extracted:
    """Unpacks the archive behind `read` (plain, gzip, zstd) into the empty folder `target_fd`.

    `parents`: paths of the layers below, topmost first, whose directories lend their attributes
    to those that this layer needs and does not describe. `hashed`: whether the diff id is wanted.
    `lent`: another user's tree of the same layer, whose files' bytes are not written again (twin.py).
    InvalidParameter: the archive is bad. Unavailable: this host cannot hold it.
    """
    source = Source(read, limits, hashed=hashed)
    tree = _Tree(target_fd, owners, parents, opaque_xattr, limits, lent)
    archive = TarReader(source.read)
    try:
        while True:
            entry = archive.next()
            if entry is None:
                break
            tree.add(entry, archive)
        archive.drain()
        tree.finish()
        return Extracted(source.finish(), tree.size, tree.inodes, tree.opaque)
    finally:
        tree.close()
        source.close()


class _Tree:
    """The tree being made: one method a kind of member."""

    def __init__(
        self,
        root: int,
        owners: Owners,
        parents: tuple[str, ...],
        opaque_xattr: str,
        limits: Limits,
        lent: Lent | None,
    ) -> None:
        self._root = root
        self._lent = lent
        self._owners = owners
        self._parents = parents
        self._opaque_xattr = opaque_xattr
        self._limits = limits
        self._opened = OpenFolders(root)
        self._open = self._opened.open
        self._folders: dict[bytes, Attributes] = {}
        self._whiteouts: set[bytes] = set()
        self._entries = 0
        self._replaced = 0
        self._umask = _umask()
        self.size = 0
        self.inodes = 0
        self.opaque = False

    def close(self) -> None:
        self._opened.forget()

    def add(self, entry: Entry, archive: TarReader) -> None:
        self._count()
        path = safe_path(entry.name)
        try:
            if not path:
                if entry.kind != tar.DIRECTORY:
                    raise InvalidParameter("the archive has a root that is not a directory")
                self._describe(b"", entry)
            elif WHITEOUT in path and self._whiteout(path):
                pass
            else:
                self._member(path, entry, archive)
        except OSError as error:
            raise told(error, path) from error

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise InvalidParameter(f"the archive has more than {self._limits.entries} members")

    def _member(self, path: bytes, entry: Entry, archive: TarReader) -> None:
        folder, _, base = path.rpartition(b"/")
        parent = self._parent(folder)
        kind = entry.kind
        if kind == tar.REGULAR:
            self._file(parent, base, path, entry, archive)
        elif kind == tar.DIRECTORY:
            self._directory(parent, base, path, entry)
        elif kind == tar.SYMLINK:
            self._replace(parent, base, path, lambda: os.symlink(entry.link, base, dir_fd=parent))
            self._owned_name(parent, base, path, entry)
        elif kind == tar.HARDLINK:
            self._hardlink(parent, base, path, entry)
        elif kind == tar.FIFO:
            self._replace(parent, base, path, lambda: os.mkfifo(base, 0o600, dir_fd=parent))
            self._owned_name(parent, base, path, entry)
        elif kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            self._device(parent, base, path, entry)
        elif kind not in (b"V", b"D"):  # a volume's label; GNU's list of names: no file
            raise InvalidParameter(f"{shown(path)}: unknown kind of archive member {kind!r}")

    # Files

    def _file(
        self, parent: int, base: bytes, path: bytes, entry: Entry, archive: TarReader
    ) -> None:
        mode = entry.mode
        owned = entry.uid or entry.gid
        lent = self._lent if entry.regions is None and entry.size >= LENT_FROM else None
        plain = not owned and not entry.xattrs and lent is None
        if entry.size >= _FREE_CHECK and entry.regions is None:
            self._check_space(entry)
        # With 0600 first, xattrs can be set on a file whose own mode denies writing.
        first = mode & 0o777 if plain else 0o600
        try:
            fd = os.open(base, _CREATE, first, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, base, path)
            fd = os.open(base, _CREATE, first, dir_fd=parent)
        try:
            if entry.regions is not None:
                archive.write_regions(fd, entry)
            elif lent is not None and lent.shows(fd, path, entry.size, archive.data):
                pass
            elif entry.size:
                write = os.write
                while piece := archive.data():
                    written = write(fd, piece)
                    while written < len(piece):
                        piece = piece[written:]
                        written = write(fd, piece)
            if not plain:
                if owned:
                    self._owners.own_fd(fd, path, entry.uid, entry.gid, mode, "0")
                self._set_xattrs(fd, entry)
            # After chown, which clears the set-id bits.
            if not plain or mode & (0o7000 | self._umask):
                os.fchmod(fd, mode)
            mtime = bounded_time(entry.mtime_ns)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)
        stored = entry.size if entry.regions is None else sum(n for _, n in entry.regions)
        self.size += stored
        self.inodes += 1

    def _check_space(self, entry: Entry) -> None:
        room = os.fstatvfs(self._root)
        if entry.size > room.f_bavail * room.f_frsize:
            raise Unavailable(
                f"{shown(entry.name)}: no space left for a file of {entry.size} bytes"
            )

    def _set_xattrs(self, fd: int | str, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            # The rest (selinux, ima, ACLs by number) means nothing on another host.
            wanted = name.startswith(b"user.") or name == b"security.capability"
            if not wanted or name.startswith(REFUSED_XATTRS):
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                # As docker: a file system or kernel that cannot keep it is no reason to fail.
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                    raise

    def _hardlink(self, parent: int, base: bytes, path: bytes, entry: Entry) -> None:
        source = safe_path(entry.link)
        if not source:
            raise InvalidParameter(f"{shown(path)}: a hard link to the root")
        if source == path:
            return
        folder, _, name = source.rpartition(b"/")
        remembered = self._owners.table.get(source)
        if remembered is not None and remembered.kind in "34" and not self._owners.real:
            # A device that could not be made: neither can a link to it.
            self._clear(parent, base, path)
            self._owners.table.put(path, remembered)
            return
        # Two lookups may share one bounded cache: keep the first open meanwhile.
        kept = os.dup(parent)
        try:
            from_fd = self._opened.lookup(folder)
            state = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode):
                raise InvalidParameter(f"{shown(path)}: a hard link to a directory")
            if stat.S_ISCHR(state.st_mode) and state.st_rdev == 0:
                raise InvalidParameter(f"{shown(path)}: a hard link to a removed file")

            def link() -> None:
                os.link(name, base, src_dir_fd=from_fd, dst_dir_fd=kept, follow_symlinks=False)

            try:
                link()
            except FileExistsError:
                here = os.stat(base, dir_fd=kept, follow_symlinks=False)
                if (here.st_dev, here.st_ino) != (state.st_dev, state.st_ino):
                    self._clear(kept, base, path)
                    from_fd = self._opened.lookup(folder)  # the cache was emptied
                    link()
        finally:
            os.close(kept)
        if remembered is not None:
            self._owners.table.put(path, remembered)

    def _device(self, parent: int, base: bytes, path: bytes, entry: Entry) -> None:
        kind = entry.kind.decode()
        # Only root makes devices, and 0/0 would be a whiteout: a layer has .wh. files for those.
        if self._owners.real and entry.device != (0, 0):
            type_bits = 0o020000 if entry.kind == tar.CHARACTER else 0o060000
            number = os.makedev(*entry.device)
            try:
                self._replace(
                    parent,
                    base,
                    path,
                    lambda: os.mknod(base, type_bits | 0o600, number, dir_fd=parent),
                )
                self._owned_name(parent, base, path, entry)
                return
            except PermissionError:
                pass
        self._clear(parent, base, path)
        remembered = Remembered(entry.uid, entry.gid, entry.mode, kind, entry.device)
        self._owners.table.put(path, remembered)

    def _owned_name(self, parent: int, base: bytes, path: bytes, entry: Entry) -> None:
        """Owner, mode and time of what was just made by name (and is not a symbolic link's target)."""
        if entry.uid or entry.gid:
            kind = entry.kind.decode()
            self._owners.own_name(parent, base, path, entry.uid, entry.gid, entry.mode, kind)
        if entry.kind != tar.SYMLINK:
            os.chmod(base, entry.mode, dir_fd=parent)
        mtime = bounded_time(entry.mtime_ns)
        os.utime(base, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)
        self.inodes += 1

    def _replace(self, parent: int, base: bytes, path: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(parent, base, path)
            make()

    def _clear(self, parent: int, base: bytes, path: bytes) -> None:
        """Removes what an earlier member (or whiteout) left at `path`."""
        try:
            state = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            self._owners.table.forget(path)
            return
        if stat.S_ISDIR(state.st_mode):
            self._replaced += 1
            if self._replaced > self._limits.replaced_directories:
                raise InvalidParameter("the archive replaces its directories too often")
            self._opened.forget(parent)
            remove.remove_tree(parent, base)
            self._owners.table.forget_tree(path)
        else:
            if stat.S_ISLNK(state.st_mode):
                self._opened.forget(parent)  # paths may have been found through it
            os.unlink(base, dir_fd=parent)
            self._owners.table.forget(path)

    # Directories

    def _directory(self, parent: int, base: bytes, path: bytes, entry: Entry) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
            self._made_folder(path)
        except FileExistsError:
            state = os.stat(base, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(state.st_mode):
                self._clear(parent, base, path)
                os.mkdir(base, 0o700, dir_fd=parent)
                self._made_folder(path)
        self._describe(path, entry)

    def _made_folder(self, path: bytes) -> None:
        self.inodes += 1
        if path in self._whiteouts:
            # Removed and made again by one layer: what lies below stays hidden.
            self._whiteouts.discard(path)
            self._make_opaque(path)

    def _describe(self, path: bytes, entry: Entry) -> None:
        mtime = bounded_time(entry.mtime_ns)
        self._folders[path] = Attributes(entry.mode, entry.uid, entry.gid, mtime, entry)

    def _parent(self, path: bytes) -> int:
        """A descriptor of the directory `path`, made (with its own parents) when missing."""
        fd = self._open.get(path)
        if fd is not None:
            return fd
        missing: list[bytes] = []
        while True:
            try:
                fd = self._opened.lookup(path)
                break
            except FileNotFoundError:
                missing.append(path)
                path = path.rpartition(b"/")[0]
        for path in reversed(missing):
            fd = self._make_parent(fd, path)
        return fd

    def _make_parent(self, above: int, path: bytes) -> int:
        base = path.rpartition(b"/")[2]
        if base.startswith(WHITEOUT):
            raise InvalidParameter(f"{shown(path)}: a whiteout has no members")
        self._count()
        try:
            os.mkdir(base, 0o700, dir_fd=above)
        except FileExistsError:
            # A symbolic link to nowhere inside the root.
            raise InvalidParameter(f"{shown(path)}: the parent is not a directory") from None
        self._made_folder(path)
        self._folders[path] = inherited(self._parents, path)
        return self._opened.lookup(path)

    # Whiteouts

    def _whiteout(self, path: bytes) -> bool:
        """Handles `path` when it is a whiteout, an opaque marker or aufs's own; says whether it was."""
        folder, _, base = path.rpartition(b"/")
        if path.startswith(AUFS) and folder:
            return True  # .wh..wh.plnk/… and its like: aufs's bookkeeping
        if not base.startswith(WHITEOUT):
            return False
        if base == OPAQUE:
            self._make_opaque(folder)
            return True
        if base.startswith(AUFS):
            return True
        name = base[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise InvalidParameter(f"{shown(path)}: a whiteout of nothing")
        parent = self._parent(folder)
        hidden = folder + b"/" + name if folder else name
        try:
            # Whiteouts are for what lies below: the layer's own file stays.
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            self._make_whiteout(parent, name, hidden)
        else:
            if hidden in self._folders:
                self._make_opaque(hidden)
        return True

    def _make_whiteout(self, parent: int, name: bytes, path: bytes) -> None:
        try:
            os.mknod(name, 0o020000, os.makedev(0, 0), dir_fd=parent)
        except PermissionError:
            # Before Linux 5.8 only root may: told in the side table, for the copy driver.
            self._owners.table.put(path, Remembered(0, 0, 0, "w"))
        self._whiteouts.add(path)

    def _make_opaque(self, path: bytes) -> None:
        if not path:
            self.opaque = True
            return
        fd = self._parent(path)
        try:
            os.setxattr(f"/proc/self/fd/{fd}", self._opaque_xattr, b"y")
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            self._owners.table.put(path, Remembered(0, 0, 0, "o"))

    def finish(self) -> None:
        """Directories get their owners, modes and times, the deepest first."""
        if b"" not in self._folders:
            self._folders[b""] = inherited(self._parents, b"")
        for path in sorted(self._folders, key=lambda path: path.count(b"/"), reverse=True):
            if path:
                self._finish_folder(path, self._folders[path])
        self._finish_folder(b"", self._folders[b""])

    def _finish_folder(self, path: bytes, folder: Attributes) -> None:
        parent, _, base = path.rpartition(b"/")
        try:
            # Replaced by something else since: not a directory any more.
            fd = os.open(base or b".", FOLDER, dir_fd=self._opened.lookup(parent))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if error.errno == errno.ELOOP:
                return
            raise told(error, path) from error
        try:
            if folder.uid or folder.gid:
                self._owners.own_fd(fd, path, folder.uid, folder.gid, folder.mode, "5")
            if folder.entry is not None and folder.entry.xattrs:
                self._set_xattrs(fd, folder.entry)
            os.fchmod(fd, folder.mode)
            os.utime(fd, ns=(folder.mtime_ns, folder.mtime_ns))
        finally:
            os.close(fd)


def told(error: OSError, path: bytes) -> DockpyError:
    """What the kernel said of `path`, as the archive's fault or the host's."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return Unavailable(f"{shown(path)}: cannot be unpacked: {reason}")
    archives = (
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOENT,
        errno.EINVAL,
        errno.EMLINK,
        errno.EFBIG,
        errno.EXDEV,
    )
    kind = InvalidParameter if error.errno in archives else Unavailable
    return kind(f"{shown(path)}: cannot be unpacked: {reason}")


def _umask() -> int:
    """This process's umask, without changing it for other threads meanwhile."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777  # then every mode is set again
