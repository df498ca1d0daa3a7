"""What a container changed: docker's list of changes, and which of them are a layer's.

A change is one against what the image shows, by kind, owner, mode, and but for directories size, time
and device, as docker's own comparing driver has it: a file copied up and left as it was is none. A
directory in which something has changed counts as changed. On an overlay only the directories of the
upper tree are looked at; a copied tree is compared whole.

The mount points that every start makes (docker keeps them in a layer of its own below the
container's) are no changes as long as they are empty.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dockpy.storage.view import Item, Tree, beside, is_whiteout, owner_of, walk

ADDED, CHANGED, DELETED = "A", "C", "D"

_MADE_FOLDERS = frozenset((b"dev", b"dev/pts", b"dev/shm", b"etc", b"proc", b"sys"))
_MADE_FILES = frozenset(
    (b".dockerenv", b"dev/console", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf")
)


@dataclass(frozen=True)
class Change:
    kind: str
    path: bytes  # absolute in the container


def changes(upper: Tree, lowers: Sequence[Tree], opaque_xattr: str) -> Iterator[Change]:
    """Changes of an overlay's `upper` against the `lowers` it lies on, by path."""
    return _listed(_of_overlay(upper, lowers, opaque_xattr))


def layer_parts(upper: Tree, lowers: Sequence[Tree], opaque_xattr: str) -> Collection[bytes]:
    """The paths of `upper` that make the layer of its changes."""
    return _of_overlay(upper, lowers, opaque_xattr).keys()


def compared(whole: Tree, lowers: Sequence[Tree], opaque_xattr: str) -> Iterator[Change]:
    """Changes of a copied tree against the layers it was made of, by path."""
    before = {item.path: _look(item, lowers) for item in walk(lowers, opaque_xattr)}
    found: dict[bytes, str] = {}
    made: set[bytes] = set()
    for item in walk([whole], opaque_xattr):
        known = before.pop(item.path, None)
        if known is None:
            _added(item, found, made)
        elif known != _look(item, [whole]):
            found[item.path] = CHANGED
    for path in before:
        if _folder_of(path) not in before:  # what goes with a removed directory is not told
            found[path] = DELETED
    _tell_folders(found, made)
    return _listed(found)


def _of_overlay(upper: Tree, lowers: Sequence[Tree], opaque_xattr: str) -> dict[bytes, str]:
    trees = (upper, *lowers)
    found: dict[bytes, str] = {}
    made: set[bytes] = set()
    for folder in beside(upper, lowers, opaque_xattr):
        for base, item in folder.own.items():
            old = folder.below.get(base)
            if item.state is not None and is_whiteout(item.state):
                if old is not None:
                    found[item.path] = DELETED
            elif old is None:
                _added(item, found, made)
            elif _look(old, trees) != _look(item, trees):
                found[item.path] = CHANGED
        if folder.hides:
            for base, old in folder.below.items():
                if base not in folder.own:
                    found[old.path] = DELETED
    _tell_folders(found, made)
    return found


def _added(item: Item, found: dict[bytes, str], made: set[bytes]) -> None:
    if item.is_directory and item.path in _MADE_FOLDERS:
        made.add(item.path)
    elif item.path not in _MADE_FILES or item.state is None or item.state.st_size:
        found[item.path] = ADDED


def _tell_folders(found: dict[bytes, str], made: Collection[bytes]) -> None:
    for path in list(found):
        while (path := _folder_of(path)) and path not in found:
            found[path] = ADDED if path in made else CHANGED


def _listed(found: Mapping[bytes, str]) -> Iterator[Change]:
    for path in sorted(found):
        yield Change(found[path], b"/" + path)


def _folder_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


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
        return (kind, owner, _target(item), state.st_mtime_ns)
    return (kind, owner, state.st_size, state.st_mtime_ns, state.st_rdev)


def _target(item: Item) -> bytes:
    try:
        return os.readlink(item.base, dir_fd=item.parent)
    except OSError:
        return b""  # it vanished, or is no link any more: a running container's
