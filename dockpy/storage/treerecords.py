"""The records of trees: a layer's, JSON in `chains/`, and an active tree's, a symbolic link in `active/`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

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


def active_from_link(key: str, target: str) -> Active:
    number, dot, parent = target.partition(".")
    if not (dot and number.isdecimal() and parent.isdecimal() and number != "0"):
        raise InvalidParameter(f"it leads to {target!r:.80}")
    return Active(key, int(number), int(parent))


@dataclass(frozen=True)
class Active:
    """A container's tree; `parent` is its layer's number, 0 for none."""

    key: str
    number: int
    parent: int


def read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        raise InvalidParameter(f"it is no symbolic link: {error.strerror}") from None
