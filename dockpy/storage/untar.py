"""A tar stream into a living tree: a container's by `PUT /archive`, this host's by `docker cp` from one.

docker's rules: directories are merged, all else is replaced; what leads out of the place is refused; a
directory that the archive needs and does not describe is made. Nothing is ever reached by a path from
"/": folders are opened beneath a root descriptor whose symbolic links lead nowhere outside (or are
refused), the last component is never followed. So whoever exchanges folders for links meanwhile, a
container in its own tree, moves what is written within that root at most.

What replaces a file is written aside and renamed over it, so that a full disk leaves the old one; what
is new and could not be written is taken away again. The client loads this: no slow imports.
"""

from __future__ import annotations

import errno
import os
import stat

from dockpy.errors import DockpyError, Forbidden, InvalidParameter, Unavailable
from dockpy.linux import beneath
from dockpy.storage import tar
from dockpy.storage.pack import is_kernel_s
from dockpy.storage.remove import remove_tree
from dockpy.storage.tar import Entry, TarReader, shown
from dockpy.storage.untrusted import REFUSED_XATTRS, bounded_time, safe_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeAlias

    # Gives (descriptor, uid, gid, permission bits) its owner; the descriptor is O_PATH for what is no
    # file or folder. False when nothing has to be set on a new file.
    Own: TypeAlias = Callable[[int, int, int, int], object]
    Rename: TypeAlias = Callable[[bytes], bytes]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT = os.O_PATH | os.O_DIRECTORY
_FULL = (errno.ENOSPC, errno.EDQUOT)


class CannotOverwrite(DockpyError):
    """A directory would take a file's place, or the other way round."""


class Place:
    """Where an archive goes: folder `path` (absolute) of the tree whose root is descriptor `root`.

    `follow`: symbolic links on the way to a member are followed, within the root.
    """

    def __init__(self, root: int, path: str, *, follow: bool) -> None:
        self.root = root
        self.path = path.rstrip("/")
        self._follow = follow

    def open(self, folder: bytes) -> int:
        """An O_PATH descriptor of the folder `folder` of the place."""
        path = f"{self.path}/{os.fsdecode(folder)}"
        fd = beneath.open_in_root(self.root, path, _PARENT, no_symlinks=not self._follow)
        if is_kernel_s(fd):
            os.close(fd)
            raise Forbidden(f"{path} is the kernel's, not a place for files")
        return fd


def untar(
    read: Callable[[int], bytes],
    place: Place,
    *,
    own: Own | None,
    owner: tuple[int, int] | None = None,
    devices: bool = True,
    no_overwrite: bool = False,
    rename: Rename = lambda name: name,
) -> None:
    """Unpacks the plain archive behind `read`; `own` None leaves everything the caller's.

    `owner` (uid, gid) stands in for what the archive says.
    `devices` False passes over device nodes. `no_overwrite`: no directory takes the place of
    something else, or something else that of a directory. `rename` gets each member's clean name,
    and each hard link's target. InvalidParameter: the archive is bad; Unavailable: no room.
    """
    archive = TarReader(read)
    job = _Job(place, own, devices, no_overwrite)
    try:
        while (entry := archive.next()) is not None:
            entry.name = rename(safe_path(entry.name))
            if owner is not None:
                entry.uid, entry.gid = owner
            if entry.kind == tar.HARDLINK:
                entry.link = rename(safe_path(entry.link))
            if entry.name:
                job.add(entry, archive)
        archive.drain()
        job.finish()
    finally:
        job.close()


class _Job:
    def __init__(self, place: Place, own: Own | None, devices: bool, no_overwrite: bool) -> None:
        self._place = place
        self._own = own
        self._devices = devices
        self._no_overwrite = no_overwrite
        self._at: tuple[bytes, int] | None = None  # the parent of the last member, kept open
        self._folders: list[tuple[bytes, int]] = []  # their times, set when all is in them

    def close(self) -> None:
        if self._at is not None:
            os.close(self._at[1])
            self._at = None

    def add(self, entry: Entry, archive: TarReader) -> None:
        path = entry.name
        folder, _, base = path.rpartition(b"/")
        try:
            self._add(self._parent(folder), base, entry, archive)
        except OSError as error:
            raise _told(error, path) from error

    def _add(self, parent: int, base: bytes, entry: Entry, archive: TarReader) -> None:
        kind = entry.kind
        there = _kind(parent, base)
        folder = kind == tar.DIRECTORY
        if there and self._no_overwrite and stat.S_ISDIR(there) != folder:
            self._refuse(entry, folder)
        if folder:
            self._directory(parent, base, entry, there)
            return
        if stat.S_ISDIR(there):
            self.close_if_below(entry.name)
            remove_tree(parent, base)
            there = 0
        if kind == tar.REGULAR:
            self._file(parent, base, entry, archive, bool(there))
        elif kind in (tar.SYMLINK, tar.HARDLINK, tar.FIFO):
            self._made(parent, base, entry, bool(there))
        elif kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            if self._devices:
                self._made(parent, base, entry, bool(there))
        elif kind not in (b"V", b"D"):  # a volume's label; GNU's list of names: no file
            raise InvalidParameter(f"{shown(entry.name)}: unknown kind of archive member {kind!r}")

    def _refuse(self, entry: Entry, folder: bool) -> None:
        words = ("non-directory", "directory") if folder else ("directory", "non-directory")
        name, place = os.fsdecode(entry.name), self._place.path or "/"
        raise CannotOverwrite(
            f'cannot overwrite {words[0]} "{place.rstrip("/")}/{name}" with {words[1]} "{place}"'
        )

    # Folders

    def _parent(self, folder: bytes) -> int:
        if self._at is not None:
            if self._at[0] == folder:
                return self._at[1]
            self.close()
        try:
            fd = self._place.open(folder)
        except FileNotFoundError:
            fd = self._make_parents(folder)
        self._at = (folder, fd)
        return fd

    def _make_parents(self, folder: bytes) -> int:
        """Folders that the archive does not describe: root's, 0777 less the umask, as docker's."""
        parts = folder.split(b"/")
        fd = self._place.open(b"")
        for count in range(1, len(parts) + 1):
            try:
                os.mkdir(parts[count - 1], 0o755, dir_fd=fd)
            except FileExistsError:
                pass
            finally:
                os.close(fd)
            fd = self._place.open(b"/".join(parts[:count]))
        return fd

    def close_if_below(self, path: bytes) -> None:
        if self._at is not None and self._at[0].startswith(path + b"/"):
            self.close()

    def _directory(self, parent: int, base: bytes, entry: Entry, there: int) -> None:
        fresh = not stat.S_ISDIR(there)
        if fresh:
            if there:
                os.unlink(base, dir_fd=parent)
            try:
                os.mkdir(base, 0o700, dir_fd=parent)
            except FileExistsError:
                fresh = False  # another's, made meanwhile
        fd = os.open(base, _FOLDER, dir_fd=parent)
        try:
            self._describe(fd, entry, fresh)
        finally:
            os.close(fd)
        self._folders.append((entry.name, bounded_time(entry.mtime_ns)))

    def _describe(self, fd: int, entry: Entry, fresh: bool) -> None:
        """Owner, xattrs and mode of an open file or folder, in this order: chown clears set-id bits."""
        if self._own is not None and (not fresh or entry.uid or entry.gid):
            self._own(fd, entry.uid, entry.gid, entry.mode)
        for name, value in entry.xattrs.items():
            wanted = name.startswith(b"user.") or name == b"security.capability"
            if wanted and not name.startswith(REFUSED_XATTRS):
                try:
                    os.setxattr(fd, name, value)
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                        raise
        os.fchmod(fd, entry.mode)

    # All else

    def _file(
        self, parent: int, base: bytes, entry: Entry, archive: TarReader, there: bool
    ) -> None:
        name = _aside(base) if there else base
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:  # another's, made meanwhile: replaced as if it had been there
            there, name = True, _aside(base)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            try:
                _fill(fd, entry, archive)
                self._describe(fd, entry, True)
                mtime = bounded_time(entry.mtime_ns)
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)
            if there:
                os.rename(name, base, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            remove_tree(parent, name)
            raise

    def _made(self, parent: int, base: bytes, entry: Entry, there: bool) -> None:
        """A link, pipe or device: made under another name where it replaces something."""
        if entry.kind == tar.HARDLINK and entry.link == entry.name:
            return
        name = _aside(base) if there else base
        try:
            self._make(parent, name, entry)
        except FileExistsError:
            there, name = True, _aside(base)
            self._make(parent, name, entry)
        try:
            if entry.kind != tar.HARDLINK:
                self._describe_name(parent, name, entry)
            if there:
                os.rename(name, base, src_dir_fd=parent, dst_dir_fd=parent)
                if entry.kind == tar.HARDLINK:
                    # rename(2) of one link onto another of the same file does nothing at all.
                    remove_tree(parent, name)
        except BaseException:
            remove_tree(parent, name)
            raise

    def _make(self, parent: int, name: bytes, entry: Entry) -> None:
        if entry.kind == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.kind == tar.HARDLINK:
            folder, _, base = entry.link.rpartition(b"/")
            if not base:
                raise InvalidParameter(f"{shown(entry.name)}: a hard link to the root")
            source = self._place.open(folder)
            try:
                os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)
        elif entry.kind == tar.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            kind = stat.S_IFCHR if entry.kind == tar.CHARACTER else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=parent)

    def _describe_name(self, parent: int, name: bytes, entry: Entry) -> None:
        """By a handle: the name may be another's by now. (It is of a folder that the container owns.)"""
        fd = os.open(name, _HANDLE, dir_fd=parent)
        try:
            if self._own is not None and (entry.uid or entry.gid):
                self._own(fd, entry.uid, entry.gid, entry.mode)
            if entry.kind != tar.SYMLINK:
                if stat.S_ISLNK(os.fstat(fd).st_mode):
                    return
                os.chmod(f"/proc/self/fd/{fd}", entry.mode)
        finally:
            os.close(fd)
        mtime = bounded_time(entry.mtime_ns)
        os.utime(name, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)

    def finish(self) -> None:
        """The times of folders, the deepest first."""
        for path, mtime in sorted(self._folders, key=lambda one: -one[0].count(b"/")):
            folder, _, base = path.rpartition(b"/")
            try:
                fd = os.open(base, _FOLDER, dir_fd=self._parent(folder))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # somebody removed it since
                raise _told(error, path) from error
            try:
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)


def _fill(fd: int, entry: Entry, archive: TarReader) -> None:
    if entry.regions is None:
        while piece := archive.data():
            written = os.write(fd, piece)
            while written < len(piece):
                piece = piece[written:]
                written = os.write(fd, piece)
        return
    archive.write_regions(fd, entry)


def _kind(parent: int, base: bytes) -> int:
    """The mode of what is there; 0 for nothing."""
    try:
        return os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _aside(base: bytes) -> bytes:
    return b"." + base[:200] + b"." + os.urandom(6).hex().encode()


def _told(error: OSError, path: bytes) -> DockpyError:
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return Unavailable(f"{shown(path)}: cannot be written: {reason}")
    return DockpyError(f"{os.fsdecode(path)}: {reason}")
