"""The images of an OCI image layout as repositories, read-only: dockpy's own store, beside what was pushed.

A store's daemon writes `index.json` (a whole new file each time) and may remove blobs: the index is read again when
it has changed, and a blob that is gone is unknown. An image called `docker.io/library/debian:12` is
served as `debian:12`; a registry's port in a name is left out with the registry.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable, TypeVar

from dockpy import files
from dockpy.errors import DockpyError
from dockpy.oci.descriptor import ANNOTATION_IMAGE_NAME, Descriptor
from dockpy.oci.digest import Digest, digest_of, hasher
from dockpy.oci.fields import parse
from dockpy.oci.manifest import index_from_json
from dockpy.oci.reference import Reference, check_path, parse_reference
from dockpy.registry.manifests import LIMIT, Record, check
from dockpy.registry.refusals import Refusal
from dockpy.registry.sources import Disk, OpenBlob, Source
from dockpy.storage import layout

log = logging.getLogger(__name__)

T = TypeVar("T")

INDEX_LIMIT = 64 << 20


@dataclass
class _Shelf:
    """One name of the index."""

    tags: dict[str, Digest] = field(default_factory=dict)
    manifests: dict[Digest, Record] = field(default_factory=dict)

    def has(self, blob: Digest) -> bool:
        return any(blob in record.blobs for record in self.manifests.values())


class Layout:
    def __init__(self, root: str, disk: Disk) -> None:
        self._root = root
        self._disk = disk
        self._read: tuple[object, Mapping[str, _Shelf]] = (None, {})

    async def names(self) -> list[str]:
        return sorted(await self._disk.run(self._shelves))

    async def tags(self, name: str) -> list[str]:
        return sorted((await self._shelf(name)).tags, key=str.lower)

    async def resolve(self, name: str, tag: str, value: Digest | None) -> tuple[Digest, Record]:
        shelf = await self._shelf(name)
        found = shelf.tags.get(tag) if value is None else value
        record = shelf.manifests.get(found) if found is not None else None
        if found is None or record is None:
            raise Refusal("MANIFEST_UNKNOWN", f"{name} has no manifest {value or tag}")
        return found, record

    async def manifest(self, name: str, value: Digest) -> bytes:
        await self.resolve(name, "", value)
        return await self._disk.run(self._manifest, value)

    async def blob_size(self, name: str, blob: Digest) -> int:
        opened = await self.open_blob(name, blob)
        opened.close()
        return opened.size

    async def open_blob(self, name: str, blob: Digest) -> OpenBlob:
        shelf = await self._shelf(name)
        try:
            if not shelf.has(blob):
                raise FileNotFoundError
            fd = await self._disk.run(os.open, self._path(blob), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Refusal("BLOB_UNKNOWN", f"blob {blob} is not in this repository") from None
        return OpenBlob(fd, os.fstat(fd).st_size)

    async def referrers(self, name: str, subject: Digest) -> Sequence[tuple[Digest, Record]]:
        shelf = (await self._disk.run(self._shelves)).get(name, _Shelf())
        found = [item for item in shelf.manifests.items() if item[1].subject == subject]
        return sorted(found, key=lambda item: item[0])

    # ---------------------------------------------------------------------------- the files

    def _path(self, blob: Digest) -> str:
        return layout.place(self._root, blob)

    async def _shelf(self, name: str) -> _Shelf:
        found = (await self._disk.run(self._shelves)).get(name)
        if found is None:
            raise Refusal("NAME_UNKNOWN", f"repository {name} is not known here")
        return found

    def _shelves(self) -> Mapping[str, _Shelf]:
        path = f"{self._root}/index.json"
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return {}  # no image yet
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._read[0] != signature:
            try:
                index = index_from_json(parse(files.read_bytes(path, INDEX_LIMIT), "index.json"))
            except (DockpyError, ValueError) as error:
                log.error("%s: %s", path, error)
                return {}
            self._read = (signature, self._sorted(index.manifests))
        return self._read[1]

    def _sorted(self, entries: Sequence[Descriptor]) -> Mapping[str, _Shelf]:
        shelves: dict[str, _Shelf] = {}
        lacking = 0
        for entry in entries:
            try:
                reference = parse_reference(entry.annotations.get(ANNOTATION_IMAGE_NAME, ""))
                name = check_path(_name(reference))
                record = check(self._manifest(entry.digest), entry.media_type).record
            except (DockpyError, Refusal):
                continue  # nameless, or not whole: nothing that could be pulled
            if all(os.path.exists(self._path(blob)) for blob in record.blobs):
                shelf = shelves.setdefault(name, _Shelf())
                shelf.manifests[entry.digest] = record
                if reference.tag:
                    shelf.tags[reference.tag] = entry.digest
            else:
                lacking += 1
        if lacking:
            log.warning(
                "%d images of %s are not served: their archives were dropped (keep-blobs, system limit)",
                lacking,
                self._root,
            )
        return shelves

    def _manifest(self, value: Digest) -> bytes:
        state = hasher(value)
        try:
            data = files.read_bytes(self._path(value), LIMIT)
        except (FileNotFoundError, ValueError):
            data = b""
        state.update(data)
        if digest_of(state) != value:
            raise Refusal("MANIFEST_UNKNOWN", f"manifest {value} is not in the store")
        return data


def _name(reference: Reference) -> str:
    return reference.path if ":" in reference.domain else reference.familiar_name


class Beside:
    """Two sources as one: what the first has not, the second may have."""

    def __init__(self, first: Source, second: Source) -> None:
        self._first = first
        self._second = second

    async def _either(self, ask: Callable[[Source], Awaitable[T]]) -> T:
        try:
            return await ask(self._first)
        except Refusal as unknown:
            if unknown.status != 404:
                raise
            refused = unknown
        try:
            return await ask(self._second)
        except Refusal as unknown:
            # Whichever has the repository says what is wrong.
            raise refused if unknown.code == "NAME_UNKNOWN" else unknown from None

    async def names(self) -> list[str]:
        return sorted({*await self._first.names(), *await self._second.names()})

    async def tags(self, name: str) -> list[str]:
        found: set[str] = set()
        refused: list[Refusal] = []
        for source in (self._first, self._second):
            try:
                found.update(await source.tags(name))
            except Refusal as unknown:
                refused.append(unknown)
        if len(refused) == 2:
            raise refused[0]
        return sorted(found, key=lambda tag: (tag.lower(), tag))

    async def resolve(self, name: str, tag: str, value: Digest | None) -> tuple[Digest, Record]:
        return await self._either(lambda source: source.resolve(name, tag, value))

    async def manifest(self, name: str, value: Digest) -> bytes:
        return await self._either(lambda source: source.manifest(name, value))

    async def blob_size(self, name: str, blob: Digest) -> int:
        return await self._either(lambda source: source.blob_size(name, blob))

    async def open_blob(self, name: str, blob: Digest) -> OpenBlob:
        return await self._either(lambda source: source.open_blob(name, blob))

    async def referrers(self, name: str, subject: Digest) -> Sequence[tuple[Digest, Record]]:
        found = dict(await self._second.referrers(name, subject))
        found.update(await self._first.referrers(name, subject))
        return sorted(found.items(), key=lambda item: item[0])
