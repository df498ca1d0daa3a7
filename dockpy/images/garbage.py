"""Committed trees that no image has any more: taken away from the top down, but for what somebody stands on."""

from __future__ import annotations

from collections.abc import Sequence

from dockpy.errors import Conflict
from dockpy.oci.digest import ChainID
from dockpy.storage.snapshot import Snapshotter


def drop_chains(snapshots: Snapshotter, unwanted: Sequence[ChainID]) -> list[ChainID]:
    """Those that are gone now."""
    gone: list[ChainID] = []
    while unwanted:
        held: list[ChainID] = []
        for chain in unwanted:
            try:
                snapshots.drop(chain)
            except Conflict:
                held.append(chain)  # by a child that comes later in this list, or by a container
            else:
                gone.append(chain)
        if len(held) == len(unwanted):
            break
        unwanted = held
    return gone
