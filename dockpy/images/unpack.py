"""The layers of an image into snapshots: from blobs of the content store, or while those blobs come.

A blob that comes is read once: every piece is hashed, written into the content store and unpacked, so
nobody can change it between the check and the use. Its tree counts, and it gets its name, only when
its digest and size are those that the manifest says. One sync makes all of it durable.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from dockpy.errors import NotFound
from dockpy.images.image import Image
from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import ChainID, DiffID, Digest
from dockpy.storage.compression import CHUNK
from dockpy.storage.content import BlobWriter, ContentStore
from dockpy.storage.snapshot import LayerSource, Read, Snapshotter

Opened = Callable[[], Read]
"""Starts reading a blob that is not in the content store."""


class Arrival(ABC):
    """A blob that comes by itself, to a file of its own: an `Opened` that is not copied."""

    @abstractmethod
    def __call__(self) -> Read: ...

    @abstractmethod
    def verify(self) -> None:
        """Waits until it is there; raises when it is not what it should be."""

    @abstractmethod
    def finish(self) -> None:
        """Gives it its name in the content store."""


def unpack(
    content: ContentStore,
    snapshots: Snapshotter,
    image: Image,
    arriving: Mapping[Digest, Opened] = {},
) -> ChainID | None:
    """Makes the snapshots of all layers that are not there yet, and keeps the arriving blobs of the
    image; answers the topmost chain, None for no layers.
    """
    with ExitStack() as ended:
        coming: dict[Digest, _Coming | Arrival] = {}
        steps: list[tuple[ChainID, LayerSource]] = []
        for layer, chain, diff_id in zip(
            image.manifest.layers, image.chain_ids, image.config.diff_ids
        ):
            opened = arriving.get(layer.digest)
            if opened is None or content.has(layer.digest):
                steps.append((chain, stored(content, layer, diff_id)))
            elif layer.digest in coming:
                # The same layer once more: read again, so verified again.
                steps.append((chain, LayerSource(opened, diff_id)))
            elif isinstance(opened, Arrival):
                coming[layer.digest] = opened
                # Hashed in any case: what was read may have been replaced before it was verified.
                steps.append((chain, LayerSource(opened, diff_id, opened.verify)))
            else:
                one = _Coming(layer, ended.enter_context(content.writer()), opened)
                coming[layer.digest] = one
                steps.append((chain, one.source(diff_id)))
        if steps and not snapshots.has(steps[-1][0]):
            snapshots.unpack_stack(None, steps)
        for blob in coming.values():
            blob.finish()
    return image.chain_ids[-1] if image.chain_ids else None


class _Coming:
    """One arriving blob: read by the extractor, or by nobody when its tree is there already."""

    def __init__(self, layer: Descriptor, writer: BlobWriter, opened: Callable[[], Read]) -> None:
        self._layer = layer
        self._writer = writer
        self._open = opened
        self._read: Read | None = None

    def source(self, diff_id: DiffID) -> LayerSource:
        # A plain tar's diff id is its digest: verified as such, and not hashed twice.
        known = str(diff_id) == str(self._layer.digest)
        return LayerSource(self._begin, None if known else diff_id, self._verify)

    def _begin(self) -> Read:
        self._read = self._writer.copying(self._open())
        return self._read

    def _verify(self) -> None:
        read = self._read or self._begin()
        while read(CHUNK):  # what follows the archive's end belongs to the blob
            pass
        self._writer.check(self._layer.digest, self._layer.size)

    def finish(self) -> None:
        if self._read is None:
            self._verify()
        self._writer.commit(self._layer.digest, self._layer.size)


def stored(content: ContentStore, layer: Descriptor, diff_id: DiffID) -> LayerSource:
    def opened() -> Read:
        try:
            return _reading(content.open(layer.digest))
        except NotFound:
            raise NotFound(
                f"of layer {layer.digest} neither the blob nor the tree is in the store: pull the image again"
            ) from None

    # A plain tar's diff id is its digest, which was checked when the blob came in, if that was here.
    known = str(diff_id) == str(layer.digest) and not content.is_lent(layer.digest)
    return LayerSource(opened, None if known else diff_id)


def _reading(fd: int) -> Read:
    """Reads a blob to its end and closes it there."""
    open_fd = [fd]

    def read(size: int) -> bytes:
        if not open_fd:
            return b""
        chunk = os.read(fd, size)
        if not chunk:
            os.close(open_fd.pop())
        return chunk

    return read
