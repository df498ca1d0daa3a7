"""overlayfs by fsconfig(2): for options of more than mount(2)'s page, and for data layers in folders of others."""

from __future__ import annotations

import os

from dockpy.linux import mounts
from dockpy.linux.beneath import open_straight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Options that take one folder each, topmost first: Linux 6.5 and 6.8.
LOWER = "lowerdir+="
DATA = "datadir+="


def detached(words: Iterable[str], attributes: int = 0) -> int:
    """A mount with the options `words`, each by its own fsconfig, for move_mount.

    A data layer may be another user's: with a symbolic link put somewhere on the way to it, they could show us
    any folder that only we may read. So no link is followed, and the kernel gets the very folder.
    """
    opened: list[int] = []
    context = mounts.fsopen("overlay")
    try:
        for word in words:
            key, equals, value = word.partition("=")
            if word.startswith(DATA):
                opened.append(open_straight(value))
                value = f"/proc/self/fd/{opened[-1]}"
            if equals:
                mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, key, value)
            else:
                mounts.fsconfig(context, mounts.FSCONFIG_SET_FLAG, key)
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        return mounts.fsmount(context, attributes)
    finally:
        for fd in (context, *opened):
            os.close(fd)
