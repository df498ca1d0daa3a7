"""Whether this host does something, found by doing it: in a child process, with a mount namespace of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from dockpy.linux.mounts import MS_REC, MS_SLAVE, mount
from dockpy.linux.namespaces import CLONE_NEWNS, unshare
from dockpy.storage import remove


def tried(folder: str, attempt: Callable[[str], None]) -> bool:
    """Whether `attempt` raises no OSError. Its argument is a name in `folder` where nothing is yet, and where
    nothing is left. OSError: the disk is too full to try. Forks: to be called before threads.
    """
    base = f"{folder}/try.{os.getpid()}"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            unshare(CLONE_NEWNS)
            # Else the mounts would show in the host's namespace, where "/" is shared.
            mount(None, "/", None, MS_REC | MS_SLAVE)
            attempt(base)
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
