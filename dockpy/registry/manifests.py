"""What a registry server must know of a manifest before it keeps it. Pure: bytes in, a value out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dockpy.errors import InvalidParameter
from dockpy.oci.descriptor import INDEXES, MANIFESTS, Descriptor
from dockpy.oci.digest import Digest, digest
from dockpy.oci.fields import Fields, parse, without_empty
from dockpy.oci.manifest import Index, Manifest, manifest_or_index
from dockpy.registry.refusals import Refusal

LIMIT = 4 << 20  # distribution-spec: a registry should take manifests up to this size


@dataclass(frozen=True)
class Record:
    """A manifest of a repository: what is told of it without reading it again."""

    media_type: str
    size: int
    blobs: tuple[Digest, ...] = ()  # config and layers
    manifests: tuple[Digest, ...] = ()  # an index's
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, object]:
        return without_empty(
            (
                ("blobs", list(self.blobs)),
                ("manifests", list(self.manifests)),
                ("subject", self.subject),
                ("artifactType", self.artifact_type),
                ("annotations", dict(self.annotations)),
            )
        ) | {"mediaType": self.media_type, "size": self.size}

    def referrer(self, name: Digest) -> dict[str, object]:
        """Its entry in the referrers of its subject."""
        return without_empty(
            (
                ("artifactType", self.artifact_type),
                ("annotations", dict(self.annotations)),
            )
        ) | {"mediaType": self.media_type, "size": self.size, "digest": name}


def record_from_json(raw: object) -> Record:
    fields = Fields(raw, "record")
    subject = fields.text("subject", "")
    return Record(
        fields.text("mediaType"),
        fields.integer("size"),
        tuple(digest(text) for text in fields.texts("blobs") or ()),
        tuple(digest(text) for text in fields.texts("manifests") or ()),
        digest(subject) if subject else None,
        fields.text("artifactType", ""),
        fields.mapping("annotations"),
    )


@dataclass(frozen=True)
class Checked:
    """A manifest in form, and the descriptors of what has to be there for it."""

    record: Record
    needs: tuple[tuple[str, Descriptor], ...]  # ("blobs" or "manifests", …)


def check(data: bytes, content_type: str) -> Checked:
    """Refusal MANIFEST_INVALID where `data` is no manifest, or not the one that `content_type` says."""
    kind = content_type.partition(";")[0].strip()
    try:
        said = Fields(parse(data, "manifest"), "manifest").text("mediaType", "")
        if said and kind and said != kind and kind not in ("application/json", "text/plain"):
            raise InvalidParameter(
                f"mediaType {said!r:.100} differs from the Content-Type {kind!r:.100}"
            )
        parsed = manifest_or_index(data, kind)
    except InvalidParameter as error:
        raise Refusal("MANIFEST_INVALID", str(error)) from None
    media_type = said or (kind if kind in INDEXES | MANIFESTS else parsed.media_type)
    if (media_type in INDEXES) != isinstance(parsed, Index):
        raise Refusal("MANIFEST_INVALID", f"the document is no {media_type}")
    needs = _needs(parsed)
    return Checked(
        Record(
            media_type,
            len(data),
            tuple(dict.fromkeys(d.digest for where, d in needs if where == "blobs")),
            tuple(dict.fromkeys(d.digest for where, d in needs if where == "manifests")),
            parsed.subject.digest if parsed.subject else None,
            # distribution-spec, "Listing referrers": the config's type stands for an absent one.
            parsed.artifact_type
            or (parsed.config.media_type if isinstance(parsed, Manifest) else ""),
            parsed.annotations,
        ),
        needs,
    )


def _needs(parsed: Manifest | Index) -> tuple[tuple[str, Descriptor], ...]:
    if isinstance(parsed, Index):
        return tuple(
            ("manifests" if entry.media_type in INDEXES | MANIFESTS else "blobs", entry)
            for entry in parsed.manifests
        )
    # Foreign layers stay where their urls say: registries do not hold them.
    layers = (layer for layer in parsed.layers if not layer.urls)
    return tuple(("blobs", entry) for entry in (parsed.config, *layers))
