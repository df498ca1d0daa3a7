"""The layers of another store, which may be borrowed: its record here is a layer's, its tree a link to the lender's.
Or, where the lender is another user, a tree of our own without the bytes of its files (twin.py).
"""

from __future__ import annotations

import os

from dockpy import files
from dockpy.errors import InvalidParameter
from dockpy.oci.digest import ChainID, hex_of
from dockpy.storage.records import Layer, read_layer


class Lender:
    """The layers of another store, which its own daemon may drop at any time: read only when asked."""

    def __init__(self, root: str) -> None:
        self._root = root

    def lends_to(self, root: str, form: str) -> bool:
        """Whether its trees serve in the snapshots of `root`: made by the same user in the same form.

        overlayfs copies no file up whose owner has no id here.
        """
        try:
            same = os.stat(self._root).st_uid == os.stat(root).st_uid
            return same and files.read_bytes(f"{self._root}/form").decode() == form
        except (OSError, ValueError):
            return False

    def foreign_tree(self, chain: ChainID) -> str:
        """The tree of a layer for a twin (twin.py): a folder of its own `n`; "" when it has none."""
        found = self.layer(chain)
        if found is None or found.data:  # of a twin it has the names, and not the bytes
            return ""
        return f"{self.trees()}/{found.number}"

    def trees(self) -> str:
        """The folder of its trees, without links on the way."""
        return os.path.realpath(f"{self._root}/n")

    def layer(self, chain: ChainID) -> Layer | None:
        try:
            found = read_layer(self._root, hex_of(chain))
        except (OSError, InvalidParameter):
            return None
        return found if os.path.isdir(self.tree(found)) else None

    def tree(self, one: Layer) -> str:
        return os.path.realpath(f"{self.trees()}/{one.number}")

    def table(self, one: Layer) -> str:
        return os.path.realpath(f"{self._root}/o/{one.number}")
