"""The kernel's overlayfs: an active tree is an upper and a work directory; the runtime mounts it.

With `userxattr` (Linux 5.11) it works in a user namespace, and the marks are user.* xattrs that this room can write;
root on an older kernel has trusted.* ones. Nothing is mounted here but in `works`, which tries it for real.
"""

from __future__ import annotations

import os
from functools import partial

from dockpy.linux.mounts import FSCONFIG_SET_STRING, fsconfig, fsopen, mount
from dockpy.linux.overlay import DATA, LOWER
from dockpy.oci.spec import Mount
from dockpy.storage import remove, twin
from dockpy.storage.copy import merge
from dockpy.storage.owners import SideTable, like_folder
from dockpy.storage.records import Active, Layer
from dockpy.storage.trees import LayeredSnapshotter
from dockpy.storage.trial import tried
from dockpy.storage.view import TRUSTED_OPAQUE, USER_OPAQUE, Tree

PAGE = 4000  # of mount(2)'s 4096 bytes of options; the rest for what the runtime may add


class OverlaySnapshotter(LayeredSnapshotter):
    name = "overlay2"

    def __init__(
        self, root: str, *, real_owners: bool, userxattr: bool = True, damaged: str = ""
    ) -> None:
        opaque = USER_OPAQUE if userxattr else TRUSTED_OPAQUE
        super().__init__(root, real_owners=real_owners, opaque_xattr=opaque, damaged=damaged)
        self._userxattr = userxattr

    def _make(self, active: Active, stack: tuple[Layer, ...]) -> None:
        tree = self.places.path(active.number)
        os.mkdir(f"{tree}/u", 0o755)
        os.mkdir(f"{tree}/w", 0o700)
        if stack:
            like_folder(self.places.path(stack[0].number), f"{tree}/u", self.real_owners)
        if self._too_long(active, stack):
            self._link_together(active, stack)
        else:
            self._stacked(stack)

    def _unmake(self, active: Active) -> None:
        """Nothing: the kernel's mount is the container's own, and gone with it."""

    def _too_long(self, active: Active, stack: tuple[Layer, ...]) -> bool:
        """Whether the layers' names fit neither mount(2)'s page nor options of their own."""
        lowers = tuple(self.places.path(one.number) for one in stack)
        tree = self.places.path(active.number)
        options = overlay_options(lowers, f"{tree}/u", f"{tree}/w", userxattr=self._userxattr)
        return options[0].startswith(LOWER) and not takes_lowerdir_plus()

    def _link_together(self, active: Active, stack: tuple[Layer, ...]) -> None:
        """One lower directory of hard links in place of many layers: it costs only directories."""
        self._merge(f"{self.places.path(active.number)}/l", stack)

    def _merge(self, target: str, stack: tuple[Layer, ...]) -> None:
        os.mkdir(target, 0o755)
        trees = [Tree(self.places.path(one.number), SideTable()) for one in stack]
        merge(trees, target, self._opaque_xattr, real_owners=self.real_owners, link=True)

    def _lowers(self, key: str) -> tuple[str, ...]:
        together = f"{self.places.path(self._of_key(key).number)}/l"
        if os.path.isdir(together):
            return (together,)
        stack = self._stack(self.parent_of(key))
        self._refuse_lost(stack)
        return self._stacked(stack) or (self.places.path(0),)

    def _stacked(self, stack: tuple[Layer, ...]) -> tuple[str, ...]:
        """The lower directories of `stack`. From its first twin on they are one, of hard links, made when first
        needed: of a twin anywhere but in the lowest directory the kernel opens no file.
        """
        own = next((index for index, one in enumerate(stack) if one.data), len(stack))
        paths = tuple(self.places.path(one.number) for one in stack)
        if own + 1 >= len(stack):
            return paths
        place = self.places.merged([one.number for one in stack[own:]])
        if not os.path.isdir(place):
            half = f"{place}.{os.urandom(4).hex()}.tmp"
            try:
                self._merge(half, stack[own:])
                os.rename(half, place)
            except OSError:
                if not os.path.isdir(place):  # else somebody was faster
                    raise
            finally:
                remove.remove_path(half)
        return (*paths[:own], place)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        tree = self.places.path(self._of_key(key).number)
        lowers = self._lowers(key)
        stack = self._stack(self.parent_of(key))
        data = next((os.path.dirname(one.data) for one in stack if one.data), "")
        options = overlay_options(
            lowers, f"{tree}/u", f"{tree}/w", userxattr=self._userxattr, data=data
        )
        return (Mount("/", "overlay", "overlay", options),)

    def _can_twin(self, trees: str) -> bool:
        try:
            return self._userxattr and twin.works(self.root, trees)
        except OSError:  # the disk is too full to try
            return any(one.data for one in self._layers.values())


def overlay_options(
    lowers: tuple[str, ...], upper: str, work: str, *, userxattr: bool, data: str = ""
) -> tuple[str, ...]:
    """lowerdir= in one piece where it fits mount(2)'s page, else, and beside a folder `data` of other people's
    files, one lowerdir+= each (see snapshot.py).
    """
    escaped = [_escaped(lower) for lower in lowers]
    rest = [f"upperdir={_escaped(upper)}", f"workdir={_escaped(work)}"]
    if userxattr:
        rest.append("userxattr")
    joined = "lowerdir=" + ":".join(escaped)
    if data:
        rest.insert(0, DATA + data)
    elif len(os.fsencode(",".join([joined, *rest]))) <= PAGE:
        return (joined, *rest)
    return (*(LOWER + lower for lower in lowers), *rest)


def takes_lowerdir_plus() -> bool:
    """Whether this kernel's overlayfs takes lower directories one by one (Linux 6.5)."""
    try:
        context = fsopen("overlay")
    except OSError:  # before Linux 5.2, or not allowed
        context = -1
    if context < 0:
        return False
    taken = True
    try:
        fsconfig(context, FSCONFIG_SET_STRING, "lowerdir+", "/")
    except OSError:
        taken = False
    finally:
        os.close(context)
    return taken


def _escaped(path: str) -> str:
    # What separates options and lower directories; overlayfs takes the backslashes away again.
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def works(folder: str, *, userxattr: bool) -> bool:
    """Whether this process may mount an overlay on the file system of `folder`, with all we need of it.

    Tried (see trial.py): a lower file is removed (a whiteout is made), a lower directory replaced (an opaque mark
    is written), and what we mark ourselves is understood. OSError: the disk is too full to try.
    """
    return tried(folder, partial(_try, userxattr))


def _try(userxattr: bool, base: str) -> None:
    for name in ("l/d/e", "m/d", "u", "w", "t"):
        os.makedirs(f"{base}/{name}", mode=0o755)
    for name in ("l/f", "l/g", "l/d/f"):
        os.close(os.open(f"{base}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    os.setxattr(f"{base}/m/d", USER_OPAQUE if userxattr else TRUSTED_OPAQUE, b"y")
    os.mknod(f"{base}/m/g", 0o020000, os.makedev(0, 0))
    options = overlay_options(
        (f"{base}/m", f"{base}/l"), f"{base}/u", f"{base}/w", userxattr=userxattr
    )
    mount("overlay", f"{base}/t", "overlay", 0, ",".join(options))
    os.unlink(f"{base}/t/f")
    os.rmdir(f"{base}/t/d")
    os.mkdir(f"{base}/t/d")
    if os.listdir(f"{base}/t/d") or sorted(os.listdir(f"{base}/t")) != ["d"]:
        raise OSError("overlayfs does not understand our marks")
