"""What a container changed: docker's list of changes, and the layer that commit makes of them.

On an overlay the upper tree is the answer. A copied tree is compared with what the layers show: by kind, size, time, mode,
owner and link, as docker's own comparing drivers do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dockpy.storage.view import Item, Tree, is_opaque, is_whiteout, owner_of, walk

ADDED, CHANGED, DELETED = "A", "C", "D"


@dataclass(frozen=True)
class Change:
    kind: str
    path: bytes  # absolute in the container


def changes(upper: Tree, lowers: Sequence[Tree], opaque_xattr: str) -> Iterator[Change]:
    """Changes of an overlay's `upper` against the `lowers` it lies on, by path."""
    below = _names(lowers, opaque_xattr)
    seen: list[Change] = []
    for item in walk([upper], opaque_xattr, raw=True):
        assert item.state is not None  # a container makes no remembered devices
        if is_whiteout(item.state):
            if item.path in below:
                seen.append(Change(DELETED, b"/" + item.path))
            continue
        seen.append(Change(CHANGED if item.path in below else ADDED, b"/" + item.path))
        if item.is_directory and item.path in below and _opaque(item, opaque_xattr):
            seen += _hidden(item.path, below, upper)
    yield from sorted(seen, key=lambda change: change.path)


def compared(whole: Tree, lowers: Sequence[Tree], opaque_xattr: str) -> Iterator[Change]:
    """Changes of a copied tree against the layers it was made of, by path."""
    before: dict[bytes, tuple[object, ...]] = {
        item.path: _look(item, lowers) for item in walk(lowers, opaque_xattr)
    }
    seen: list[Change] = []
    for item in walk([whole], opaque_xattr):
        known = before.pop(item.path, None)
        if known is None:
            seen.append(Change(ADDED, b"/" + item.path))
        elif known != _look(item, [whole]):
            seen.append(Change(CHANGED, b"/" + item.path))
    gone = set(before)
    seen += [
        Change(DELETED, b"/" + path) for path in before if path.rpartition(b"/")[0] not in gone
    ]
    # A directory in which something changed has changed, too (an overlay has copied it up).
    known_paths = {change.path for change in seen}
    for path in list(known_paths):
        while (path := path.rpartition(b"/")[0]) and path not in known_paths:
            known_paths.add(path)
            seen.append(Change(CHANGED, path))
    yield from sorted(seen, key=lambda change: change.path)


def _names(trees: Sequence[Tree], opaque_xattr: str) -> set[bytes]:
    return {item.path for item in walk(trees, opaque_xattr)}


def _opaque(item: Item, opaque_xattr: str) -> bool:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(item.base, flags, dir_fd=item.parent)
    try:
        return is_opaque(fd, opaque_xattr)
    finally:
        os.close(fd)


def _hidden(path: bytes, below: set[bytes], upper: Tree) -> list[Change]:
    """What an opaque directory took away: the names directly in it that are not there again."""
    return [
        Change(DELETED, b"/" + name)
        for name in below
        if name.rpartition(b"/")[0] == path
        and not os.path.lexists(os.path.join(os.fsencode(upper.path), name))
    ]


def _look(item: Item, trees: Sequence[Tree]) -> tuple[object, ...]:
    """What must differ for a file to count as changed; a directory's time does not."""
    state = item.state
    if state is None:
        return ("device",)
    kind = stat.S_IFMT(state.st_mode)
    owner = owner_of(item, trees)
    if stat.S_ISDIR(state.st_mode):
        return (kind, owner)
    if stat.S_ISLNK(state.st_mode):
        return (kind, owner, os.readlink(item.base, dir_fd=item.parent))
    return (kind, owner, state.st_size, state.st_mtime_ns, state.st_rdev)
