"""The images of a store: resolving, tagging, removing, collecting garbage.

An image's id is its config's digest. Images of other stores (ImageIndex.borrow) are seen and used, never
changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from dockpy import files
from dockpy.damaged import Shelf
from dockpy.errors import Conflict, InvalidParameter, NotFound, Unavailable
from dockpy.images import history, inspect, naming
from dockpy.images.garbage import drop_chains
from dockpy.images.image import Image
from dockpy.images.index import ImageIndex
from dockpy.images.removal import Removal
from dockpy.images.unpack import Opened, unpack
from dockpy.oci.descriptor import ANNOTATION_IMAGE_NAME, Descriptor
from dockpy.oci.digest import ChainID, DiffID, Digest
from dockpy.oci.reference import Reference, parse_reference
from dockpy.storage.content import ContentStore
from dockpy.storage.partial import Partials
from dockpy.storage.recipes import Recipes
from dockpy.storage.snapshot import Snapshotter

InUse = Callable[[str], Sequence[str]]
"""The ids of the containers made from an image id."""

# Named here, since within ImageStore `list` is the method.
Records = list[dict[str, str]]
Names = list[Reference]
Chains = list[ChainID]
Blobs = list[Digest]
DiffIDs = list[DiffID]
LayerUse = tuple[Descriptor, ChainID, DiffID]
"""A layer in an image: its blob, and its tree."""


class ImageStore:
    def __init__(
        self, content: ContentStore, snapshots: Snapshotter, index: str, lock: str
    ) -> None:
        self.content = content
        self.snapshots = snapshots
        self.partials = Partials(content)
        self.recipes = Recipes(content)
        self.index = ImageIndex(content, snapshots, index, lock)
        # Held by whoever makes a builtin image: twenty first runs make one.
        self.making = threading.Lock()
        self._writers = 0

    # Reading

    def resolve(self, text: str) -> Image:
        """The image that `text` means: a name, name:tag, name@digest, an id or the beginning of
        one.
        """
        state = self.index.state()
        if text.startswith("sha256:") and len(text) == 71:
            if text in state.images:
                return state.images[Digest(text)]
            raise NotFound(f"No such image: {text}")
        if len(text) == 64 and naming.is_hex(text):
            if (found := state.images.get(Digest("sha256:" + text))) is not None:
                return found
            raise NotFound(f"No such image: sha256:{text}")
        reference = parse_reference(text).tagged()
        identifier = naming.by_name(state, reference)
        if identifier is None:
            identifier = naming.by_prefix(state, text)
        if identifier is None:
            raise NotFound(f"No such image: {reference.familiar()}")
        return state.images[identifier]

    def list(self) -> tuple[Image, ...]:
        """All images, the newest first."""
        return tuple(
            sorted(
                self.index.state().images.values(),
                key=lambda image: (image.created, image.id),
                reverse=True,
            )
        )

    def annotation(self, name: str, key: str) -> str:
        """What the entry of a full name is annotated with; "" without."""
        for entry in self.index.entries():
            if entry.annotations.get(ANNOTATION_IMAGE_NAME) == name:
                return entry.annotations.get(key, "")
        return ""

    def tags_of(self, name: str) -> Sequence[tuple[Reference, Image]]:
        """The tags of a repository (a full name) and what they mean, sorted."""
        return naming.tags_of(self.index.state(), name)

    def repositories_of(self, blob: Digest, domain: str) -> Sequence[str]:
        """The repositories of a registry that a layer was pulled from, or pushed to."""
        return naming.repositories_of(self.index.state(), blob, domain)

    def has_layer(self, blob: Digest, chain: ChainID, diff_id: DiffID) -> bool:
        """Whether a layer is here: its blob, or the tree that it is made again from."""
        return self.content.has(blob) or (self.recipes.has(diff_id) and self.snapshots.has(chain))

    def layers(self) -> Iterator[LayerUse]:
        """Those of all manifests, lent ones, too."""
        state = self.index.state()
        own = (self.index.load(entry) for entry in state.entries)
        for image in (*own, *state.images.values()):
            yield from zip(image.manifest.layers, image.chain_ids, image.config.diff_ids)

    def inspect(self, image: Image) -> dict[str, object]:
        return inspect.inspect(image, self.snapshots)

    def summary(self, image: Image) -> dict[str, object]:
        return inspect.summary(image)

    def history(self, image: Image) -> Sequence[dict[str, object]]:
        return history.history(image, self.snapshots)

    def unpack(self, image: Image) -> ChainID | None:
        """Makes the snapshots of all layers that are not there yet; answers the topmost, None for
        no layers.
        """
        return unpack(self.content, self.snapshots, image)

    # Changing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While it lasts nothing is collected: blobs and chains may be put that no entry leads to
        yet.

        What none leads to at its end is collected, also after an error.
        """
        with self.index.mutex:
            self._writers += 1
        try:
            yield
        finally:
            with self.index.mutex:
                self._writers -= 1
                self.collect()

    def add(
        self,
        manifest: Descriptor,
        names: Sequence[Reference],
        extra: Mapping[str, str] = {},
        arriving: Mapping[Digest, Opened] = {},
    ) -> Image:
        """Unpacks the image of a manifest in the content store, then gives it `names` (taken from
        whoever has them).

        To be called within `writing()`. With no names the image is dangling. `extra` annotates
        its entries. `arriving`: layers whose blobs are not in the content store yet.
        """
        image = self.index.load(manifest)
        if len(image.manifest.layers) != len(image.chain_ids):
            raise InvalidParameter(
                f"invalid image: {len(image.manifest.layers)} layers,"
                f" but {len(image.chain_ids)} diff ids"
            )
        for layer, chain, diff_id in zip(
            image.manifest.layers, image.chain_ids, image.config.diff_ids
        ):
            if not self.content.has(layer.digest) and (
                layer.digest in arriving or self.has_layer(layer.digest, chain, diff_id)
            ):
                continue  # measured when it comes; of a dropped one the size is remembered
            if self.content.size(layer.digest) != layer.size:
                raise InvalidParameter(
                    f"layer {layer.digest} does not have the {layer.size} bytes it should"
                )
        unpack(self.content, self.snapshots, image, arriving)
        with self.index.changing():
            self.index.renew(manifest.digest)
            entries: Sequence[Descriptor] = self.index.entries()
            for name in names:
                entries = naming.renamed(entries, name, naming.entry_of(manifest, name, extra))
            if not any(entry.digest == manifest.digest for entry in entries):
                entries = [*entries, naming.entry_of(manifest, None, extra)]
            self.index.write(entries)
            return self.index.state().images[image.id]

    def tag(self, text: str, target: str) -> Image:
        reference = parse_reference(target)
        if reference.digest:
            raise InvalidParameter("refusing to create a tag with a digest reference")
        with self.index.changing():
            image = self.resolve(text)
            name = reference.tagged()
            entries = self.index.entries()
            for blob in (image.descriptor.digest, image.id):
                self.content.put(self.content.read(blob))  # a lender may forget the image
            self.index.write(
                naming.renamed(entries, name, naming.entry_of(image.descriptor, name, {}))
            )
            return self.index.state().images[image.id]

    def pushed(self, image: Image, manifest: Descriptor, name: Reference) -> None:
        """`name` (by digest) is where a registry has the image now, by `manifest`, which all its names mean from now on
        (but those by digest): it may be another than before, with the same layers compressed. To be called within `writing()`.
        """
        with self.index.changing():
            old, entries = image.descriptor.digest, self.index.entries()
            if not any(entry.digest in (old, manifest.digest) for entry in entries):
                return  # removed meanwhile, or lent by another store
            moved = naming.moved(entries, old, manifest)
            self.index.write(naming.renamed(moved, name, naming.entry_of(manifest, name, {})))

    def remove(
        self,
        text: str,
        force: bool,
        in_use: InUse,
        *,
        running: Callable[[str], bool] = lambda _: False,
    ) -> Records:
        """Docker's removal: a name first, the image with its last name; what is untagged and
        deleted, in order.

        `running` tells whether a container that `in_use` answered is running; those hold the
        image even by force.
        """
        with self.index.changing():
            lost = self._lost(text)
            if lost is not None:
                self.unname(lost, keep=False)
                self.collect()
                return [{"Untagged": lost.familiar()}]
            image = self.resolve(text)
            self._refuse_lent(image, text)
            return Removal(self, image, text, force, in_use(image.id), running).run()

    def names_of(self, identifier: Digest, *, own: bool = False) -> Names:
        """Tags first, then digests, each group sorted; with `own` not those that only a lender has."""
        state = self.index.state()
        named = [
            parse_reference(name)
            for name, found in state.names.items()
            if found == identifier and not (own and name in state.lent)
        ]
        return sorted(named, key=lambda name: (name.digest is not None, str(name)))

    def unname(self, name: Reference, *, keep: bool = True) -> None:
        """Takes one name away; with `keep` the image stays, dangling after its last."""
        with self.index.mutex:
            self.index.write(naming.renamed(self.index.entries(), name, None, keep=keep))

    def delete(self, image: Image) -> Chains:
        """Forgets the image under all its names, then collects; the chains of its layers that are
        gone.
        """
        with self.index.mutex:
            kept = [entry for entry in self.index.entries() if not self.index.is_of(entry, image)]
            self.index.write(kept)
            gone = set(self.collect())
            return [chain for chain in reversed(image.chain_ids) if chain in gone]

    def collects(self) -> bool:
        """Whether what is forgotten now is collected: not while anybody writes, or another store reads here."""
        with self.index.mutex, self.index.unread() as alone:
            return alone and not self._writers and not self.index.state().damaged

    def collect(self) -> Chains:
        """Removes all blobs and chains that no entry leads to and nobody stands on; the chains
        removed.
        """
        with self.index.mutex, self.index.unread() as alone:
            state = self.index.state()
            if self._writers or state.damaged or not alone:
                return []
            blobs = self._wanted(state)
            chains = {chain for image in state.images.values() for chain in image.chain_ids}
            for blob in tuple(self.content.digests()):
                if blob not in blobs:
                    self.content.remove(blob)
            for diff_id in self._unwanted_recipes(state):
                self.recipes.remove(diff_id)
            self.index.keep(blobs)
            return drop_chains(
                self.snapshots, [chain for chain in self.snapshots.chains() if chain not in chains]
            )

    def let_go(self, blob: Digest, chains: set[ChainID]) -> bool:
        """Removes the blob of a layer that the trees of `chains`, all that it is in, make again; whether it did: not
        where another image has come, or a tree has gone, and not while anybody writes, or reads from another store.
        """
        with self.index.mutex, self.index.unread() as alone:
            if self._writers or not alone or self.index.state().damaged:
                return False
            now = {chain for layer, chain, _ in self.layers() if layer.digest == blob}
            free = now == chains and all(self.snapshots.owns(chain) for chain in chains)
            if free:
                self.content.remove(blob)
            return free

    def recover(self, shelf: Shelf) -> None:
        """To be called once before anything else: removes what an interrupted change has left."""
        for path in (
            *files.partial_files(self.content.root),
            *self.recipes.partial_files(),
        ):
            files.unlink_if_exists(path)
        self.index.recover(shelf)
        self.content.recover()
        self.partials.clean()
        with suppress(Unavailable):
            self.collect()

    def unwanted(self) -> tuple[Blobs, Chains, DiffIDs]:
        """What `collect` would remove."""
        with self.index.mutex, self.index.unread() as alone:
            state = self.index.state()
            if self._writers or state.damaged or not alone:
                return [], [], []
            blobs = self._wanted(state)
            chains = {chain for image in state.images.values() for chain in image.chain_ids}
            chains |= self.snapshots.held()
            return (
                [blob for blob in self.content.digests() if blob not in blobs],
                [chain for chain in self.snapshots.chains() if chain not in chains],
                self._unwanted_recipes(state),
            )

    def _wanted(self, state: naming.State) -> set[Digest]:
        blobs: set[Digest] = set()
        for entry in state.entries:
            manifest = self.index.load(entry).manifest
            blobs.add(entry.digest)
            blobs.add(manifest.config.digest)
            blobs.update(layer.digest for layer in manifest.layers)
        return blobs

    def _unwanted_recipes(self, state: naming.State) -> DiffIDs:
        wanted = {one for image in state.images.values() for one in image.config.diff_ids}
        return [one for one in tuple(self.recipes.diff_ids()) if one not in wanted]

    def _lost(self, text: str) -> Reference | None:
        """The name that `text` is, when its entry is there and its image cannot be read any more."""
        try:
            name = parse_reference(text).tagged()
        except InvalidParameter:
            return None
        state = self.index.state()
        named = {entry.annotations.get(ANNOTATION_IMAGE_NAME) for entry in state.entries}
        return name if str(name) in named and str(name) not in state.names else None

    def _refuse_lent(self, image: Image, text: str) -> None:
        lent = self.index.state().lent
        by_id = naming.is_id_prefix(image.id, text)
        root = lent.get(image.id if by_id else str(parse_reference(text).tagged()))
        if root is not None:
            raise Conflict(f"image {text} is in the read-only store {root}: remove it there")
