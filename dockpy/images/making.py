"""An image made of a config and layers: its manifest is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dockpy.images.image import Image
from dockpy.images.store import ImageStore
from dockpy.images.unpack import Opened
from dockpy.oci.descriptor import OCI_CONFIG, Descriptor
from dockpy.oci.digest import Digest
from dockpy.oci.manifest import Manifest
from dockpy.oci.reference import Reference


def put_image(
    store: ImageStore,
    config: bytes,
    layers: Sequence[Descriptor],
    names: Sequence[Reference],
    extra: Mapping[str, str] = {},
    arriving: Mapping[Digest, Opened] = {},
) -> Image:
    """Makes the manifest for a config and layers that are in the content store, or `arriving`, and
    adds the image.
    """
    manifest = Manifest(
        Descriptor(OCI_CONFIG, store.content.put(config), len(config)), tuple(layers)
    )
    data = manifest.to_bytes()
    descriptor = Descriptor(manifest.media_type, store.content.put(data), len(data))
    return store.add(descriptor, names, extra, arriving)
