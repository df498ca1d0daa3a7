"""`import`: a root file system's tar becomes an image of one layer (POST
/images/create?fromSrc=-).
"""

from __future__ import annotations

from collections.abc import Sequence

from dockpy.images import changes as instructions
from dockpy.images.image import Image, timestamp
from dockpy.images.making import put_image
from dockpy.images.store import ImageStore
from dockpy.images.tarwriter import CHUNK
from dockpy.oci.descriptor import OCI_LAYER, Descriptor
from dockpy.oci.digest import DiffID
from dockpy.oci.image import ContainerConfig, History, ImageConfig
from dockpy.oci.platform import Platform, host_platform
from dockpy.oci.reference import parse_repository
from dockpy.storage.compression import decompressed
from dockpy.storage.snapshot import Read


def import_rootfs(
    store: ImageStore,
    read: Read,
    repo: str = "",
    tag: str = "",
    changes: Sequence[str] = (),
    message: str = "",
    platform: Platform | None = None,
) -> Image:
    """The layer is kept uncompressed: its digest is its diff id then, and unpacking it needs no
    second hash.
    """
    names = [parse_repository(repo, tag)] if repo else []
    config = instructions.apply(ContainerConfig(), changes)
    plain = decompressed(read)
    with store.writing():
        with store.content.writer() as writer:
            while chunk := plain(CHUNK):
                writer.write(chunk)
            blob, size = writer.commit()
        created = timestamp()
        comment = message or "Imported from -"
        image = ImageConfig(
            platform or host_platform(),
            (DiffID(blob),),
            config,
            (History(created, comment=comment),),
            created,
            comment=comment,
        )
        return put_image(store, image.to_bytes(), [Descriptor(OCI_LAYER, blob, size)], names)
