"""Whether blobs hold what their names say, and trees what their layers' archives say. Reading only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping

from dockpy.errors import Unavailable
from dockpy.linux import beneath
from dockpy.oci.digest import Digest, digest_of, hasher
from dockpy.storage import tar
from dockpy.storage.compression import decompressed
from dockpy.storage.content import ContentStore
from dockpy.storage.contents import Contents
from dockpy.storage.snapshot import Read
from dockpy.storage.tar import Entry, TarReader, shown
from dockpy.storage.twin import data_of
from dockpy.storage.untrusted import safe_path
from dockpy.storage.view import WHITEOUT, Tree

_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PARENT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def blob_problem(content: ContentStore, blob: Digest, progress: Callable[[int], None]) -> str:
    """What is wrong with a blob, "" for nothing; NotFound when it is removed meanwhile."""
    fd = content.open(blob)
    try:
        state = hasher(blob)
        while chunk := os.read(fd, _CHUNK):
            state.update(chunk)
            progress(len(chunk))
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    finally:
        os.close(fd)
    found = digest_of(state)
    return "" if found == blob else f"it has the digest {found}"


def tree_problem(read: Read, tree: Tree, *, content: bool = False) -> str:
    """What a layer's tree lacks of the archive behind `read`; "" for nothing. `content`: files' bytes, too."""
    root = -1
    try:
        root = os.open(tree.path, _PARENT)
        contents = Contents(root, tree.data) if content else None
        wanted = _wanted(TarReader(decompressed(read)), contents)
        wrong = _Comparison(root, tree, contents.wrong() if contents else {}).wrong(wanted)
    except OSError as error:
        if root >= 0:
            raise
        return f"its tree cannot be opened: {error.strerror}"
    finally:
        if root >= 0:
            os.close(root)
        while read(_CHUNK):  # its end closes it
            pass
    if not wrong:
        return ""
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}"


def _wanted(archive: TarReader, contents: Contents | None) -> dict[bytes, Entry]:
    wanted: dict[bytes, Entry] = {}
    while (entry := archive.next()) is not None:
        path = safe_path(entry.name)
        folder, _, base = path.rpartition(b"/")
        if base.startswith(WHITEOUT):
            hidden = base[len(WHITEOUT) :]
            wanted.pop(folder + b"/" + hidden if folder else hidden, None)
        elif path:
            wanted[path] = entry
            if contents is not None:
                contents.compare(path, entry, archive)
    return wanted


class _Comparison:
    """`contents`: what is wrong with the bytes of which file."""

    def __init__(self, root: int, tree: Tree, contents: Mapping[bytes, str]) -> None:
        self._root = root
        self._tree = tree
        self._contents = contents
        self._folder = (b"", os.dup(root))

    def wrong(self, wanted: dict[bytes, Entry]) -> list[str]:
        try:
            told = ((path, self._difference(path, entry)) for path, entry in wanted.items())
            return [f"{shown(path)} {what}" for path, what in told if what]
        finally:
            os.close(self._folder[1])

    def _difference(self, path: bytes, entry: Entry) -> str:
        folder, _, base = path.rpartition(b"/")
        if entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE, b"V", b"D"):
            return ""  # not every tier can make them
        try:
            parent = self._parent(folder)
            state = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return f"cannot be looked at: {error.strerror}"
            return "" if self._tree.table.get(path) is not None else "is missing"
        if entry.kind == tar.REGULAR:
            if not stat.S_ISREG(state.st_mode):
                return "is no file"
            if state.st_size != entry.size:
                return f"has {state.st_size} bytes, not {entry.size}"
            lent = self._lent_problem(parent, base) if self._tree.data else ""
            return lent or self._contents.get(path, "")
        if entry.kind == tar.DIRECTORY:
            return "" if stat.S_ISDIR(state.st_mode) else "is no directory"
        if entry.kind == tar.SYMLINK:
            same = stat.S_ISLNK(state.st_mode) and os.readlink(base, dir_fd=parent) == entry.link
            return "" if same else "is another link"
        return ""

    def _lent_problem(self, parent: int, base: bytes) -> str:
        try:
            fd = os.open(base, _READ, dir_fd=parent)
        except OSError as error:
            return f"cannot be opened: {error.strerror}"
        try:
            data = data_of(fd, self._tree.data)
            if data != fd:
                os.close(data)
        except Unavailable:
            return "is not there any more in the other store that has its bytes"
        finally:
            os.close(fd)
        return ""

    def _parent(self, folder: bytes) -> int:
        if self._folder[0] != folder:
            fd = beneath.open_in_root(self._root, os.fsdecode(folder) or ".", _PARENT)
            os.close(self._folder[1])
            self._folder = (folder, fd)
        return self._folder[1]
