"""A committed layer as its record says it, and the layers of another store, which may be borrowed.

A borrowed layer has a record and a number here; its tree is a link to the lender's.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from dockpy import files
from dockpy.errors import DockpyError
from dockpy.oci.digest import ChainID, chain_id, hex_of
from dockpy.storage.snapshot import Usage


@dataclass(frozen=True)
class Layer:
    """A committed tree: the layer's own files, in overlayfs's form."""

    chain: ChainID
    parent: ChainID | None
    number: int
    usage: Usage
    opaque: bool

    def to_bytes(self) -> bytes:
        raw = {
            "chain": self.chain,
            "parent": self.parent,
            "number": self.number,
            "size": self.usage.size,
            "inodes": self.usage.inodes,
            "opaque": self.opaque,
        }
        return json.dumps(raw).encode()


def layer_from_bytes(data: bytes) -> Layer:
    raw = json.loads(data)
    parent = raw["parent"]
    return Layer(
        chain_id(raw["chain"]),
        None if parent is None else chain_id(parent),
        int(raw["number"]),
        Usage(int(raw["size"]), int(raw["inodes"])),
        bool(raw["opaque"]),
    )


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

    def layer(self, chain: ChainID) -> Layer | None:
        try:
            found = layer_from_bytes(files.read_bytes(f"{self._root}/chains/{hex_of(chain)}"))
        except (OSError, ValueError, KeyError, TypeError, DockpyError):
            return None
        return found if found.chain == chain and os.path.isdir(self.tree(found)) else None

    def tree(self, one: Layer) -> str:
        return os.path.realpath(f"{self._root}/n/{one.number}")

    def table(self, one: Layer) -> str:
        return os.path.realpath(f"{self._root}/o/{one.number}")
