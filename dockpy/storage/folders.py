"""The directories of a tree that is being unpacked: kept open by path, and what layers below say of one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dockpy.linux import beneath
from dockpy.storage.owners import remembered_fd

if TYPE_CHECKING:
    from dockpy.storage.tar import Entry

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PARENT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class OpenFolders:
    """Descriptors by path, for members to be made in. Each is found by the kernel within the root (RESOLVE_IN_ROOT),
    and stays right until something on its way is replaced: then `forget`.
    """

    MOST = 64

    def __init__(self, root: int) -> None:
        self._root = root
        self.open: dict[bytes, int] = {b"": root}
        """The same dictionary for ever: who looks at it for each file need not call."""

    def lookup(self, path: bytes) -> int:
        """Stays open until the second next lookup, at least. OSError: there is no such directory."""
        fd = self.open.get(path)
        if fd is None:
            fd = beneath.open_in_root(self._root, os.fsdecode(path), PARENT)
            if len(self.open) > self.MOST:
                # The oldest go; the present member holds at most two, and those are the newest.
                for old in list(self.open)[1 : self.MOST // 2]:
                    os.close(self.open.pop(old))
            self.open[path] = fd
        return fd

    def forget(self, keep: int = -1) -> None:
        """Closes all but the root's and `keep`, which a caller works in."""
        for path, fd in list(self.open.items()):
            if path and fd != keep:
                os.close(fd)
                del self.open[path]


@dataclass(frozen=True)
class Attributes:
    """Of a directory, given to it at the end: what is made in it changes its time, and its mode may forbid that."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    entry: Entry | None = None


def inherited(lowers: tuple[str, ...], path: bytes) -> Attributes:
    """What the layers below (topmost first) say of a directory that a layer uses and does not describe."""
    for lower in lowers:
        root = os.open(lower, PARENT)
        try:
            fd = beneath.open_in_root(root, os.fsdecode(path) or ".", FOLDER)
        except FileNotFoundError:
            continue
        except OSError:
            break  # a whiteout, or no directory there: what lies deeper is hidden
        finally:
            os.close(root)
        try:
            state = os.fstat(fd)
            known = remembered_fd(fd)
        finally:
            os.close(fd)
        uid, gid, mode = known or (state.st_uid, state.st_gid, state.st_mode & 0o7777)
        return Attributes(mode, uid, gid, state.st_mtime_ns)
    return Attributes(0o755, 0, 0, 0)
