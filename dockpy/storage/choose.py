"""Which snapshotter this store gets: the first that works here, found by trying it, and then the same again.

Kernel overlay with userxattr, kernel overlay as root, fuse-overlayfs, copy. The choice stands in
`snapshots/driver`; another one is made only when that one has stopped working and no container needs it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Mapping

from dockpy import files
from dockpy.damaged import Shelf, load_bytes
from dockpy.errors import InvalidParameter, Unavailable
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
    before = _recorded(f"{root}/driver", trials, Shelf(paths.damaged))
    if before in trials and _still(trials[before]):
        return _made(before, paths, tier)
    if before and os.path.isdir(f"{root}/active") and os.listdir(f"{root}/active"):
        raise Unavailable(
            f"the containers of this store need the {before} driver, which does not work here any more"
        )
    name = next(name for name, works in trials.items() if name != before and works())
    files.write_atomic(f"{root}/driver", name.encode())
    return _made(name, paths, tier)


def _still(works: Callable[[], bool]) -> bool:
    """Whether it works; on a disk that is too full to try, what was chosen is believed."""
    try:
        return works()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return True


def _recorded(path: str, known: Collection[str], shelf: Shelf) -> str:
    """ "" when nothing is recorded or it cannot be read: the choice by trying is the same as before."""
    try:
        word = load_bytes(path).decode("utf-8", "replace")
        # Another word is that of a build which knows more; a part of one of ours is a cut record.
        if not re.fullmatch("[a-z0-9-]+", word) or (
            word not in known and any(name.startswith(word) for name in known)
        ):
            raise InvalidParameter(f"there is no driver {word!r:.40}")
    except FileNotFoundError:
        return ""
    except InvalidParameter as error:
        shelf.set_aside(path, "driver", str(error))
        return ""
    return word


def _made(name: str, paths: Paths, tier: str) -> Snapshotter:
    root, damaged, real = paths.snapshots, paths.damaged, tier != "single"
    if name == OVERLAY:
        return OverlaySnapshotter(root, real_owners=real, damaged=damaged)
    if name == OVERLAY_TRUSTED:
        return OverlaySnapshotter(root, real_owners=real, userxattr=False, damaged=damaged)
    if name == FUSE:
        return FuseSnapshotter(root, real_owners=real, damaged=damaged)
    return CopySnapshotter(root, real_owners=real, damaged=damaged)
