"""An image made of another one and one more layer: what `docker commit` makes of a container."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dockpy.images.image import Image, timestamp
from dockpy.images.making import put_image
from dockpy.images.store import ImageStore
from dockpy.oci.descriptor import OCI_LAYER, Descriptor
from dockpy.oci.digest import DiffID, Digest
from dockpy.oci.image import ContainerConfig, History, ImageConfig
from dockpy.oci.reference import Reference
from dockpy.storage.snapshot import Write

# A tar archive without members: docker adds no layer for a container that changed nothing.
EMPTY = Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")


@dataclass(frozen=True)
class Commit:
    """What the new image is told to be; `created_by` is the container's command."""

    config: ContainerConfig
    created_by: str = ""
    author: str = ""
    comment: str = ""


def commit_image(
    store: ImageStore,
    parent: Image,
    write_layer: Callable[[Write], None],
    wanted: Commit,
    names: Sequence[Reference],
) -> Image:
    """`write_layer(write)` writes the layer's archive, which is kept uncompressed.

    On an error nothing is left of it.
    """
    with store.writing():
        with store.content.writer() as writer:
            write_layer(writer.write)
            blob, size = writer.commit()
        empty = blob == EMPTY
        created = timestamp()
        entry = History(created, wanted.created_by, wanted.author, wanted.comment, empty)
        image = replace(
            parent.config,
            config=wanted.config,
            created=created,
            author=wanted.author,
            comment=wanted.comment,
            docker_version="",
            history=(*_told(parent.config), entry),
        )
        layers = parent.manifest.layers
        if not empty:
            image = replace(image, diff_ids=(*image.diff_ids, DiffID(blob)))
            layers = (*layers, Descriptor(OCI_LAYER, blob, size))
        return put_image(store, image.to_bytes(), layers, names)


def _told(config: ImageConfig) -> tuple[History, ...]:
    """The parent's history; one entry a layer where it tells of none, so that ours is told of the last."""
    if not config.history and config.diff_ids:
        return tuple(History(config.created) for _ in config.diff_ids)
    return config.history
