"""The records of layers and active trees: what they say, and how they come to the disk and go.

A layer's is a small file, `chains/<hex>`, written when its tree is durable (one syncfs(2) a stack of
layers: 0.1 s for 117 MB here; a sync a file would be 6,700 of them). An active tree's is a symbolic
link, `active/<key>` to "<number>.<parent's number>": made in one call, never half there, journaled as
metadata even where file data are not, so that `prepare` needs no sync to find its tree again.

One that cannot be read is set aside at the daemon's start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from dockpy import files
from dockpy.damaged import Shelf, load_object
from dockpy.errors import InvalidParameter
from dockpy.linux.disk import spread_folders, syncfs
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
    data: str = ""
    """Of a twin (twin.py): the lender's tree, which has `lent` bytes of it."""
    lent: int = 0

    def to_bytes(self) -> bytes:
        raw = {
            "chain": self.chain,
            "parent": self.parent,
            "number": self.number,
            "size": self.usage.size,
            "inodes": self.usage.inodes,
            "opaque": self.opaque,
            **({"data": self.data, "lent": self.lent} if self.data else {}),
        }
        return json.dumps(raw).encode()


def read_layer(root: str, name: str) -> Layer:
    """The record of the chain with the hex digits `name`; FileNotFoundError, InvalidParameter."""
    fields = Fields(load_object(f"{root}/chains/{name}"), "record")
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
        fields.text("data", ""),
        fields.integer("lent", 0),
    )


@dataclass(frozen=True)
class Active:
    """A container's tree; `parent` is its layer's number, 0 for none."""

    key: str
    number: int
    parent: int

    def link(self) -> str:
        return f"{self.number}.{self.parent}"


def read_active(root: str, key: str) -> Active:
    """The record of an active tree; InvalidParameter."""
    try:
        target = os.readlink(f"{root}/active/{key}")
    except OSError as error:
        raise InvalidParameter(f"it is no symbolic link: {error.strerror}") from None
    number, dot, parent = target.partition(".")
    if not (dot and number.isdecimal() and parent.isdecimal() and number != "0"):
        raise InvalidParameter(f"it leads to {target!r:.80}")
    return Active(key, int(number), int(parent))


class Records:
    """All of one snapshots folder."""

    def __init__(self, root: str, shelf: Shelf) -> None:
        self._root = root
        self._shelf = shelf
        self.lost = False
        """Some could not be read: nobody knows whose the trees without a record are."""
        os.makedirs(root, mode=0o755, exist_ok=True)
        spread_folders(root)
        for folder in ("chains", "active"):
            os.makedirs(f"{root}/{folder}", mode=0o755, exist_ok=True)

    def layers(self) -> dict[ChainID, Layer]:
        found: dict[ChainID, Layer] = {}
        for name in os.listdir(f"{self._root}/chains"):
            if name.endswith(".tmp"):
                continue
            try:
                one = read_layer(self._root, name)
            except InvalidParameter as error:
                self._set_aside("chains", "chain", name, str(error))
            else:
                found[one.chain] = one
        return found

    def actives(self) -> dict[str, Active]:
        found: dict[str, Active] = {}
        for key in os.listdir(f"{self._root}/active"):
            if key.endswith(".tmp"):
                os.unlink(f"{self._root}/active/{key}")
                continue
            try:
                found[key] = read_active(self._root, key)
            except InvalidParameter as error:
                self._set_aside("active", "active", key, str(error))
        return found

    def _set_aside(self, folder: str, kind: str, name: str, reason: str) -> None:
        self.lost = True
        self._shelf.set_aside(f"{self._root}/{folder}/{name}", f"{kind}-{name}", reason)

    def keep(self, made: Sequence[Layer]) -> None:
        """Makes trees and their records durable. A record must never name a tree that a power cut has
        emptied, so it gets its name after the one sync, which the new records are part of."""
        written: list[tuple[str, str]] = []
        named = 0
        try:
            for one in made:
                path = self._path(one)
                written.append(
                    (files.write_temporary(path, one.to_bytes(), 0o644, durable=False), path)
                )
            fd = os.open(f"{self._root}/chains", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syncfs(fd)
                for temporary, path in written:
                    os.rename(temporary, path)
                    named += 1
                os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            for number, names in enumerate(written):
                files.unlink_if_exists(names[number < named])
            raise

    def add(self, active: Active) -> None:
        os.symlink(active.link(), self._path(active))

    def replace(self, active: Active) -> None:
        path = self._path(active)
        temporary = f"{path}.tmp"
        files.unlink_if_exists(temporary)
        os.symlink(active.link(), temporary)
        os.rename(temporary, path)

    def forget(self, one: Layer | Active) -> None:
        files.unlink_if_exists(self._path(one))

    def _path(self, one: Layer | Active) -> str:
        if isinstance(one, Layer):
            return f"{self._root}/chains/{hex_of(one.chain)}"
        return f"{self._root}/active/{one.key}"
