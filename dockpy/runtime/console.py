"""A terminal of the container's own devpts: its master for the shim, its slave for the container.

Nothing is trusted for its name (CVE-2025-52565): ptmx must be device 5:2 on a devpts, the slave
comes from the master by ioctl, and what is bound on /dev/console is that very descriptor.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

from dockpy.linux.beneath import open_in_root
from dockpy.linux.mounts import DEVPTS_SUPER_MAGIC, fstatfs_type
from dockpy.linux.terminals import open_peer, set_winsize, unlock_pt
from dockpy.runtime.conversation import send_console
from dockpy.runtime.errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.oci.spec import ConsoleSize

PTMX = os.makedev(5, 2)


def open_pty(root: int, proc: int, size: ConsoleSize | None) -> tuple[int, int]:
    """(master, slave) from dev/pts of the container `root` is the root of; `proc`: the host's /proc."""
    flags = os.O_RDWR | os.O_NOCTTY
    # O_PATH first: opening a device nobody has looked at yet can do things.
    looked = open_in_root(root, "/dev/pts/ptmx", os.O_PATH | os.O_NOFOLLOW, no_symlinks=True)
    try:
        found = os.fstat(looked)
        if (
            not stat.S_ISCHR(found.st_mode)
            or found.st_rdev != PTMX
            or fstatfs_type(looked) != DEVPTS_SUPER_MAGIC
        ):
            raise SetupError("a terminal needs a devpts on /dev/pts of the container")
        # The thing we looked at itself, not what has its name by now.
        master = os.open(f"self/fd/{looked}", flags | os.O_CLOEXEC, dir_fd=proc)
    finally:
        os.close(looked)
    unlock_pt(master)
    slave = open_peer(master)
    if size is not None and size.height and size.width:
        set_winsize(master, size.height, size.width)
    return master, slave


def send_master(sock: int, master: int) -> None:
    """The master goes to the shim, which alone keeps it."""
    channel = _socket.socket(fileno=os.dup(sock))
    try:
        send_console(channel, master)
    finally:
        channel.close()


def give_to(fd: int, uid: int) -> None:
    """Lets the workload's user open its stdio again by /dev/stdout and friends, where we may."""
    try:
        found = os.fstat(fd)
        # /dev/null and its like belong to everyone on the host; only what was made for us changes
        # hands.
        if found.st_uid != uid and (stat.S_ISFIFO(found.st_mode) or _is_pty(found)):
            os.fchown(fd, uid, -1)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
            raise


def _is_pty(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and 136 <= os.major(found.st_rdev) <= 143
