"""Committed trees by chain id: each a layer's own files, unpacked once, never changed, maybe another store's.

Records are read once and kept in memory; a lock guards them, and one more each chain that is being
unpacked.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dockpy import files
from dockpy.damaged import Shelf
from dockpy.errors import InvalidParameter, NotFound
from dockpy.oci.digest import ChainID
from dockpy.storage import layer
from dockpy.storage.lender import Lender
from dockpy.storage.owners import Owners, SideTable
from dockpy.storage.places import Places
from dockpy.storage.records import Layer, Records
from dockpy.storage.snapshot import LayerSource, Usage
from dockpy.storage.twin import Lent
from dockpy.storage.view import USER_OPAQUE, Tree


class CommittedTrees:
    """The half of the contract (see snapshot.py) that knows nothing of active trees."""

    def __init__(
        self, root: str, *, real_owners: bool, opaque_xattr: str = USER_OPAQUE, damaged: str = ""
    ) -> None:
        self.root = root
        self.real_owners = real_owners
        self._opaque_xattr = opaque_xattr
        self._lock = threading.Lock()
        self._unpacking: dict[ChainID, threading.Lock] = {}
        shelf = Shelf(damaged or f"{root}/damaged")
        self.places = Places(root, shelf)
        # x, by which others find what they know the name of, may be the wish of its owner.
        mode = stat.S_IMODE(os.stat(root).st_mode)
        if mode & 0o066:
            os.chmod(root, mode & 0o711)
        self._form = f"{opaque_xattr} {'real' if real_owners else 'remembered'} owners\n"
        form = self._form.encode()
        if not os.path.exists(f"{root}/form") or files.read_bytes(f"{root}/form") != form:
            # Not at each start: a daemon whose disk is full must come up, if only to make room.
            files.write_atomic(f"{root}/form", form, durable=False)
        self._records = Records(root, shelf)
        self._layers = self._records.layers()
        self._others: tuple[Lender, ...] = ()
        self._lenders: tuple[Lender, ...] = ()  # those of them whose trees serve here
        self._strangers: tuple[Lender, ...] = ()  # those whose files' bytes do, in twins
        self._twins = False  # whether twins can be mounted here

    def borrow(self, roots: Sequence[str]) -> None:
        """From now on layers that other stores (`roots`: their snapshot folders) have unpacked serve
        here, too: as they are where they are made as ours are, else by twins (twin.py) where overlayfs can.
        """
        self._others = tuple(Lender(root) for root in roots)
        self._lenders = tuple(one for one in self._others if one.lends_to(self.root, self._form))
        others = (one for one in self._others if one not in self._lenders)
        self._strangers = tuple(one for one in others if self._can_twin(one.trees()))
        known = bool(self._lenders) or any(one.data for one in self._layers.values())
        self._twins = bool(self._strangers) or (known and self._can_twin(f"{self.root}/n"))

    def _can_twin(self, trees: str) -> bool:
        """Whether files' bytes in the folder `trees` can be shown by twins; asked at the start, before threads."""
        return False

    def has(self, chain: ChainID) -> bool:
        one = self._layers.get(chain)
        while one is not None and not self._lost(one) and one.parent is not None and not one.opaque:
            one = self._layers.get(one.parent)
        return one is not None and not self._lost(one)

    def chains(self) -> tuple[ChainID, ...]:
        with self._lock:
            return tuple(self._layers)

    def chain_usage(self, chain: ChainID) -> Usage:
        return self._layer(chain).usage

    def known_usage(self, chain: ChainID) -> Usage | None:
        if self.has(chain):
            return self.chain_usage(chain)
        found = (lender.layer(chain) for lender in self._others)
        return next((one.usage for one in found if one is not None), None)

    def owns(self, chain: ChainID) -> bool:
        one = self._layers.get(chain)
        return one is not None and not one.data and not self.places.is_lent(one.number)

    def chain_takes(self, chain: ChainID) -> int:
        one = self._layer(chain)
        return 0 if self.places.is_lent(one.number) else one.usage.size - one.lent

    def chain_tree(self, chain: ChainID) -> Tree:
        return self._tree(self._layer(chain))

    def _tree(self, one: Layer) -> Tree:
        return replace(self.places.tree(one.number), data=one.data)

    def _lost(self, one: Layer) -> bool:
        """Whether it lies in another store, and is there no more, or of no use here."""
        gone = bool(one.data) and not (self._twins and os.path.isdir(one.data))
        return gone or self.places.lost(one.number)

    def _layer(self, chain: ChainID) -> Layer:
        try:
            return self._layers[chain]
        except KeyError:
            raise NotFound(f"layer {chain} is not unpacked") from None

    def _stack(self, chain: ChainID | None) -> tuple[Layer, ...]:
        """The layers seen through `chain`, topmost first."""
        stack: list[Layer] = []
        while chain is not None:
            one = self._layer(chain)
            stack.append(one)
            if one.opaque:
                break
            chain = one.parent
        return tuple(stack)

    def unpack(self, chain: ChainID, parent: ChainID | None, source: LayerSource) -> Usage:
        self.unpack_stack(parent, ((chain, source),))
        return self._layer(chain).usage

    def unpack_stack(
        self, parent: ChainID | None, layers: Sequence[tuple[ChainID, LayerSource]]
    ) -> None:
        stack = self._stack(parent)
        made: list[Layer] = []
        lost: list[Layer] = []
        # Turns are taken from the bottom up by everybody, and kept until all is durable.
        with contextlib.ExitStack() as turns:
            try:
                for chain, source in layers:
                    turns.enter_context(self._turn(chain))
                    one = self._layers.get(chain)
                    if one is not None and self._lost(one):
                        lost.append(one)
                        one = None
                    if one is None:
                        one = self._borrow(chain, stack) or self._twin(chain, parent, source, stack)
                        made.append(one)
                    stack = (one,) if one.opaque else (one, *stack)
                    parent = chain
                if made:
                    self._keep(made)
            except BaseException:
                for one in made:
                    self.places.discard(one.number)
                raise
            for one in lost:
                self._made_again(one)

    def _made_again(self, old: Layer) -> None:
        """A layer that has another tree now: what stood on the `old` one is to stand on that."""

    @contextlib.contextmanager
    def _turn(self, chain: ChainID) -> Iterator[None]:
        with self._lock:
            turn = self._unpacking.setdefault(chain, threading.Lock())
        try:
            with turn:
                yield
        finally:
            with self._lock:
                self._unpacking.pop(chain, None)

    def _borrow(self, chain: ChainID, stack: tuple[Layer, ...]) -> Layer | None:
        """A lender's layer as one of ours: its place is a link to their tree."""
        for lender in self._lenders:
            found = lender.layer(chain)
            if found is None:
                continue
            if not found.data or (self._twins_of(lender) and self._fits(found.data, chain, stack)):
                number = self.places.lend(lender.tree(found), lender.table(found))
                return replace(found, number=number)
        return None

    def _twins_of(self, lender: Lender) -> bool:
        """Whether its twins can be ours: they are merged by hard links (overlay.py)."""
        return self._twins and os.stat(lender.trees()).st_dev == os.stat(self.root).st_dev

    def _twin(
        self, chain: ChainID, parent: ChainID | None, source: LayerSource, stack: tuple[Layer, ...]
    ) -> Layer:
        """Unpacks a layer; what another user's store has of it, stays there."""
        lent = self._lent(chain, stack)
        if lent is None:
            return self._unpack(chain, parent, source, stack)
        try:
            return self._unpack(chain, parent, source, stack, lent)
        finally:
            lent.close()

    def _lent(self, chain: ChainID, stack: tuple[Layer, ...]) -> Lent | None:
        for lender in self._strangers:
            tree = lender.foreign_tree(chain)
            if tree and self._fits(tree, chain, stack):
                with contextlib.suppress(OSError):  # gone, or not ours to enter
                    return Lent(tree)
        return None

    def _fits(self, tree: str, chain: ChainID, stack: tuple[Layer, ...]) -> bool:
        """Whether `chain` may be a twin of `tree`: those below it (`stack`) and above have the same folder of data.

        The kernel looks for a path in all data layers, so a stack has one: no lender's file is shown for another's.
        """
        with self._lock:
            above = [one for one in self._layers.values() if chain in self._ancestry(one)]
        folders = {os.path.dirname(one.data) for one in (*stack, *above) if one.data}
        return folders <= {os.path.dirname(tree)}

    def _ancestry(self, one: Layer) -> Iterator[ChainID]:
        above: Layer | None = one
        while above is not None:
            yield above.chain
            above = self._layers.get(above.parent) if above.parent else None

    def _unpack(
        self,
        chain: ChainID,
        parent: ChainID | None,
        source: LayerSource,
        stack: tuple[Layer, ...],
        lent: Lent | None = None,
    ) -> Layer:
        below = tuple(self.places.path(one.number) for one in stack)
        number = self.places.new()
        try:
            os.mkdir(self.places.path(number), 0o755)
            extracted = self._extract(number, source, below, lent)
        except OSError as error:
            self.places.discard(number)
            raise layer.told(error, b"layer") from error
        except BaseException:
            self.places.discard(number)
            raise
        usage = Usage(extracted.size, extracted.inodes)
        one = Layer(chain, parent, number, usage, extracted.opaque)
        return replace(one, data=lent.tree, lent=lent.size) if lent and lent.size else one

    def _extract(
        self, number: int, source: LayerSource, below: tuple[str, ...], lent: Lent | None
    ) -> layer.Extracted:
        table = SideTable()
        fd = os.open(self.places.path(number), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            extracted = layer.extract(
                source.open(),
                fd,
                Owners(self.real_owners, table),
                parents=below,
                opaque_xattr=self._opaque_xattr,
                hashed=source.diff_id is not None,
                lent=lent,
            )
        finally:
            os.close(fd)
        if source.diff_id is not None and extracted.diff_id != source.diff_id:
            raise InvalidParameter(
                f"the layer has the diff id {extracted.diff_id}, not {source.diff_id}"
            )
        if source.verify is not None:
            source.verify()
        table.save(self.places.table_path(number))
        return extracted

    def _keep(self, made: Sequence[Layer]) -> None:
        self._records.keep(made)
        with self._lock:
            self._layers.update((one.chain, one) for one in made)
            self.places.settle(one.number for one in made)
