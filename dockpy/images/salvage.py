"""What an image index that cannot be read still tells, and what the blobs beside it tell: values and reading only.

The names are in the index alone, so every entry that is whole is kept; an image whose entry is lost
comes back without a name, by its manifest's blob.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from dockpy.errors import DockpyError
from dockpy.oci.descriptor import Descriptor, descriptor_from_json
from dockpy.oci.manifest import Manifest, manifest_or_index
from dockpy.storage.content import ContentStore

LONGEST = 1 << 20  # bytes of a manifest


def salvaged(data: bytes, content: ContentStore) -> tuple[Descriptor, ...]:
    """Entries for a new index, from the bytes of a damaged one."""
    found = list(_entries(data))
    known = {entry.digest for entry in found}
    return (*found, *(entry for entry in _manifests(content) if entry.digest not in known))


def _entries(data: bytes) -> Iterator[Descriptor]:
    """Every descriptor in the text, wherever the JSON around it ends."""
    text = data.decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict):
        listed = whole.get("manifests")
        yield from _descriptors(listed if isinstance(listed, list) else [])
        return
    # Behind the list's own bracket: the object before it is everything, and cut.
    at = text.find("{", max(text.find("["), 0))
    while at >= 0:
        try:
            raw, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            yield from _descriptors([raw])
        at = text.find("{", at)


def _descriptors(raws: Sequence[object]) -> Iterator[Descriptor]:
    for raw in raws:
        try:
            yield descriptor_from_json(raw)
        except DockpyError:
            continue


def _manifests(content: ContentStore) -> Iterator[Descriptor]:
    for blob in content.digests():
        try:
            if content.size(blob) > LONGEST:
                continue
            data = content.read(blob)
            manifest = manifest_or_index(data)
        except (DockpyError, OSError):
            continue  # a config or a layer
        if isinstance(manifest, Manifest) and content.has(manifest.config.digest):
            yield Descriptor(manifest.media_type, blob, len(data))
