"""A new keeper from a living daemon, whose own was killed: by exec, since the daemon has threads.

The child is born inside the daemon's namespaces and inherits lock and listener; nothing else is
needed.
"""

from __future__ import annotations

import _socket
import os
import subprocess

from dockpy import reexec
from dockpy.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockpy.paths import Paths


def spawn(paths: Paths, listen_fd: int, lock_fd: int, info: Mapping[str, str]) -> int:
    """Starts it and returns the daemon's new `keeper_fd` (for KeeperLink); requests may be sent at
    once.

    `info` is what the daemon was born with (serve_inherited). Blocks for a fork and an exec, some
    milliseconds. The new process is nobody's child: the one in between ends at once and is reaped
    here. Unavailable: it did not come to its own fork.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    link = theirs.fileno()
    arguments = (
        f"--store={paths.store}",
        f"--data={paths.data}",
        f"--run={info['run']}",
        f"--tier={info['tier']}",
        f"--daemon={os.getpid()}",
        f"--link={link}",
        f"--listen={listen_fd}",
        f"--lock={lock_fd}",
    )
    try:
        subprocess.run(
            reexec.argv("keeper", "--takeover", *arguments),
            pass_fds=(link, listen_fd, lock_fd),
            stdin=subprocess.DEVNULL,
            cwd="/",
            check=True,
        )
    except subprocess.CalledProcessError as error:
        ours.close()
        raise Unavailable(f"it ended with status {error.returncode}") from None
    finally:
        theirs.close()
    return ours.detach()
