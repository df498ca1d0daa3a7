"""Files into a tar stream, member by member, by descriptors: what export, save, commit and both ends of cp write.

Deterministic: no times or names but the files' own, pax records only where a plain header cannot hold
a value. Hard links stay links; holes are read as zeros without touching the disk (the format's sparse
extensions are not everyone's). Sockets are left out. A file that grows or shrinks while it is read (a
running container's) keeps the size its header said. The client loads this: the standard library and
`tar` only.
"""

from __future__ import annotations

import errno
import os
import stat

from dockpy.linux import beneath
from dockpy.linux.mounts import fstatfs_type
from dockpy.storage import tar
from dockpy.storage.tar import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import TypeAlias

    Write: TypeAlias = Callable[[bytes], object]
    # Takes (descriptor, offset, length) of a file whose data go into the stream: sendfile, where there is one.
    Send: TypeAlias = Callable[[int, int, int], object]
    Owner: TypeAlias = tuple[int, int, int]  # uid, gid, permission bits

CHUNK = 1 << 20
SEND_FROM = 64 << 10  # smaller files are gathered with the headers around them
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ZEROS = bytes(CHUNK)
# What a container's own files are never: the kernel's views of itself.
_KERNEL_S = frozenset((0x9FA0, 0x62656572, 0x63677270, 0x27E0EB, 0x1CD1, 0x19800202))
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Gathered:
    """Small pieces written as pieces of `size` bytes or more: most of a tree is headers and little files."""

    def __init__(self, write: Write, size: int = CHUNK) -> None:
        self._write = write
        self._enough = size
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= self._enough:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self._write(b"".join(self._waiting))
            self._waiting, self._size = [], 0


class Packer(Gathered):
    """One archive. `send`, where given, moves the data of larger files by itself."""

    def __init__(self, write: Write, send: Send | None = None) -> None:
        super().__init__(write)
        self._send = send
        self._first: dict[tuple[int, int, int], bytes] = {}

    def end(self) -> None:
        self.write(bytes(2 * tar.BLOCK))
        self.flush()

    def add(
        self,
        name: bytes,
        parent: int,
        base: bytes,
        state: os.stat_result,
        owner: Owner,
        *,
        group: int = 0,
    ) -> None:
        """The file, folder, link or node `base` of the open folder `parent`, as member `name`.

        What has vanished or become something else since `state` is left out. `group`: hard links
        are looked for among members of the same one.
        """
        uid, gid, mode = owner
        entry = Entry(name, tar.REGULAR, mode, uid, gid, mtime_ns=state.st_mtime_ns)
        kind = state.st_mode
        if stat.S_ISDIR(kind):
            self._folder(parent, base, entry)
        elif stat.S_ISSOCK(kind) or self._linked(state, entry, group):
            pass
        elif stat.S_ISREG(kind):
            self._file(parent, base, entry, group)
        else:
            self._special(parent, base, state, entry)

    def _folder(self, parent: int, base: bytes, entry: Entry) -> None:
        entry.kind = tar.DIRECTORY
        entry.name = entry.name.rstrip(b"/") + b"/"
        try:
            fd = os.open(base, FOLDER, dir_fd=parent)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            entry.xattrs = xattrs_of(fd)
        finally:
            os.close(fd)
        self.write(tar.header_of(entry))

    def _linked(self, state: os.stat_result, entry: Entry, group: int) -> bool:
        if state.st_nlink < 2:
            return False
        first = self._first.setdefault((group, state.st_dev, state.st_ino), entry.name)
        if first == entry.name:
            return False
        entry.kind, entry.link = tar.HARDLINK, first
        self.write(tar.header_of(entry))
        return True

    def _special(self, parent: int, base: bytes, state: os.stat_result, entry: Entry) -> None:
        mode = state.st_mode
        if stat.S_ISLNK(mode):
            entry.kind, entry.mode = tar.SYMLINK, 0o777
            try:
                entry.link = os.readlink(base, dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):
                    return
                raise
        elif stat.S_ISFIFO(mode):
            entry.kind = tar.FIFO
        else:
            entry.kind = tar.CHARACTER if stat.S_ISCHR(mode) else tar.BLOCK_DEVICE
            entry.device = (os.major(state.st_rdev), os.minor(state.st_rdev))
        self.write(tar.header_of(entry))

    def _data_of(self, fd: int, group: int) -> int:
        """Where the bytes of the open file `fd` are: others know files that have them elsewhere."""
        return fd

    def _file(self, parent: int, base: bytes, entry: Entry, group: int) -> None:
        try:
            fd = os.open(base, READ, dir_fd=parent)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode):
                return
            entry.size, entry.mtime_ns = state.st_size, state.st_mtime_ns
            entry.xattrs = xattrs_of(fd)
            source = self._data_of(fd, group)
            try:
                self.write(tar.header_of(entry))
                if source != fd:
                    state = os.fstat(source)
                self._data(source, entry.size, state.st_blocks * 512 < state.st_size)
                self.write(bytes(-entry.size % tar.BLOCK))
            finally:
                if source != fd:
                    os.close(source)
        finally:
            os.close(fd)

    def _data(self, fd: int, size: int, holes: bool) -> None:
        position = 0
        while position < size:
            start, end = position, size
            if holes:
                start = min(size, _seek(fd, position, os.SEEK_DATA, size))
                while position < start:
                    zeros = _ZEROS[: start - position]
                    self.write(zeros)
                    position += len(zeros)
                end = min(size, _seek(fd, position, os.SEEK_HOLE, size))
            if self._send is not None and end - position >= SEND_FROM:
                self.flush()
                self._send(fd, position, end - position)
                position = end
            else:
                position = self._read(fd, position, end)

    def _read(self, fd: int, position: int, end: int) -> int:
        while position < end:
            data = os.pread(fd, min(CHUNK, end - position), position)
            if not data:  # it was cut meanwhile
                data = _ZEROS[: end - position]
            self.write(data)
            position += len(data)
        return position


def xattrs_of(fd: int) -> dict[bytes, bytes]:
    """What belongs to the file itself: neither overlayfs's marks nor remembered owners."""
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
            try:
                xattrs[os.fsencode(name)] = os.getxattr(fd, name)
            except OSError as error:
                if error.errno != errno.ENODATA:  # taken away since it was listed
                    raise
    return xattrs


def below(
    root: int, hidden: Callable[[bytes], bool] = lambda path: False
) -> Iterator[tuple[bytes, int, bytes, os.stat_result]]:
    """All that lies below the open folder `root`: (path, open parent, base, state), as Go's WalkDir goes.

    Folders are opened again from the root with no link followed, so whoever moves them meanwhile only
    makes them vanish from the list. The kernel's own file systems (proc, sysfs, …), and folders for
    which `hidden` is true, show as empty.
    """
    pending: list[tuple[bytes, list[bytes]]] = []
    path = b""
    device = os.fstat(root).st_dev
    while True:
        fd = _open_below(root, path)
        if fd >= 0:
            try:
                if os.fstat(fd).st_dev != device and is_kernel_s(fd):
                    names: list[bytes] = []
                else:
                    names = sorted((os.fsencode(n) for n in os.listdir(fd)), reverse=True)
            finally:
                os.close(fd)
            pending.append((path, names))
        found = None
        while pending and found is None:
            folder, names = pending[-1]
            if not names:
                pending.pop()
                continue
            parent = _open_below(root, folder)
            if parent < 0:
                pending.pop()
                continue
            try:
                while names and found is None:
                    base = names.pop()
                    try:
                        state = os.stat(base, dir_fd=parent, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    path = folder + b"/" + base if folder else base
                    yield path, parent, base, state
                    if stat.S_ISDIR(state.st_mode) and not hidden(path):
                        found = path
            finally:
                os.close(parent)
        if found is None:
            return
        path = found


def _open_below(root: int, path: bytes) -> int:
    try:
        return beneath.open_in_root(root, os.fsdecode(path) or ".", FOLDER, no_symlinks=True)
    except OSError as error:
        if error.errno in _GONE:
            return -1
        raise


def is_kernel_s(fd: int) -> bool:
    """Whether `fd` lies on a file system that holds no files but the kernel's own state."""
    return fstatfs_type(fd) in _KERNEL_S


def _seek(fd: int, position: int, whence: int, size: int) -> int:
    try:
        return os.lseek(fd, position, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size  # only a hole follows, or nothing
        raise
