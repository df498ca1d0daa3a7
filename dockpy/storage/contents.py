"""Whether a layer's files hold, byte for byte, what its archive says. Reading only, a piece of each at a time."""

from __future__ import annotations

import errno
import os
import stat

from dockpy.errors import Unavailable
from dockpy.linux import beneath
from dockpy.storage import tar
from dockpy.storage.compression import CHUNK
from dockpy.storage.tar import Entry, TarReader, Truncated
from dockpy.storage.twin import data_of

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Other kinds than the archive's, and what is not there: names are check.py's.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


class Contents:
    """Each member of an archive is compared while its data comes by; the last one that is a file's decides."""

    def __init__(self, root: int, lent: str = "") -> None:
        """`lent`: of a twin (twin.py), the tree that has the bytes."""
        self._root = root
        self._lent = lent
        # By what the tree has there: two names in an archive may lead to one file.
        self._wrong: dict[object, tuple[bytes, str]] = {}

    def compare(self, path: bytes, entry: Entry, archive: TarReader) -> None:
        if entry.kind != tar.REGULAR:
            return
        try:
            fd = beneath.open_in_root(self._root, os.fsdecode(path), _FILE)
        except OSError as error:
            if error.errno not in _NO_FILE:
                self._wrong[path] = path, f"cannot be read: {error.strerror}"
            return
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode) or state.st_size != entry.size:
                return
            file = state.st_dev, state.st_ino
            self._wrong.pop(file, None)
            if self._lent and (source := data_of(fd, self._lent)) != fd:
                os.close(fd)
                fd = source
            if not _same(fd, entry, archive):
                self._wrong[file] = path, "has other bytes than in its archive"
        except Unavailable:
            return  # the lender's is gone: check.py's
        except OSError as error:
            self._wrong[path] = path, f"cannot be read: {error.strerror}"
        finally:
            os.close(fd)

    def wrong(self) -> dict[bytes, str]:
        """What is wrong with which path."""
        return dict(self._wrong.values())


def _same(fd: int, entry: Entry, archive: TarReader) -> bool:
    position = 0
    for offset, length in ((0, entry.size),) if entry.regions is None else entry.regions:
        if not _zeros(fd, position, offset):
            return False
        position, end = offset, offset + length
        while position < end:
            piece = archive.some_data(end - position)
            if not piece:
                raise Truncated
            if os.pread(fd, len(piece), position) != bytes(
                piece
            ):  # a view is compared ten times slower
                return False
            position += len(piece)
    return _zeros(fd, position, entry.size)


def _zeros(fd: int, position: int, end: int) -> bool:
    """Whether nothing else is there; holes, which may be of any size, are not read."""
    while position < end:
        try:
            position = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the file's end
                break
            raise
        if position >= end:
            break
        data = os.pread(fd, min(CHUNK, end - position), position)
        if data.strip(b"\0"):
            return False
        position += len(data)
    return True
