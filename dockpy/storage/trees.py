"""Layers and active trees on disk, by number: what all snapshotters share (the layout is in the room's docstring).

A chain's record is a small file, written when its tree is durable (one syncfs(2) a layer: 0.1 s for
117 MB here; a sync a file would be 6,700 of them). An active tree's record is a symbolic link, `active/<key>`
to "<number>.<parent's number>": made in one call, never half there, journaled as metadata even where file
data are not, so `create` needs no sync of ours to find its tree again.

How an active tree is made and mounted is each driver's. One daemon a store: records are read once and
kept in memory; a lock guards them, and one more each chain that is being unpacked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dockpy import files
from dockpy.damaged import Shelf, load_object
from dockpy.errors import Conflict, InvalidParameter, NotFound, Unavailable, sentence
from dockpy.linux.disk import spread_folders, syncfs
from dockpy.oci.digest import ChainID, hex_of
from dockpy.oci.spec import Mount
from dockpy.storage import diff, layer, remove
from dockpy.storage.diff import Change
from dockpy.storage.lender import Layer, Lender, layer_from_json
from dockpy.storage.owners import OVERRIDE, Owners, SideTable, load_table
from dockpy.storage.snapshot import LayerSource, Send, Usage, Write
from dockpy.storage.tree import write_tar
from dockpy.storage.view import Tree

log = logging.getLogger(__name__)

USER_OPAQUE = "user.overlay.opaque"
TRUSTED_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True)
class Active:
    """A container's tree; `parent` is its layer's number, 0 for none."""

    key: str
    number: int
    parent: int


def active_from_link(key: str, target: str) -> Active:
    number, dot, parent = target.partition(".")
    if not (dot and number.isdecimal() and parent.isdecimal() and number != "0"):
        raise InvalidParameter(f"it leads to {target!r:.80}")
    return Active(key, int(number), int(parent))


class LayeredSnapshotter(ABC):
    """The contract (see snapshot.py) but for making, mounting and measuring active trees."""

    name = ""

    def __init__(
        self, root: str, *, real_owners: bool, opaque_xattr: str = USER_OPAQUE, damaged: str = ""
    ) -> None:
        self.root = root
        self._shelf = Shelf(damaged or f"{root}/damaged")
        self._lost_records = False  # some were damaged: nobody knows whose the other trees are
        self.real_owners = real_owners
        self._opaque_xattr = opaque_xattr
        self._lock = threading.Lock()
        self._unpacking: dict[ChainID, threading.Lock] = {}
        # n/0 stays empty: the lower directory of a container without layers.
        for folder in ("n/0", "o", "chains", "active"):
            os.makedirs(f"{root}/{folder}", mode=0o755, exist_ok=True)
        os.chmod(root, 0o700)
        # ext4 passes over each inode freed in the last minutes, again for each new file: beside a tree
        # that was just removed, one of 6,700 files takes 4 s; in a part of the disk of its own, 0.3 s.
        fd = os.open(f"{root}/n", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            spread_folders(fd)
        finally:
            os.close(fd)
        self._form = f"{opaque_xattr} {'real' if real_owners else 'remembered'} owners\n"
        form = self._form.encode()
        if not os.path.exists(f"{root}/form") or files.read_bytes(f"{root}/form") != form:
            # Not at each start: a daemon whose disk is full must come up, if only to make room.
            files.write_atomic(f"{root}/form", form, durable=False)
        self._layers: dict[ChainID, Layer] = {}
        self._active: dict[str, Active] = {}
        # Trees without a record yet, or no more: being made or removed.
        self._busy: set[int] = set()
        self._read_records()
        self._others: tuple[Lender, ...] = ()
        self._lenders: tuple[Lender, ...] = ()  # those of them whose trees serve here
        self._elsewhere: dict[int, str] = {}
        numbers = [int(name) for name in os.listdir(f"{root}/n") if name.isdigit()]
        for number in numbers:
            with contextlib.suppress(OSError):  # EINVAL: a tree of our own
                self._elsewhere[number] = os.readlink(self._place(number))
        self._next = max(numbers, default=0) + 1

    def _read_records(self) -> None:
        for name in os.listdir(f"{self.root}/chains"):
            if name.endswith(".tmp"):
                continue
            try:
                one = layer_from_json(load_object(f"{self.root}/chains/{name}"), name)
            except InvalidParameter as error:
                self._set_aside(f"chains/{name}", f"chain-{name}", str(error))
                continue
            self._layers[one.chain] = one
        for key in os.listdir(f"{self.root}/active"):
            if key.endswith(".tmp"):
                os.unlink(f"{self.root}/active/{key}")
                continue
            try:
                self._active[key] = active_from_link(key, _link(f"{self.root}/active/{key}"))
            except InvalidParameter as error:
                self._set_aside(f"active/{key}", f"active-{key}", str(error))

    def _set_aside(self, path: str, name: str, reason: str) -> None:
        self._lost_records = True
        self._shelf.set_aside(f"{self.root}/{path}", name, reason)

    def _number(self) -> int:
        with self._lock:
            number = self._next
            self._next += 1
            self._busy.add(number)
        return number

    def _place(self, number: int) -> str:
        """What has this number: a tree, or a link to another store's."""
        return f"{self.root}/n/{number}"

    def tree(self, number: int) -> str:
        return self._elsewhere.get(number) or self._place(number)

    def table_path(self, number: int) -> str:
        return f"{self.root}/o/{number}"

    # Committed trees

    def borrow(self, roots: Sequence[str]) -> None:
        """From now on layers that other stores (`roots`: their snapshot folders) have unpacked serve
        here, too, where they are made as ours are.
        """
        self._others = tuple(Lender(root) for root in roots)
        self._lenders = tuple(one for one in self._others if one.lends_to(self.root, self._form))

    def has(self, chain: ChainID) -> bool:
        one = self._layers.get(chain)
        while one is not None and one.parent is not None and not one.opaque:
            one = self._layers.get(one.parent)
        return one is not None

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
        # Turns are taken from the bottom up by everybody, and kept until all is durable.
        with contextlib.ExitStack() as turns:
            try:
                for chain, source in layers:
                    turns.enter_context(self._turn(chain))
                    one = self._layers.get(chain)
                    if one is None:
                        one = self._borrow(chain) or self._unpack(chain, parent, source, stack)
                        made.append(one)
                    stack = (one,) if one.opaque else (one, *stack)
                    parent = chain
                if made:
                    self._keep(made)
            except BaseException:
                for one in made:
                    self._discard(one.number)
                raise

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

    def _borrow(self, chain: ChainID) -> Layer | None:
        """A lender's layer as one of ours: its place is a link to their tree."""
        for lender in self._lenders:
            found = lender.layer(chain)
            if found is not None:
                number = self._number()
                os.symlink(lender.tree(found), self._place(number))
                os.symlink(lender.table(found), self.table_path(number))
                self._elsewhere[number] = lender.tree(found)
                return replace(found, number=number)
        return None

    def _unpack(
        self, chain: ChainID, parent: ChainID | None, source: LayerSource, stack: tuple[Layer, ...]
    ) -> Layer:
        below = tuple(self.tree(one.number) for one in stack)
        number = self._number()
        try:
            os.mkdir(self.tree(number), 0o755)
            extracted = self._extract(number, source, below)
        except OSError as error:
            self._discard(number)
            raise layer.told(error, b"layer") from error
        except BaseException:
            self._discard(number)
            raise
        usage = Usage(extracted.size, extracted.inodes)
        return Layer(chain, parent, number, usage, extracted.opaque)

    def _extract(self, number: int, source: LayerSource, below: tuple[str, ...]) -> layer.Extracted:
        table = SideTable()
        fd = os.open(self.tree(number), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            extracted = layer.extract(
                source.open(),
                fd,
                Owners(self.real_owners, table),
                parents=below,
                opaque_xattr=self._opaque_xattr,
                hashed=source.diff_id is not None,
            )
        finally:
            os.close(fd)
        if source.diff_id is not None and extracted.diff_id != source.diff_id:
            raise InvalidParameter(
                f"the layer has the diff id {extracted.diff_id}, not {source.diff_id}"
            )
        if source.verify is not None:
            source.verify()
        table.save(self.table_path(number))
        return extracted

    def _keep(self, made: Sequence[Layer]) -> None:
        """Makes trees and their records durable. A record must never name a tree that a power cut has
        emptied, so it gets its name after the one sync, which the new records are part of."""
        written: list[tuple[str, str]] = []
        named = 0
        try:
            for one in made:
                path = f"{self.root}/chains/{hex_of(one.chain)}"
                written.append((files.write_temporary(path, one.to_bytes(), durable=False), path))
            fd = os.open(f"{self.root}/chains", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
        with self._lock:
            for one in made:
                self._layers[one.chain] = one
                self._busy.discard(one.number)

    def _discard(self, number: int) -> None:
        remove.remove_path(self._place(number))  # of a borrowed tree only the link
        self._elsewhere.pop(number, None)
        files.unlink_if_exists(self.table_path(number))
        with self._lock:
            self._busy.discard(number)

    def drop(self, chain: ChainID) -> None:
        with self._lock:
            one = self._layers.get(chain)
            if one is None:
                return
            if any(other.parent == chain for other in self._layers.values()):
                raise Conflict(f"layer {chain} has layers on top of it")
            if any(active.parent == one.number for active in self._active.values()):
                raise Conflict(f"layer {chain} is used by a container")
            files.unlink_if_exists(f"{self.root}/chains/{hex_of(chain)}")
            del self._layers[chain]
            self._busy.add(one.number)
        self._discard(one.number)

    def remake(self, chain: ChainID, source: LayerSource) -> None:
        with self._turn(chain):
            old = self._layer(chain)
            made = self._unpack(chain, old.parent, source, self._stack(old.parent))
            try:
                self._keep([made])
            except BaseException:
                self._discard(made.number)
                raise
            for active in tuple(self._active.values()):
                if active.parent == old.number:
                    self.rebase(active.key, chain)
            self._set_tree_aside(old.number, "its layer was unpacked again")

    def _set_tree_aside(self, number: int, reason: str) -> None:
        for path, kind in ((self._place(number), "tree"), (self.table_path(number), "table")):
            if os.path.lexists(path):
                self._shelf.set_aside(path, f"{kind}-{number}", reason)
        self._elsewhere.pop(number, None)

    def chain_tree(self, chain: ChainID) -> Tree:
        number = self._layer(chain).number
        return Tree(self.tree(number), load_table(self.table_path(number)))

    def owns(self, chain: ChainID) -> bool:
        one = self._layers.get(chain)
        return one is not None and one.number not in self._elsewhere

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

    def set_table_aside(self, key: str) -> None:
        number = self._of_key(key).number
        self._shelf.set_aside(self.table_path(number), f"table-{number}", "it cannot be read")

    def unknown(self) -> tuple[str, ...]:
        # Before and after: one that comes or goes meanwhile is known at one of the two.
        known = self._known_numbers()
        there = {int(name) for name in os.listdir(f"{self.root}/n") if name.isdecimal()}
        known |= self._known_numbers()
        return tuple(self._place(number) for number in sorted(there - known))

    def _known_numbers(self) -> set[int]:
        with self._lock:
            known = {one.number for one in self._layers.values()} | self._busy | {0}
            return known | {active.number for active in self._active.values()}

    def discard_unknown(self, tree: str) -> None:
        if tree in self.unknown():
            number = int(os.path.basename(tree))
            self._unmake(Active("", number, 0))
            self._discard(number)

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
        path = f"{self.root}/active/{key}"
        temporary = f"{path}.tmp"
        files.unlink_if_exists(temporary)
        os.symlink(f"{after.number}.{after.parent}", temporary)
        os.rename(temporary, path)
        with self._lock:
            self._active[key] = after

    def prepare(self, key: str, parent: ChainID | None) -> None:
        if not key or "/" in key or key.startswith("."):
            raise InvalidParameter(f"{key!r:.80} cannot name a snapshot")
        top = None if parent is None else self._layer(parent)
        stack = self._stack(parent)
        number = self._number()
        active = Active(key, number, top.number if top else 0)
        with self._lock:
            if key in self._active:
                raise Conflict(f"container {key:.12} has a snapshot already")
            # Named in memory first: a drop of the parent must see it.
            self._active[key] = active
        try:
            os.mkdir(self.tree(number), 0o755)
            self._make(active, stack)
            os.symlink(f"{number}.{active.parent}", f"{self.root}/active/{key}")
            self._busy.discard(number)
        except BaseException as error:
            with self._lock:
                del self._active[key]
            self._discard(number)
            if isinstance(error, OSError):
                text = f"the container's file system cannot be made: {sentence(error)}"
                raise Unavailable(text) from error
            raise

    def remove(self, key: str) -> None:
        active = self._of_key(key)
        # First: without a record, what is left of the tree is removed at the next start.
        files.unlink_if_exists(f"{self.root}/active/{key}")
        with self._lock:
            del self._active[key]
            self._busy.add(active.number)
        self._unmake(active)
        self._discard(active.number)

    def layers(self, key: str) -> tuple[str, ...]:
        stack = self._stack(self.parent_of(key))
        return tuple(self.tree(each.number) for each in stack)

    def trees(self, key: str) -> tuple[Tree, ...]:
        return (self._upper_tree(key), *self._lower_trees(key))

    def _upper_tree(self, key: str) -> Tree:
        number = self._of_key(key).number
        return Tree(self.upper(key), load_table(self.table_path(number)))

    def _lower_trees(self, key: str) -> tuple[Tree, ...]:
        stack = self._stack(self.parent_of(key))
        return tuple(
            Tree(self.tree(each.number), load_table(self.table_path(each.number))) for each in stack
        )

    def changes(self, key: str) -> Iterator[Change]:
        return diff.changes(self._upper_tree(key), self._lower_trees(key), self._opaque_xattr)

    def write_tree(self, key: str, write: Write, send: Send | None = None) -> None:
        write_tar(write, self.trees(key), self._opaque_xattr, send=send)

    def write_layer(self, key: str, write: Write) -> None:
        upper = self._upper_tree(key)
        parts = diff.layer_parts(upper, self._lower_trees(key), self._opaque_xattr)
        write_tar(write, (upper,), self._opaque_xattr, diff=True, only=parts)

    def usage(self, key: str) -> Usage:
        return measured(self.upper(key))

    def upper(self, key: str) -> str:
        return f"{self.tree(self._of_key(key).number)}/u"

    @abstractmethod
    def mounts(self, key: str) -> tuple[Mount, ...]: ...

    @abstractmethod
    def _make(self, active: Active, stack: tuple[Layer, ...]) -> None:
        """What a driver needs beside the record before `active` can be mounted."""

    @abstractmethod
    def _unmake(self, active: Active) -> None:
        """Ends what keeps an active tree busy."""

    def recover(self) -> None:
        """Removes trees without a record, records without a tree, and files half written."""
        for folder in (self.root, f"{self.root}/chains", f"{self.root}/o"):
            for path in list(files.partial_files(folder)):
                os.unlink(path)
        for name in os.listdir(self.root):
            if name.startswith("try."):  # a trial of a driver that was cut
                remove.remove_path(f"{self.root}/{name}")
        there = {int(name) for name in os.listdir(f"{self.root}/n") if name.isdigit()}
        for one in list(self._layers.values()):
            if one.number not in there:
                log.error("the tree of layer %s is gone: it is made again when needed", one.chain)
                files.unlink_if_exists(f"{self.root}/chains/{hex_of(one.chain)}")
                del self._layers[one.chain]
        for active in list(self._active.values()):
            if active.number not in there:
                log.error("the files of container %.12s are gone", active.key)
                files.unlink_if_exists(f"{self.root}/active/{active.key}")
                del self._active[active.key]
        for one in list(self._layers.values()):
            # A lender's tree that is gone: unpacked again when it is needed, unless it is needed now.
            lost = one.number in self._elsewhere and not os.path.isdir(self.tree(one.number))
            if lost and not any(active.parent == one.number for active in self._active.values()):
                files.unlink_if_exists(f"{self.root}/chains/{hex_of(one.chain)}")
                del self._layers[one.chain]
        used = {one.number for one in self._layers.values()}
        used |= {active.number for active in self._active.values()}
        for number in there - used - {0}:
            if self._lost_records:  # and a running container may stand on it
                self._set_tree_aside(number, "it may be that of a damaged record")
                continue
            self._unmake(Active("", number, 0))
            self._discard(number)
        for name in os.listdir(f"{self.root}/o"):
            if not name.isdigit() or int(name) in used:
                continue
            if self._lost_records:
                self._shelf.set_aside(f"{self.root}/o/{name}", f"table-{name}", "as its tree")
            else:
                files.unlink_if_exists(f"{self.root}/o/{name}")


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        raise InvalidParameter(f"it is no symbolic link: {error.strerror}") from None


def like_folder(source: str, target: str, real_owners: bool) -> None:
    """Gives folder `target` the owner, mode and time of `source`: the merged root shows the top's."""
    state = os.stat(source)
    if real_owners and (state.st_uid or state.st_gid):
        os.chown(target, state.st_uid, state.st_gid)
    with contextlib.suppress(OSError):  # nothing remembered
        os.setxattr(target, OVERRIDE, os.getxattr(source, OVERRIDE))
    os.chmod(target, state.st_mode & 0o7777)
    os.utime(target, ns=(state.st_mtime_ns, state.st_mtime_ns))


def measured(path: str) -> Usage:
    """Bytes and inodes of a tree's own files; hard links count once, holes do not count."""
    size = inodes = 0
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue  # a running container's tree changes under us
        with entries:
            for entry in entries:
                try:
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif state.st_nlink > 1:
                    if (state.st_dev, state.st_ino) in seen:
                        continue
                    seen.add((state.st_dev, state.st_ino))
                inodes += 1
                if not entry.is_dir(follow_symlinks=False):
                    size += min(state.st_size, state.st_blocks * 512)
    return Usage(size, inodes)
