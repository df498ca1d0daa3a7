"""Which snapshotter this store gets: the first that works here, found by trying it, and then the same again.

Kernel overlay with userxattr, kernel overlay as root, fuse-overlayfs, copy. The choice stands in
`snapshots/driver`; another one is made only when that one has stopped working and no container needs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from dockpy import files
from dockpy.errors import Unavailable
from dockpy.paths import Paths
from dockpy.storage import fuse, overlay
from dockpy.storage.copy import CopySnapshotter
from dockpy.storage.fuse import FuseSnapshotter
from dockpy.storage.overlay import OverlaySnapshotter
from dockpy.storage.snapshot import Snapshotter

OVERLAY, OVERLAY_TRUSTED, FUSE, COPY = "overlay", "overlay-trusted", "fuse", "copy"


def choose(paths: Paths, tier: str) -> Snapshotter:
    """The snapshotter of the store for `tier` (single, subuid, root). Called before threads: it forks."""
    root = paths.snapshots
    os.makedirs(root, mode=0o700, exist_ok=True)
    trials: Mapping[str, Callable[[], bool]] = {
        OVERLAY: lambda: overlay.works(root, userxattr=True),
        OVERLAY_TRUSTED: lambda: tier == "root" and overlay.works(root, userxattr=False),
        FUSE: lambda: fuse.works(root),
        COPY: lambda: True,
    }
    before = _recorded(root)
    if before in trials and trials[before]():
        return _made(before, root, tier)
    if before and os.path.isdir(f"{root}/active") and os.listdir(f"{root}/active"):
        raise Unavailable(
            f"the containers of this store need the {before} driver, which does not work here any more"
        )
    name = next(name for name, works in trials.items() if name != before and works())
    files.write_atomic(f"{root}/driver", name.encode())
    return _made(name, root, tier)


def _recorded(root: str) -> str:
    try:
        return files.read_bytes(f"{root}/driver").decode()
    except FileNotFoundError:
        return ""


def _made(name: str, root: str, tier: str) -> Snapshotter:
    real = tier != "single"
    if name == OVERLAY:
        return OverlaySnapshotter(root, real_owners=real)
    if name == OVERLAY_TRUSTED:
        return OverlaySnapshotter(root, real_owners=real, userxattr=False)
    if name == FUSE:
        return FuseSnapshotter(root, real_owners=real)
    return CopySnapshotter(root, real_owners=real)
