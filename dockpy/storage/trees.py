"""What all snapshotters share: active trees on top of the committed ones.

How an active tree is made and mounted is each driver's. One daemon a store.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator

from dockpy.errors import Conflict, InvalidParameter, NotFound, Unavailable, sentence
from dockpy.oci.digest import ChainID
from dockpy.oci.spec import Mount
from dockpy.storage import diff
from dockpy.storage.committed import CommittedTrees
from dockpy.storage.diff import Change
from dockpy.storage.records import Active, Layer
from dockpy.storage.recovery import recover
from dockpy.storage.snapshot import LayerSource, Send, Usage, Write
from dockpy.storage.tree import write_tar
from dockpy.storage.usage import measured
from dockpy.storage.view import USER_OPAQUE, Tree


class LayeredSnapshotter(CommittedTrees, ABC):
    """The contract (see snapshot.py) but for making and mounting active trees."""

    name = ""

    def __init__(
        self, root: str, *, real_owners: bool, opaque_xattr: str = USER_OPAQUE, damaged: str = ""
    ) -> None:
        super().__init__(root, real_owners=real_owners, opaque_xattr=opaque_xattr, damaged=damaged)
        self._active = self._records.actives()

    # Committed trees that active ones stand on

    def drop(self, chain: ChainID) -> None:
        with self._lock:
            one = self._layers.get(chain)
            if one is None:
                return
            if any(other.parent == chain for other in self._layers.values()):
                raise Conflict(f"layer {chain} has layers on top of it")
            if any(active.parent == one.number for active in self._active.values()):
                raise Conflict(f"layer {chain} is used by a container")
            self._records.forget(one)
            del self._layers[chain]
            self.places.mark_busy(one.number)
        self.places.discard(one.number)

    def remake(self, chain: ChainID, source: LayerSource) -> None:
        with self._turn(chain):
            old = self._layer(chain)
            made = self._unpack(chain, old.parent, source, self._stack(old.parent))
            try:
                self._keep([made])
            except BaseException:
                self.places.discard(made.number)
                raise
            self._made_again(old)

    def _made_again(self, old: Layer) -> None:
        for active in tuple(self._active.values()):
            if active.parent == old.number:
                self.rebase(active.key, old.chain)
        # Running containers may stand on it; or it is damaged.
        if old.chain in self.held() or not self._lost(old):
            self.places.set_aside(old.number, "its layer was unpacked again")
        else:
            self.places.discard(old.number)

    def held(self) -> frozenset[ChainID]:
        with self._lock:
            by_number = {one.number: one for one in self._layers.values()}
            found: set[ChainID] = set()
            for active in self._active.values():
                one = by_number.get(active.parent)
                while one is not None and one.chain not in found:
                    found.add(one.chain)
                    one = self._layers.get(one.parent) if one.parent else None
        return frozenset(found)

    # What belongs to nothing

    def unknown(self) -> tuple[str, ...]:
        # Before and after: one that comes or goes meanwhile is known at one of the two.
        known = self._known_numbers()
        there = self.places.numbers()
        known |= self._known_numbers()
        return tuple(self.places.place(number) for number in sorted(there - known))

    def _known_numbers(self) -> set[int]:
        with self._lock:
            known = {one.number for one in self._layers.values()} | self.places.busy() | {0}
            return known | {active.number for active in self._active.values()}

    def discard_unknown(self, tree: str) -> None:
        if tree in self.unknown():
            number = int(os.path.basename(tree))
            self._unmake(Active("", number, 0))
            self.places.discard(number)

    def recover(self) -> None:
        recover(
            self.root, self.places, self._records, self._layers, self._active,
            self._unmake, self._lost,
        )  # fmt: skip

    # Active trees

    def keys(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._active)

    def _of_key(self, key: str) -> Active:
        try:
            return self._active[key]
        except KeyError:
            raise NotFound(f"no snapshot of container {key:.12}") from None

    def _parent(self, key: str) -> Layer | None:
        """The topmost layer below an active tree; Unavailable when it is there no more."""
        number = self._of_key(key).parent
        if not number:
            return None
        with self._lock:
            for one in self._layers.values():
                if one.number == number:
                    return one
        raise Unavailable(f"the layers of container {key:.12} are damaged")

    def parent_of(self, key: str) -> ChainID | None:
        one = self._parent(key)
        return one.chain if one else None

    def whole(self, key: str) -> bool:
        active = self._active.get(key)
        if active is None or not active.parent:
            return active is not None
        with self._lock:
            tops = [one.chain for one in self._layers.values() if one.number == active.parent]
        return any(self.has(chain) for chain in tops)

    def rebase(self, key: str, parent: ChainID | None) -> None:
        before = self._of_key(key)
        after = Active(key, before.number, self._layer(parent).number if parent else 0)
        self._records.replace(after)
        with self._lock:
            self._active[key] = after

    def prepare(self, key: str, parent: ChainID | None) -> None:
        if not key or "/" in key or key.startswith("."):
            raise InvalidParameter(f"{key!r:.80} cannot name a snapshot")
        top = None if parent is None else self._layer(parent)
        stack = self._stack(parent)
        self._refuse_lost(stack)
        with self._lock:
            if key in self._active:
                raise Conflict(f"container {key:.12} has a snapshot already")
            number = self.places.new()
            active = Active(key, number, top.number if top else 0)
            # Named in memory first: a drop of the parent must see it.
            self._active[key] = active
        try:
            os.mkdir(self.places.path(number), 0o700)  # nobody else's, who may read the layers
            self._make(active, stack)
            self._records.add(active)
            self.places.settle((number,))
        except BaseException as error:
            with self._lock:
                del self._active[key]
            self.places.discard(number)
            if isinstance(error, OSError):
                text = f"the container's file system cannot be made: {sentence(error)}"
                raise Unavailable(text) from error
            raise

    def remove(self, key: str) -> None:
        active = self._of_key(key)
        # First: without a record, what is left of the tree is removed at the next start.
        self._records.forget(active)
        with self._lock:
            del self._active[key]
            self.places.mark_busy(active.number)
        self._unmake(active)
        self.places.discard(active.number)

    def layers(self, key: str) -> tuple[str, ...]:
        stack = self._stack(self.parent_of(key))
        return tuple(self.places.path(each.number) for each in stack)

    def trees(self, key: str) -> tuple[Tree, ...]:
        return (self._upper_tree(key), *self._lower_trees(key))

    def _upper_tree(self, key: str) -> Tree:
        return Tree(self.upper(key), self.places.table(self._of_key(key).number))

    def _lower_trees(self, key: str) -> tuple[Tree, ...]:
        stack = self._stack(self.parent_of(key))
        return tuple(self._tree(each) for each in stack)

    def _refuse_lost(self, stack: tuple[Layer, ...]) -> None:
        for one in stack:
            if self._lost(one):
                place = one.data or self.places.path(one.number)
                what = "cannot be shown by this kernel (Linux 6.16 can)"
                what = what if os.path.isdir(place) else "is gone"
                raise Unavailable(
                    f"a layer of the image lies in another store, where {place} {what}:"
                    " pull or load the image again"
                )

    def changes(self, key: str) -> Iterator[Change]:
        return diff.changes(self._upper_tree(key), self._lower_trees(key), self._opaque_xattr)

    def write_tree(self, key: str, write: Write, send: Send | None = None) -> None:
        write_tar(write, self.trees(key), self._opaque_xattr, send=send)

    def write_layer(self, key: str, write: Write) -> None:
        upper = self._upper_tree(key)
        parts = diff.layer_parts(upper, self._lower_trees(key), self._opaque_xattr)
        write_tar(write, (upper,), self._opaque_xattr, diff=True, only=parts)

    def set_table_aside(self, key: str) -> None:
        self.places.set_table_aside(self._of_key(key).number, "it cannot be read")

    def usage(self, key: str) -> Usage:
        return measured(self.upper(key))

    def upper(self, key: str) -> str:
        return f"{self.places.path(self._of_key(key).number)}/u"

    @abstractmethod
    def mounts(self, key: str) -> tuple[Mount, ...]: ...

    @abstractmethod
    def _make(self, active: Active, stack: tuple[Layer, ...]) -> None:
        """What a driver needs beside the record before `active` can be mounted."""

    @abstractmethod
    def _unmake(self, active: Active) -> None:
        """Ends what keeps an active tree busy."""
