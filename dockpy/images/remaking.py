"""Layers without their blobs: dropped where the trees make them again (`storage.keep-blobs`, `system limit`), and made again.

A blob is dropped only after its archive was made from each tree that it stands for, once (storage.recipes);
its manifest, with digest and size, stays. Made again, a plain layer is the same to the last bit. Of a compressed
one that is true of the archive inside; as gzip of ours it has another digest than the registry's, but where we had
compressed it. Then what is saved or pushed is an image with the same id and diff ids, and a manifest of its own:
as docker does it, which never keeps compressed layers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from dockpy.errors import DockpyError, NotFound
from dockpy.images.image import Image
from dockpy.images.store import ImageStore, LayerUse
from dockpy.oci.descriptor import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
)
from dockpy.oci.digest import ChainID, DiffID, Digest
from dockpy.storage.compression import CHUNK, decompressed
from dockpy.storage.gzipping import compressed
from dockpy.storage.snapshot import Read

log = logging.getLogger(__name__)

COMPRESSED = {OCI_LAYER: OCI_LAYER_GZIP, DOCKER_LAYER: DOCKER_LAYER_GZIP}
_AS_GZIP = {**COMPRESSED, OCI_LAYER_ZSTD: OCI_LAYER_GZIP, DOCKER_LAYER_ZSTD: DOCKER_LAYER_GZIP}
SMALLEST = 4096  # bytes: a recipe takes a block of the disk, too


@contextmanager
def reading(store: ImageStore, use: LayerUse) -> Iterator[Read]:
    """A layer's blob, or the plain archive where that was dropped."""
    layer, chain, diff_id = use
    if store.content.has(layer.digest):
        fd = store.content.open(layer.digest)
        try:
            yield lambda size: os.read(fd, size)
        finally:
            os.close(fd)
    else:
        yield store.recipes.open(diff_id, store.snapshots.chain_tree(chain))


def compress(
    store: ImageStore, use: LayerUse, sent: Callable[[int], None], over: Callable[[], bool]
) -> Descriptor:
    """A layer as gzip, in the content store. Blocks; ends early, with nothing kept, once it is `over`."""
    layer = use[0]
    with reading(store, use) as read, store.content.writer() as writer:
        for chunk in compressed(_counted(decompressed(read), sent, over)):
            writer.write(chunk)
        if over():
            return layer
        blob, size = writer.commit()
    if blob == layer.digest:
        return layer
    kind = _AS_GZIP.get(layer.media_type, layer.media_type)
    # What is annotated on a compressed layer tells of those very bytes.
    annotations = layer.annotations if layer.media_type in COMPRESSED else {}
    return Descriptor(kind, blob, size, annotations)


def make_again(
    store: ImageStore, use: LayerUse, sent: Callable[[int], None], over: Callable[[], bool]
) -> Descriptor:
    """A layer whose blob was dropped, in the content store again; its descriptor now. As `compress`."""
    layer, _, diff_id = use
    store.index.written += 1  # who drops blobs, or counts them, looks again
    if str(layer.digest) != str(diff_id):
        return compress(
            store, use, lambda count: None, over
        )  # counted are blob's bytes, and these are plain
    with reading(store, use) as read, store.content.writer() as writer:
        counted = _counted(read, sent, over)
        while chunk := counted(CHUNK):
            writer.write(chunk)
        if not over():
            writer.commit(layer.digest, layer.size)
    return layer


def _counted(read: Read, sent: Callable[[int], None], over: Callable[[], bool]) -> Read:
    count = 0

    def counted(size: int) -> bytes:
        nonlocal count
        data = b"" if over() else read(size)
        count += len(data)
        sent(count)
        return data

    return counted


def whole(store: ImageStore, image: Image) -> Image:
    """`image` with all its blobs in the content store; where they are others, under a manifest of its own.

    To be called within `store.writing()`, at whose end what no image of the store has goes again.
    """
    layers = []
    for layer, chain, diff_id in uses_of(image):
        made = layer
        if not store.content.has(layer.digest):
            if not store.snapshots.has(chain):
                store.unpack(image)  # another store's, of which nothing was used here yet
            made = make_again(store, (layer, chain, diff_id), lambda count: None, lambda: False)
        layers.append(made)
    if tuple(layers) == image.manifest.layers:
        return image
    manifest = replace(image.manifest, layers=tuple(layers))
    data = manifest.to_bytes()
    descriptor = replace(image.descriptor, digest=store.content.put(data), size=len(data))
    return replace(image, manifest=manifest, descriptor=descriptor)


def uses_of(image: Image) -> Iterator[LayerUse]:
    return zip(image.manifest.layers, image.chain_ids, image.config.diff_ids)


class Thinning:
    """Drops blobs. Blocks; what is under way ends soon after `stop`, with nothing changed."""

    def __init__(self, store: ImageStore) -> None:
        self.put_off = (
            False  # whether `thin` has to be asked again: somebody was writing or reading
        )
        self._store = store
        self._stay: set[Digest] = set()  # those that their trees do not make again
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def thin(self, image: Image | None = None) -> int:
        """The bytes of the blobs that have gone: of all images, or of one."""
        store, freed = self._store, 0
        wanted = None if image is None else {layer.digest for layer in image.manifest.layers}
        self.put_off = not store.collects()
        if self.put_off:
            return 0
        uses: dict[Digest, set[tuple[ChainID, DiffID]]] = {}
        for layer, chain, diff_id in store.layers():
            if wanted is None or layer.digest in wanted:
                uses.setdefault(layer.digest, set()).add((chain, diff_id))
        for blob, places in uses.items():
            if blob not in self._stay and store.content.has(blob):
                freed += self._drop(blob, places)
        return freed

    def _drop(self, blob: Digest, places: set[tuple[ChainID, DiffID]]) -> int:
        store = self._store
        chains = {chain for chain, _ in places}
        try:
            size = store.content.size(blob)
            if store.content.is_lent(blob) or not all(map(store.snapshots.owns, chains)):
                return 0
            if size <= SMALLEST or not all(self._makes(blob, *place) for place in places):
                self._stay.add(blob)
                return 0
            gone = store.let_go(blob, chains)
            self.put_off = self.put_off or not gone
            return size if gone else 0
        except (NotFound, _Stopped):  # removed meanwhile
            return 0
        except (DockpyError, OSError) as error:
            log.error("the blob %s is kept: %s", blob, error)
            self._stay.add(blob)
            return 0

    def _makes(self, blob: Digest, chain: ChainID, diff_id: DiffID) -> bool:
        """Whether the tree of `chain` makes the archive in `blob`; how, is kept."""
        store = self._store
        tree = store.snapshots.chain_tree(chain)
        if store.recipes.has_own(diff_id):
            made = self._watched(store.recipes.open(diff_id, tree))
            while made(CHUNK):
                pass
            return True
        fd = store.content.open(blob)
        try:
            plain = decompressed(self._watched(lambda size: os.read(fd, size)))
            return store.recipes.write(diff_id, plain, tree.path)
        finally:
            os.close(fd)

    def _watched(self, read: Read) -> Read:
        def watched(size: int) -> bytes:
            if self._stopped:
                raise _Stopped
            return read(size)

        return watched


class _Stopped(Exception):
    """The daemon ends."""
