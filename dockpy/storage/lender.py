"""A committed layer as its record says it, and the layers of another store, which may be borrowed.

A borrowed layer has a record and a number here; its tree is a link to the lender's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from dockpy import files
from dockpy.damaged import load_object
from dockpy.errors import InvalidParameter
from dockpy.oci.digest import ChainID, chain_id, hex_of
from dockpy.oci.fields import Fields
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


def layer_from_json(raw: Mapping[str, object], name: str) -> Layer:
    """InvalidParameter when this is no record of the chain with the hex digits `name`."""
    fields = Fields(raw, "record")
    parent = fields.raw("parent")
    chain = chain_id(fields.text("chain"))
    if hex_of(chain) != name:
        raise InvalidParameter("it is of another layer")
    number = fields.integer("number")
    if number < 1 or parent == chain:
        raise InvalidParameter("its number or its parent cannot be")
    return Layer(
        chain,
        None if parent is None else chain_id(fields.text("parent")),
        number,
        Usage(fields.integer("size"), fields.integer("inodes")),
        fields.boolean("opaque"),
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
            name = hex_of(chain)
            found = layer_from_json(load_object(f"{self._root}/chains/{name}"), name)
        except (OSError, InvalidParameter):
            return None
        return found if os.path.isdir(self.tree(found)) else None

    def tree(self, one: Layer) -> str:
        return os.path.realpath(f"{self._root}/n/{one.number}")

    def table(self, one: Layer) -> str:
        return os.path.realpath(f"{self._root}/o/{one.number}")
