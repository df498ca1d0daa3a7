"""Twins: layers whose files' bytes stay where another user's store has them.

A tree that another user's store has unpacked is no lower directory for us: overlayfs copies no file up whose
owner has no id in our user namespace. Since Linux 6.16 it can be a *data-only* layer, in a user namespace, too: a
file of ours with the xattrs `user.overlay.metacopy` (empty) and `user.overlay.redirect` ("/<number>/<path>" below
the lender's folder of trees) shows that file's bytes under our owner, mode, times and other attributes, and is
copied up whole.

A twin is unpacked from the layer's archive like every tree (`layer.extract`), so all that it says of files comes
from a digest that was verified. But a file of a certain size that the lender's tree has at the same path with
the same bytes, and that we may read, becomes an empty one of the same size with the two marks (`Lent.shows`); all
others (small ones; etc/shadow) are written. Bytes that the lender changes later are changed here: they are
trusted from then on, as are the trees of another store of the same user.

What the kernel does, and what follows from it:
  - It follows a mark in the lowest directory of a stack only (EPERM elsewhere): see overlay.py, which merges.
  - It looks for the path in every data layer, the topmost first: there is one for a stack, of one lender.
  - On the way it crosses no symbolic link and no mount, and opens nothing but regular files; the folder itself
    is found without links, too (linux.overlay). So a lender that turns hostile shows files of its own, or none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial

from dockpy.errors import Unavailable
from dockpy.linux import beneath, overlay
from dockpy.linux.mounts import move_mount
from dockpy.storage.tar import shown
from dockpy.storage.trial import tried

METACOPY, REDIRECT = "user.overlay.metacopy", "user.overlay.redirect"
LONGEST = 4000  # bytes of a path in a mark: it is looked up in one page

_CHUNK = 1 << 20
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Lent:
    """A lender's tree, whose number is its name, while its twin is made. OSError where it cannot be opened."""

    def __init__(self, tree: str) -> None:
        self.tree = tree
        self.size = 0
        """Bytes that are not written."""
        self._prefix = b"/" + os.fsencode(os.path.basename(tree)) + b"/"
        self._root = beneath.open_straight(tree)
        self._device = os.fstat(self._root).st_dev
        self._at = (b"", os.dup(self._root))

    def close(self) -> None:
        os.close(self._root)
        os.close(self._at[1])

    def shows(self, fd: int, path: bytes, size: int, data: Callable[[], memoryview]) -> bool:
        """Makes the new file `fd`, which is to be `path` with `size` bytes, show the lender's, if that is the same.

        Else whatever was taken of `data`, its bytes in pieces, is written, and what is left is the caller's.
        """
        source = self._open(path, size)
        if source < 0:
            return False
        try:
            same = 0
            while piece := data():
                # A view is compared ten times slower.
                if os.pread(source, len(piece), same) != bytes(piece):
                    _copy(source, fd, same)
                    _write(fd, piece)
                    return False
                same += len(piece)
            try:
                os.setxattr(fd, METACOPY, b"")
                os.setxattr(fd, REDIRECT, self._prefix + path)
            except OSError:  # too long for this file system, say: then it is a file like others
                _unmark(fd)
                _copy(source, fd, size)
                return True
        finally:
            os.close(source)
        os.ftruncate(fd, size)
        self.size += size
        return True

    def _open(self, path: bytes, size: int) -> int:
        """The lender's file `path`, -1 where it has none of that size that we may read (and the kernel finds)."""
        if len(path) > LONGEST:
            return -1
        folder, _, base = path.rpartition(b"/")
        try:
            if folder != self._at[0]:
                name = os.fsdecode(folder) or "."
                fd = beneath.open_in_root(self._root, name, _FOLDER, no_symlinks=True)
                os.close(self._at[1])
                self._at = (folder, fd)
            handle = os.open(base, _HANDLE, dir_fd=self._at[1])
        except OSError:
            return -1
        return _reading(handle, self._device, size)


def data_of(fd: int, tree: str) -> int:
    """Where the bytes are of the open file `fd` of the twin of a lender's `tree`: `fd`, or a descriptor of the lender's.

    Unavailable: the lender has it no more.
    """
    try:
        where = os.getxattr(fd, REDIRECT)
    except OSError:  # no mark
        return fd
    found = -1
    try:
        root = beneath.open_straight(os.path.dirname(tree))
        try:
            path = os.fsdecode(where.lstrip(b"/"))
            handle = beneath.open_in_root(root, path, _HANDLE, no_symlinks=True)
        finally:
            os.close(root)
        found = _reading(handle, os.fstat(handle).st_dev, os.fstat(fd).st_size)
    except OSError:
        pass  # told below
    if found < 0:
        raise Unavailable(
            f"{shown(where)}, which is another store's, is not as it was in {os.path.dirname(tree)}"
        )
    return found


def _reading(handle: int, device: int, size: int) -> int:
    """The file behind the O_PATH descriptor `handle`, which is closed: opened only once it is known to be regular."""
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_size != size or state.st_dev != device:
            return -1
        return os.open(f"/proc/self/fd/{handle}", _READ)
    except OSError:  # not ours to read
        return -1
    finally:
        os.close(handle)


def _unmark(fd: int) -> None:
    for name in (REDIRECT, METACOPY):
        if name in os.listxattr(fd):
            os.removexattr(fd, name)


def _copy(source: int, target: int, size: int) -> None:
    position = 0
    while position < size:
        data = os.pread(source, min(_CHUNK, size - position), position)
        if not data:
            raise Unavailable("a file of another store was cut while its layer was unpacked")
        _write(target, memoryview(data))
        position += len(data)


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def works(folder: str, lender: str) -> bool:
    """Whether overlayfs shows files of a data layer here as we need it, and takes the folder `lender` as one.

    Tried (see trial.py) with a stack as ours are: a marked file in the lowest directory is read, and copied up.
    """
    return tried(folder, partial(_try, lender))


def _try(lender: str, base: str) -> None:
    for name in ("d/1", "l/e", "m/e", "u", "w", "t"):
        os.makedirs(f"{base}/{name}", mode=0o755)
    wanted = b"lent" * 4096
    for path, data in (("d/1/f", wanted), ("l/e/f", b"")):
        fd = os.open(f"{base}/{path}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.write(fd, data)
        os.close(fd)
    os.setxattr(f"{base}/l/e/f", REDIRECT, b"/1/f")
    os.setxattr(f"{base}/l/e/f", METACOPY, b"")
    os.truncate(f"{base}/l/e/f", len(wanted))
    layers = (overlay.LOWER + f"{base}/m", overlay.LOWER + f"{base}/l")
    data_layers = (overlay.DATA + f"{base}/d", overlay.DATA + lender)
    words = (*layers, *data_layers, f"upperdir={base}/u", f"workdir={base}/w", "userxattr")
    target = os.open(f"{base}/t", _FOLDER)
    move_mount(overlay.detached(words), target)
    for name, flags in (("f", os.O_RDONLY), ("f", os.O_RDWR)):
        fd = os.open(f"{base}/t/e/{name}", flags | os.O_CLOEXEC)
        if os.read(fd, len(wanted) + 1) != wanted:
            raise OSError("overlayfs does not follow our marks")
        os.close(fd)
