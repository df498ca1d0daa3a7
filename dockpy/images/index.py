"""The index.json of a store, together with those of the stores it borrows from: one reading, one writing.

Read again when a file has changed; an image is read once, since a manifest never changes. Every method
may be called from any thread; who reads and then writes holds `changing()` meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from dockpy import files
from dockpy.damaged import Shelf, load_bytes
from dockpy.errors import DockpyError, InvalidParameter, Unavailable
from dockpy.images import naming
from dockpy.images.image import Image
from dockpy.images.salvage import salvaged
from dockpy.oci.descriptor import ANNOTATION_IMAGE_NAME, Descriptor
from dockpy.oci.digest import Digest
from dockpy.oci.fields import parse
from dockpy.oci.image import image_config
from dockpy.oci.manifest import Index, Manifest, index_from_json, manifest_or_index
from dockpy.oci.reference import parse_reference
from dockpy.storage.content import ContentStore
from dockpy.storage.snapshot import Snapshotter

log = logging.getLogger(__name__)

READERS = "readers.lock"
"""In the layout: flock(LOCK_SH) of each daemon that uses images of it; nothing is collected then."""


class ImageIndex:
    """The daemon is the only writer; its threads meet at `mutex`, other processes at the lock file."""

    def __init__(self, content: ContentStore, snapshots: Snapshotter, path: str, lock: str) -> None:
        self.mutex = threading.RLock()
        self.written = 0
        """How often something has come: an image, a name, a blob again."""
        self._content = content
        self._snapshots = snapshots
        self._path = path
        self._lock = lock
        self._read: tuple[object, naming.State] = (None, naming.State())
        self._lenders: tuple[str, ...] = ()
        self._held: list[int] = []
        self._manifests: dict[Digest, Image] = {}  # by manifest digest, without names: immutable

    def borrow(self, roots: Sequence[str]) -> None:
        """To be called once: the images of those layouts are seen here, and are not collected there while we
        live.
        """
        for root in roots:
            # A store of somebody else's may have no such file, or not let us read it.
            with suppress(OSError):
                self._held.append(files.shared_lock(f"{root}/{READERS}"))
        self._lenders = tuple(roots)

    def unread(self) -> files.try_locked:
        """Whether no other store reads here, and as long as it lasts none does."""
        return files.try_locked(f"{os.path.dirname(self._path)}/{READERS}")

    def state(self) -> naming.State:
        """Unavailable when our own cannot be read; one of a lender's that cannot is as none."""
        with self.mutex:
            lent = [f"{root}/index.json" for root in self._lenders]
            signature = [_signature(path) for path in (self._path, *lent)]
            if self._read[0] != signature:
                state = naming.State()
                if signature[0] is not None:
                    state = self._parse(files.read_bytes(self._path))
                for root, path in zip(self._lenders, lent):
                    with suppress(OSError, Unavailable):  # theirs is missing, or damaged
                        state = naming.joined(state, self._parse(files.read_bytes(path)), root)
                self._read = (signature, state)
            return self._read[1]

    def _parse(self, data: bytes) -> naming.State:
        try:
            entries = index_from_json(parse(data, "index.json")).manifests
        except InvalidParameter as error:
            raise Unavailable(f"the image index {self._path} is damaged: {error}") from None
        images: dict[Digest, Image] = {}
        names: dict[str, Digest] = {}
        damaged = False
        for entry in entries:
            try:
                image = self.load(entry)
                name = entry.annotations.get(ANNOTATION_IMAGE_NAME)
                reference = parse_reference(name) if name else None
            except DockpyError:
                damaged = True
                continue
            images[image.id] = naming.with_name(images.get(image.id, image), reference, entry)
            if reference:
                names[str(reference)] = image.id
        return naming.State(entries, images, names, damaged)

    def entries(self) -> Sequence[Descriptor]:
        return self.state().entries

    def load(self, entry: Descriptor) -> Image:
        """The image of a manifest, nameless."""
        known = self._manifests.get(entry.digest)
        if known is not None:
            return known
        manifest = manifest_or_index(self._content.read(entry.digest), entry.media_type)
        if not isinstance(manifest, Manifest):
            raise InvalidParameter(f"{entry.digest} is an index, not an image")
        config = image_config(self._content.read(manifest.config.digest))
        bare = Descriptor(entry.media_type, entry.digest, entry.size, platform=config.platform)
        size = 0
        for layer, chain in zip(manifest.layers, config.chain_ids):
            usage = self._snapshots.known_usage(chain)
            size += layer.size if usage is None else usage.size
        image = Image(manifest.config.digest, bare, manifest, config, config.chain_ids, size)
        self._manifests[entry.digest] = image
        return image

    def is_of(self, entry: Descriptor, image: Image) -> bool:
        known = self._manifests.get(entry.digest)  # all readable ones were loaded with the state
        return known is not None and known.id == image.id

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else writes meanwhile."""
        with self.mutex, files.locked(self._lock):
            yield

    def write(self, entries: Sequence[Descriptor]) -> None:
        self.written += 1
        files.write_atomic(self._path, Index(tuple(entries)).to_bytes(), 0o644)

    def renew(self, manifest: Digest) -> None:
        """Its image is made anew with the next change: its layers' sizes are known better now."""
        self._manifests.pop(manifest, None)

    def keep(self, blobs: set[Digest]) -> None:
        """Only these are left: what is remembered of other manifests is forgotten."""
        self._manifests = {k: v for k, v in self._manifests.items() if k in blobs}

    def forget(self, blob: Digest) -> None:
        """What is remembered of a blob that is set aside."""
        with self.mutex:
            self._manifests = {
                known: image
                for known, image in self._manifests.items()
                if blob not in (known, image.manifest.config.digest)
            }
            self._read = (None, self._read[1])

    # Of damage (images.check, and at the start)

    def recover(self, shelf: Shelf) -> None:
        """A damaged file is set aside, and what can be known is put into a new one."""
        data = b""
        try:
            data = load_bytes(self._path)
            index_from_json(parse(data, "index.json"))
        except FileNotFoundError:
            self.write(salvaged(b"", self._content))
        except InvalidParameter as error:
            if shelf.set_aside(self._path, "index.json", str(error)):
                entries = salvaged(data, self._content)
                self.write(entries)
                named = sum(ANNOTATION_IMAGE_NAME in entry.annotations for entry in entries)
                log.warning("%d entries of it are still known, %d with a name", len(entries), named)

    def problem(self) -> str:
        """What is wrong with the file; "" if nothing is."""
        with self.mutex:
            try:
                index_from_json(parse(load_bytes(self._path), "index.json"))
            except FileNotFoundError:
                return "it is missing"
            except InvalidParameter as error:
                return str(error)
        return ""

    def rewrite(self, shelf: Shelf) -> None:
        """From memory, where it was read before."""
        with self.changing():
            entries = self._read[1].entries
            if os.path.lexists(self._path):
                shelf.set_aside(self._path, "index.json", "it could not be read")
            self.write(entries or salvaged(b"", self._content))

    def drop(self, entry: Descriptor, shelf: Shelf) -> None:
        """One of an image that cannot be read; the present file is set aside."""
        with self.changing():
            entries = [one for one in self.entries() if one != entry]
            shelf.set_aside(self._path, "index.json", f"of {entry.digest} nothing is left")
            self._manifests.pop(entry.digest, None)
            self.write(entries)


def _signature(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
