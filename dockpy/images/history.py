"""`docker history`: the config's history entries, newest first, with the sizes of the layers they
made.
"""

from __future__ import annotations

from dockpy.images.image import Image
from dockpy.images.inspect import unix_time
from dockpy.storage.snapshot import Snapshotter


def history(image: Image, snapshots: Snapshotter) -> list[dict[str, object]]:
    """Docker's HistoryResponseItem list; the topmost entry has the image's id and names."""
    layers = iter(zip(image.manifest.layers, image.chain_ids))
    rows: list[dict[str, object]] = []
    for entry in image.config.history:
        size = 0
        layer = None if entry.empty_layer else next(layers, None)
        if layer is not None:
            descriptor, chain = layer
            usage = snapshots.known_usage(chain)
            size = descriptor.size if usage is None else usage.size
        rows.append(
            {
                "Id": "<missing>",
                "Created": unix_time(entry.created),
                "CreatedBy": entry.created_by,
                "Tags": None,
                "Size": size,
                "Comment": entry.comment,
            }
        )
    if rows:
        rows[-1]["Id"] = image.id
        rows[-1]["Tags"] = list(image.repo_tags) or None
    return rows[::-1]
