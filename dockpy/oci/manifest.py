"""Image manifests and indexes, the OCI's and docker's schema 2: one pair of values, told apart by media type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dockpy.errors import InvalidParameter
from dockpy.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    descriptor_from_json,
)
from dockpy.oci.fields import Fields, dump, parse, without_empty
from dockpy.oci.platform import Platform


@dataclass(frozen=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
    subject: Descriptor | None = None

    def to_json(self) -> dict[str, object]:
        return without_empty(
            (
                ("mediaType", self.media_type),
                ("artifactType", self.artifact_type),
                ("subject", self.subject.to_json() if self.subject else None),
                ("annotations", dict(self.annotations)),
            )
        ) | {
            "schemaVersion": 2,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }

    def to_bytes(self) -> bytes:
        return dump(self.to_json())


@dataclass(frozen=True)
class Index:
    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
    subject: Descriptor | None = None

    def to_json(self) -> dict[str, object]:
        return without_empty(
            (
                ("mediaType", self.media_type),
                ("artifactType", self.artifact_type),
                ("subject", self.subject.to_json() if self.subject else None),
                ("annotations", dict(self.annotations)),
            )
        ) | {"schemaVersion": 2, "manifests": [manifest.to_json() for manifest in self.manifests]}

    def to_bytes(self) -> bytes:
        return dump(self.to_json())

    def choose(self, wanted: Platform) -> Descriptor | None:
        """The manifest that serves `wanted` best: the least rank, then the first of the list.

        An entry without a platform is taken when nothing better is there; attestations
        (platform unknown/unknown) never are.
        """
        best: tuple[int, int] | None = None
        for position, entry in enumerate(self.manifests):
            if entry.media_type not in MANIFESTS | INDEXES:
                continue
            rank = 1000 if entry.platform is None else entry.platform.rank_for(wanted)
            if rank is not None and (best is None or (rank, position) < best):
                best = (rank, position)
        return None if best is None else self.manifests[best[1]]


_SCHEMA_2 = {
    OCI_CONFIG: DOCKER_CONFIG,
    OCI_LAYER: DOCKER_LAYER,
    OCI_LAYER_GZIP: DOCKER_LAYER_GZIP,
}


def schema_2(manifest: Manifest) -> Manifest | None:
    """The same image for a registry that knows docker's schema 2 alone; None where there is no such thing."""
    descriptors = (manifest.config, *manifest.layers)
    if manifest.media_type != OCI_MANIFEST or manifest.subject or manifest.artifact_type:
        return None
    if not all(one.media_type in _SCHEMA_2 for one in descriptors):
        return None
    config, *layers = (
        Descriptor(_SCHEMA_2[one.media_type], one.digest, one.size) for one in descriptors
    )
    return Manifest(config, tuple(layers), DOCKER_MANIFEST)


def manifest_from_json(raw: object) -> Manifest:
    fields = Fields(raw, "manifest")
    _check_schema(fields, "manifest")
    media_type = fields.text("mediaType", OCI_MANIFEST)
    if media_type not in MANIFESTS:
        raise InvalidParameter(f"manifest: mediaType {media_type!r:.100} is not an image manifest")
    config = fields.optional("config", descriptor_from_json)
    if config is None:
        raise InvalidParameter("manifest: config must be a descriptor")
    return Manifest(
        config,
        fields.each("layers", descriptor_from_json, required=True),
        media_type,
        fields.mapping("annotations"),
        fields.text("artifactType", ""),
        fields.optional("subject", descriptor_from_json),
    )


def index_from_json(raw: object) -> Index:
    fields = Fields(raw, "index")
    _check_schema(fields, "index")
    media_type = fields.text("mediaType", OCI_INDEX)
    if media_type not in INDEXES:
        raise InvalidParameter(f"index: mediaType {media_type!r:.100} is not an image index")
    return Index(
        fields.each("manifests", descriptor_from_json, required=True),
        media_type,
        fields.mapping("annotations"),
        fields.text("artifactType", ""),
        fields.optional("subject", descriptor_from_json),
    )


def manifest_or_index(data: bytes, media_type: str = "") -> Manifest | Index:
    """The document in `data`, told by `media_type` (a descriptor's or Content-Type's), else by what it holds.

    A document that holds both lists, or contradicts the type it was announced by, is refused: two readers
    would see two images (CVE-2021-41190).
    """
    raw = parse(data, "manifest")
    fields = Fields(raw, "manifest")
    has_manifests, has_layers = (
        fields.raw("manifests") is not None,
        fields.raw("layers") is not None,
    )
    if has_manifests and (has_layers or fields.raw("config") is not None):
        raise InvalidParameter(
            "manifest: a document with both manifests and config or layers is ambiguous"
        )
    said = fields.text("mediaType", "")
    if said and media_type in MANIFESTS | INDEXES and said != media_type:
        raise InvalidParameter(
            f"manifest: mediaType {said!r:.100} differs from the announced {media_type!r:.100}"
        )
    kind = said or media_type
    if kind in INDEXES or (kind not in MANIFESTS and has_manifests):
        return index_from_json(raw)
    return manifest_from_json(raw)


def _check_schema(fields: Fields, what: str) -> None:
    version = fields.integer("schemaVersion", 0)
    if version == 1:
        raise InvalidParameter(
            f"{what}: schema version 1 is not supported: push the image again with a newer docker"
        )
    if version != 2:
        raise InvalidParameter(f"{what}: schemaVersion must be 2")
