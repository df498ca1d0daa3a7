"""What is done at the daemon's start about trees that its end, a power cut or damage has left half there.

A tree without a record was being made or removed, and goes; unless a record was damaged: then it may be
that one's, with a running container on it, and is set aside. A record without a tree goes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from dockpy import files
from dockpy.oci.digest import ChainID
from dockpy.storage import remove
from dockpy.storage.places import Places
from dockpy.storage.records import Active, Layer, Records

log = logging.getLogger(__name__)


def recover(
    root: str,
    places: Places,
    records: Records,
    layers: dict[ChainID, Layer],
    actives: dict[str, Active],
    unmake: Callable[[Active], None],
    lost: Callable[[Layer], bool],
) -> None:
    """Mends the snapshots folder `root`; `layers` and `actives`, which are its `records`, lose what is gone.

    `lost`: whether a layer is another store's, and there no more.
    """
    _remove_trials_and_halves(root)
    there = places.numbers()
    for active in list(actives.values()):
        if active.number not in there:
            log.error("the files of container %.12s are gone", active.key)
            records.forget(active)
            del actives[active.key]
        else:  # an older build let in whoever may enter the layers
            os.chmod(places.place(active.number), 0o700)
    stood_on = _stood_on(layers, actives)
    for one in list(layers.values()):
        if one.number not in there:
            log.error("the tree of layer %s is gone: it is made again when needed", one.chain)
        elif not lost(one) or one.number in stood_on:
            continue  # a lender's that is gone is unpacked when it is needed, unless it is needed now
        records.forget(one)
        del layers[one.chain]
    used = {one.number for one in layers.values()} | {active.number for active in actives.values()}
    for number in there - used - {0}:
        if records.lost:
            places.set_aside(number, "it may be that of a damaged record")
        else:
            unmake(Active("", number, 0))
            places.discard(number)
    layered = {one.number for one in layers.values()}
    for path, number in places.all_merged().items():
        if number not in layered and not (
            number and records.lost
        ):  # it is merged again when needed
            remove.remove_path(path)
    for number in places.tables() - used:
        if records.lost:
            places.set_table_aside(number, "as its tree")
        else:
            files.unlink_if_exists(places.table_path(number))


def _stood_on(layers: dict[ChainID, Layer], actives: dict[str, Active]) -> set[int]:
    """The numbers of all layers below active trees."""
    tops = {active.parent for active in actives.values()}
    found: set[int] = set()
    for one in layers.values():
        below: Layer | None = one if one.number in tops else None
        while below is not None and below.number not in found:
            found.add(below.number)
            below = layers.get(below.parent) if below.parent else None
    return found


def _remove_trials_and_halves(root: str) -> None:
    for folder in (root, f"{root}/chains", f"{root}/o"):
        for path in list(files.partial_files(folder)):
            os.unlink(path)
    for name in os.listdir(root):
        if name.startswith("try."):  # a trial of a driver that was cut
            remove.remove_path(f"{root}/{name}")
