"""A tree, or what a stack of trees shows, as a tar stream: for export, save and commit.

Deterministic: names sorted. Owners are those remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dockpy.storage import tar
from dockpy.storage.pack import Packer
from dockpy.storage.snapshot import Send, Write
from dockpy.storage.tar import Entry
from dockpy.storage.twin import data_of
from dockpy.storage.view import OPAQUE, WHITEOUT, Item, Tree, is_whiteout, opaque, owner_of, walk


def write_tar(
    write: Write,
    trees: Sequence[Tree],
    opaque_xattr: str,
    *,
    diff: bool = False,
    only: Collection[bytes] | None = None,
    removed: Sequence[bytes] = (),
    send: Send | None = None,
) -> None:
    """Writes what `trees` (topmost first) show, without the root itself.

    `diff`: `trees` is one upper tree, and its whiteouts and opaque marks are written as the layer
    format's .wh. files. `only`: just these paths; `removed`: whiteouts to add, before all else.
    `send` moves the data of larger files.
    """
    output = _Output(write, trees, opaque_xattr, diff, send)
    for path in removed:
        output.whiteout(path)
    for item in walk(trees, opaque_xattr, raw=diff):
        if only is None or item.path in only:
            output.item(item)
    output.end()


class _Output(Packer):
    """A packer of overlayfs's trees: remembered owners, whiteouts, opaque marks."""

    def __init__(
        self, write: Write, trees: Sequence[Tree], opaque_xattr: str, diff: bool, send: Send | None
    ) -> None:
        super().__init__(write, send)
        self._trees = trees
        self._opaque_xattr = opaque_xattr
        self._diff = diff
        if diff:
            self._side_marks(trees[0])

    def _side_marks(self, tree: Tree) -> None:
        for path, known in sorted(tree.table.items().items()):
            if known.kind == "w":
                self.whiteout(path)
            elif known.kind == "o":
                self._mark(path, OPAQUE)

    def _data_of(self, fd: int, group: int) -> int:
        tree = self._trees[group]
        return data_of(fd, tree.data) if tree.data else fd

    def whiteout(self, path: bytes) -> None:
        folder, _, base = path.rpartition(b"/")
        self._mark(folder, WHITEOUT + base)

    def _mark(self, folder: bytes, name: bytes) -> None:
        path = folder + b"/" + name if folder else name
        self.write(tar.header_of(Entry(path, tar.REGULAR, 0)))

    def item(self, item: Item) -> None:
        state = item.state
        if state is None:
            self._remembered_device(item)
        elif is_whiteout(state):
            self.whiteout(item.path)
        else:
            owner = owner_of(item, self._trees)
            self.add(item.path, item.parent, item.base, state, owner, group=item.tree)
            if self._diff and item.is_directory and opaque(item, self._opaque_xattr):
                self._mark(item.path, OPAQUE)

    def _remembered_device(self, item: Item) -> None:
        known = self._trees[item.tree].table.get(item.path)
        assert known is not None  # a device without a file is known from there only
        kind = known.kind.encode()
        entry = Entry(item.path, kind, known.mode, known.uid, known.gid, device=known.device)
        self.write(tar.header_of(entry))
