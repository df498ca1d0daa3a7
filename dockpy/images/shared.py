"""How much of an image other images use as well. Blocks: every layer's usage is looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dockpy.images.image import Image
from dockpy.storage.snapshot import Snapshotter


def shared_sizes(images: Sequence[Image], snapshots: Snapshotter) -> dict[str, int]:
    """docker's SharedSize by image id, in bytes; a layer that is not unpacked here takes nothing."""
    users = Counter(chain for image in images for chain in image.chain_ids)
    sizes = {
        chain: snapshots.chain_takes(chain)
        for chain, count in users.items()
        if count > 1 and snapshots.has(chain)
    }
    return {
        str(image.id): sum(sizes.get(chain, 0) for chain in image.chain_ids) for image in images
    }


def lent_size(image: Image, snapshots: Snapshotter) -> int:
    """Bytes of the image's unpacked layers that lie in other stores, not here."""
    unpacked = [chain for chain in image.chain_ids if snapshots.has(chain)]
    return sum(snapshots.chain_usage(one).size - snapshots.chain_takes(one) for one in unpacked)
