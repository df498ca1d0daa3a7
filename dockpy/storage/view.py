"""What a stack of trees shows: the merge that overlayfs does, as a walk. For copying, for archives, for changes.

Directories come before what is in them, names sorted, so that equal trees give equal walks. Lower trees never
change; an upper one may belong to a running container: what vanishes meanwhile is passed over, and every
directory is opened beneath its tree's root.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dockpy.linux import beneath
from dockpy.storage.owners import Remembered, SideTable, remembered_fd

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
USER_OPAQUE = "user.overlay.opaque"
TRUSTED_OPAQUE = "trusted.overlay.opaque"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Tree:
    """A folder in overlayfs's form, and what is remembered beside it. `data`: of a twin, the lender's (twin.py)."""

    path: str
    table: SideTable
    data: str = ""


@dataclass(frozen=True)
class Item:
    """A file, directory or link that shows: `base` in the open directory `parent` (until the walk goes on).

    `tree` is the index of the tree it comes from. A device that is only remembered has no `state`.
    """

    path: bytes
    tree: int
    parent: int
    base: bytes
    state: os.stat_result | None

    @property
    def is_directory(self) -> bool:
        return self.state is not None and stat.S_ISDIR(self.state.st_mode)


def is_whiteout(state: os.stat_result) -> bool:
    return stat.S_ISCHR(state.st_mode) and state.st_rdev == 0


def is_opaque(fd: int, opaque_xattr: str) -> bool:
    with contextlib.suppress(OSError):  # no such mark, or no xattrs here
        if os.getxattr(fd, opaque_xattr) == b"y":
            return True
    # fuse-overlayfs leaves the layer format's own marker in an upper tree.
    return os.access(OPAQUE, os.F_OK, dir_fd=fd, follow_symlinks=False)


def opaque(item: Item, opaque_xattr: str) -> bool:
    """Whether the directory `item` hides what the trees below have at its path."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it may have vanished
        fd = os.open(item.base, _FOLDER, dir_fd=item.parent)
        try:
            return is_opaque(fd, opaque_xattr)
        finally:
            os.close(fd)
    return False


def walk(trees: Sequence[Tree], opaque_xattr: str, *, raw: bool = False) -> Iterator[Item]:
    """All that `trees` (topmost first) show together, but for the root. `raw`: whiteouts, too."""
    stack = _Stack(trees, opaque_xattr)
    pending: list[tuple[bytes, list[int]]] = [(b"", list(range(len(trees))))]
    try:
        while pending:
            path, indexes = pending.pop()
            opened = stack.open(path, indexes)
            try:
                found, folders = _merge(path, opened, stack.marks, raw)
                for base in sorted(found):
                    yield found[base]
                prefix = path + b"/" if path else b""
                pending += [
                    (prefix + base, folders[base]) for base in sorted(folders, reverse=True)
                ]
            finally:
                for _, fd in opened:
                    os.close(fd)
    finally:
        stack.close()


@dataclass(frozen=True)
class Beside:
    """One directory of an upper tree and what the trees below it show at that path, by name.

    `own` has whiteouts. `hides`: nothing of `below` shows through that is not in `own`.
    """

    path: bytes
    own: Mapping[bytes, Item]
    below: Mapping[bytes, Item]
    hides: bool


def beside(upper: Tree, lowers: Sequence[Tree], opaque_xattr: str) -> Iterator[Beside]:
    """Every directory of `upper`, parents first. Of the lower trees only those paths are looked at.

    Items' tree indexes count `upper` as 0.
    """
    stack = _Stack((upper, *lowers), opaque_xattr)
    pending: list[tuple[bytes, list[int], bool]] = [(b"", list(range(1, len(lowers) + 1)), False)]
    try:
        while pending:
            path, indexes, hides = pending.pop()
            top = stack.open(path, [0])
            rest = stack.open(path, indexes) if top else []
            try:
                hides = hides or any(stack.is_opaque(path, *one) for one in top)
                own, _ = _merge(path, top, stack.marks, True)
                below, folders = _merge(path, rest, stack.marks, False)
                yield Beside(path, own, below, hides)
            finally:
                for _, fd in (*top, *rest):
                    os.close(fd)
            prefix = path + b"/" if path else b""
            pending += [
                (prefix + base, folders.get(base, []), hides)
                for base in sorted(own, reverse=True)
                if own[base].is_directory
            ]
    finally:
        stack.close()


class _Stack:
    """Open trees, topmost first, and their side tables by directory."""

    def __init__(self, trees: Sequence[Tree], opaque_xattr: str) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._roots = [os.open(tree.path, flags) for tree in trees]
        self.marks = [_marks(tree.table) for tree in trees]
        self._opaque_xattr = opaque_xattr

    def open(self, path: bytes, indexes: Sequence[int]) -> list[tuple[int, int]]:
        """(index, descriptor) of the trees that have a part in the directory `path`."""
        opened: list[tuple[int, int]] = []
        for index in indexes:
            fd = _open(self._roots[index], path)
            if fd < 0:
                continue
            opened.append((index, fd))
            if self.is_opaque(path, index, fd):
                break
        return opened

    def is_opaque(self, path: bytes, index: int, fd: int) -> bool:
        return is_opaque(fd, self._opaque_xattr) or path in self.marks[index].opaque

    def close(self) -> None:
        for root in self._roots:
            os.close(root)


@dataclass
class _Marks:
    """A side table by directory: remembered devices, and whiteouts and opaque marks without a file."""

    devices: dict[bytes, list[bytes]]
    whiteouts: dict[bytes, set[bytes]]
    opaque: set[bytes]


def _marks(table: SideTable) -> _Marks:
    marks = _Marks({}, {}, set())
    for path, what in table.items().items():
        folder, _, base = path.rpartition(b"/")
        if what.kind in "34":
            marks.devices.setdefault(folder, []).append(base)
        elif what.kind == "w":
            marks.whiteouts.setdefault(folder, set()).add(base)
        elif what.kind == "o":
            marks.opaque.add(path)
    return marks


def _open(root: int, path: bytes) -> int:
    try:
        return beneath.open_in_root(root, os.fsdecode(path) or ".", _FOLDER, no_symlinks=True)
    except (FileNotFoundError, NotADirectoryError):
        return -1  # gone since it was listed


def _merge(
    path: bytes, opened: list[tuple[int, int]], marks: list[_Marks], raw: bool
) -> tuple[dict[bytes, Item], dict[bytes, list[int]]]:
    """What one directory shows, and for each of its directories the trees that have a part in it."""
    found: dict[bytes, Item] = {}
    folders: dict[bytes, list[int]] = {}
    hidden: set[bytes] = set()  # names that nothing lower can add to
    prefix = path + b"/" if path else b""
    for index, fd in opened:
        own: set[bytes] = set()
        for name in os.listdir(fd):
            base = os.fsencode(name)
            own.add(base)
            if base in hidden or base == OPAQUE:
                continue
            try:
                state = os.stat(base, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if is_whiteout(state) and not raw:
                hidden.add(base)
                continue
            if base not in found:
                found[base] = Item(prefix + base, index, fd, base, state)
            if stat.S_ISDIR(state.st_mode):
                folders.setdefault(base, []).append(index)
            else:
                hidden.add(base)
        for base in marks[index].devices.get(path, ()):
            if base not in own and base not in hidden and base not in found:
                found[base] = Item(prefix + base, index, fd, base, None)
                hidden.add(base)
        hidden |= marks[index].whiteouts.get(path, set()) - own
    return found, folders


def owner_of(item: Item, trees: Sequence[Tree]) -> tuple[int, int, int]:
    """(uid, gid, permission bits) that `item` is meant to have."""
    known = trees[item.tree].table.get(item.path)
    if item.state is None:
        assert known is not None  # that is where it comes from
        return known.uid, known.gid, known.mode
    plain = (item.state.st_uid, item.state.st_gid, stat.S_IMODE(item.state.st_mode))
    if stat.S_ISREG(item.state.st_mode) or stat.S_ISDIR(item.state.st_mode):
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(item.base, flags, dir_fd=item.parent)
        except FileNotFoundError:
            return plain
        try:
            return remembered_fd(f"/proc/self/fd/{fd}") or _told(known) or plain
        finally:
            os.close(fd)
    return _told(known) or plain


def _told(known: Remembered | None) -> tuple[int, int, int] | None:
    return None if known is None else (known.uid, known.gid, known.mode)
