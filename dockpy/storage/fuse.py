"""fuse-overlayfs, where it is installed and the kernel's overlay may not be mounted.

Its process serves one active tree at `n/<number>/m`, in the mount namespace of whoever asked first for the tree's
mounts (daemon and keeper share one), until the tree is removed; the runtime binds that.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from dockpy.errors import Unavailable
from dockpy.linux.mounts import MNT_DETACH, umount2
from dockpy.oci.spec import Mount
from dockpy.storage.overlay import OverlaySnapshotter
from dockpy.storage.records import Active, Layer

PROGRAM = "fuse-overlayfs"


class FuseSnapshotter(OverlaySnapshotter):
    name = "fuse-overlayfs"

    def _too_long(self, active: Active, stack: tuple[Layer, ...]) -> bool:
        return False

    def _can_twin(self, trees: str) -> bool:
        return False

    def mounts(self, key: str) -> tuple[Mount, ...]:
        tree = self.places.path(self._of_key(key).number)
        point = f"{tree}/m"
        if not os.path.ismount(point):
            os.makedirs(point, mode=0o755, exist_ok=True)
            serve(self._lowers(key), f"{tree}/u", f"{tree}/w", point)
        return (Mount("/", "bind", point, ("rbind", "rw")),)

    def _unmake(self, active: Active) -> None:
        point = f"{self.places.path(active.number)}/m"
        if os.path.ismount(point):
            umount2(point, MNT_DETACH)


def serve(lowers: tuple[str, ...], upper: str, work: str, point: str) -> None:
    """Mounts at `point`; the process goes on in the background when this returns."""
    # One option string: the program takes it from its command line, which is longer than a page.
    lowerdir = "lowerdir=" + ":".join(lowers)
    options = (lowerdir, f"upperdir={upper}", f"workdir={work}")
    command = [PROGRAM, "-o", ",".join(options), point]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise Unavailable(f"{PROGRAM} was removed from this host") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise Unavailable(f"{PROGRAM} cannot mount the container's file system: {lines[-1]:.200}")


def works(folder: str) -> bool:
    """Whether fuse-overlayfs is here and mounts something below `folder`."""
    if shutil.which(PROGRAM) is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return False
    base = f"{folder}/try.{os.getpid()}"
    for name in ("l", "u", "w", "m"):
        os.makedirs(f"{base}/{name}", mode=0o755)
    try:
        serve((f"{base}/l",), f"{base}/u", f"{base}/w", f"{base}/m")
    except Unavailable:
        mounted = False
    else:
        mounted = os.path.ismount(f"{base}/m")
        umount2(f"{base}/m", MNT_DETACH)
    shutil.rmtree(base, ignore_errors=True)
    return mounted
