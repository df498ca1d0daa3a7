"""Descriptors: what a blob is, its digest and its size (image-spec, descriptor.md), and the media types we know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dockpy.errors import InvalidParameter
from dockpy.oci.digest import Digest, digest
from dockpy.oci.fields import Fields, without_empty
from dockpy.oci.platform import Platform, platform_from_json

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"

INDEXES = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
CONFIGS = frozenset((OCI_CONFIG, DOCKER_CONFIG))
_PLAIN_LAYERS = (OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD)
LAYERS = frozenset(
    (
        *_PLAIN_LAYERS,
        *(kind.replace("layer.v1", "layer.nondistributable.v1") for kind in _PLAIN_LAYERS),
        DOCKER_LAYER,
        DOCKER_LAYER_GZIP,
        DOCKER_LAYER_ZSTD,
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    )
)

ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name"
ANNOTATION_IMAGE_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class Descriptor:
    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        return without_empty(
            (
                ("mediaType", self.media_type),
                ("digest", self.digest),
                ("artifactType", self.artifact_type),
                ("platform", self.platform.to_json() if self.platform else None),
                ("annotations", dict(self.annotations)),
                ("urls", list(self.urls)),
            )
        ) | {"size": self.size}


def descriptor_from_json(raw: object) -> Descriptor:
    fields = Fields(raw, "descriptor")
    size = fields.integer("size")
    if size < 0:
        raise InvalidParameter("descriptor: size must not be negative")
    return Descriptor(
        fields.text("mediaType", ""),
        digest(fields.text("digest")),
        size,
        fields.mapping("annotations"),
        fields.optional("platform", platform_from_json),
        fields.text("artifactType", ""),
        fields.texts("urls") or (),
    )
