"""The kernel's overlayfs: an active tree is an upper and a work directory; the runtime mounts it.

With `userxattr` (Linux 5.11) it works in a user namespace, and the marks are user.* xattrs that this room can write;
root on an older kernel has trusted.* ones. Nothing is mounted here but in `works`, which tries it for real.
"""

from __future__ import annotations

import errno
import os

from dockpy.linux.mounts import FSCONFIG_SET_STRING, MS_REC, MS_SLAVE, fsconfig, fsopen, mount
from dockpy.linux.namespaces import CLONE_NEWNS, unshare
from dockpy.oci.spec import Mount
from dockpy.storage import remove
from dockpy.storage.copy import merge
from dockpy.storage.owners import SideTable, like_folder
from dockpy.storage.records import Active, Layer
from dockpy.storage.trees import LayeredSnapshotter
from dockpy.storage.view import TRUSTED_OPAQUE, USER_OPAQUE, Tree

PLUS = "lowerdir+="
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

    def _unmake(self, active: Active) -> None:
        """Nothing: the kernel's mount is the container's own, and gone with it."""

    def _too_long(self, active: Active, stack: tuple[Layer, ...]) -> bool:
        """Whether the layers' names fit neither mount(2)'s page nor options of their own."""
        lowers = tuple(self.places.path(one.number) for one in stack)
        tree = self.places.path(active.number)
        options = overlay_options(lowers, f"{tree}/u", f"{tree}/w", userxattr=self._userxattr)
        return options[0].startswith(PLUS) and not takes_lowerdir_plus()

    def _link_together(self, active: Active, stack: tuple[Layer, ...]) -> None:
        """One lower directory of hard links in place of many layers: it costs only directories."""
        target = f"{self.places.path(active.number)}/l"
        os.mkdir(target, 0o755)
        trees = [Tree(self.places.path(one.number), SideTable()) for one in stack]
        merge(trees, target, self._opaque_xattr, real_owners=self.real_owners, link=True)

    def _lowers(self, key: str) -> tuple[str, ...]:
        together = f"{self.places.path(self._of_key(key).number)}/l"
        if os.path.isdir(together):
            return (together,)
        return self.layers(key) or (self.places.path(0),)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        tree = self.places.path(self._of_key(key).number)
        lowers = self._lowers(key)
        options = overlay_options(lowers, f"{tree}/u", f"{tree}/w", userxattr=self._userxattr)
        return (Mount("/", "overlay", "overlay", options),)


def overlay_options(
    lowers: tuple[str, ...], upper: str, work: str, *, userxattr: bool
) -> tuple[str, ...]:
    """lowerdir= in one piece where it fits mount(2)'s page, else one lowerdir+= each (see snapshot.py)."""
    escaped = [_escaped(lower) for lower in lowers]
    rest = [f"upperdir={_escaped(upper)}", f"workdir={_escaped(work)}"]
    if userxattr:
        rest.append("userxattr")
    joined = "lowerdir=" + ":".join(escaped)
    if len(os.fsencode(",".join([joined, *rest]))) <= PAGE:
        return (joined, *rest)
    return (*(PLUS + lower for lower in lowers), *rest)


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

    Tried in a child with a mount namespace of its own: a lower file is removed (a whiteout is made), a lower
    directory replaced (an opaque mark is written), and what we mark ourselves is understood.
    OSError: the disk is too full to try.
    """
    base = f"{folder}/try.{os.getpid()}"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _try(base, userxattr)
            code = 0
        except OSError as error:  # the answer, if it is one
            code = error.errno if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    remove.remove_path(base)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) > 1:
        number = os.WEXITSTATUS(status)
        raise OSError(number, os.strerror(number), folder)
    return status == 0


def _try(base: str, userxattr: bool) -> None:
    unshare(CLONE_NEWNS)
    # Else the mount would show in the host's namespace, where "/" is shared.
    mount(None, "/", None, MS_REC | MS_SLAVE)
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
