"""What a container is to run, found as runc finds it, with its sentences."""

from __future__ import annotations

import errno
import os
import stat

from dockpy.linux.beneath import RESOLVE_NO_MAGICLINKS, openat2
from dockpy.linux.libc import AT_FDCWD
from dockpy.runtime.errors import SetupError, strerror

DEFAULT_PATH_ERROR = "executable file not found in $PATH"


def find(name: str, path: str | None) -> str:
    """As Go's LookPath in runc, with its sentences."""
    if "/" in name:
        reason = _not_executable(name)
        if reason:
            raise SetupError(f'exec: "{name}": {reason}')
        return name
    for folder in (path or "").split(":") if name else ():
        candidate = f"{folder or '.'}/{name}"
        if not _not_executable(candidate):
            if not candidate.startswith("/"):
                # Go's ErrDot: a folder of PATH that depends on where we are is not trusted.
                raise SetupError(
                    f'exec: "{name}": cannot run executable found relative to current directory'
                )
            return candidate
    raise SetupError(f'exec: "{name}": {DEFAULT_PATH_ERROR}')


def _not_executable(path: str) -> str:
    """Why `path` cannot be run, "" when it can."""
    try:
        found = os.stat(path)
    except OSError as error:
        return f"stat {path}: {strerror(error)}"
    if stat.S_ISDIR(found.st_mode):
        return "is a directory"
    if not os.access(path, os.X_OK) or _by_magic_link(path):
        return "permission denied"
    return ""


def _by_magic_link(path: str) -> bool:
    """/proc/self/exe and whatever leads to it: this interpreter, which is not the container's to
    run (CVE-2019-5736). A script that names it as its interpreter still can; it cannot be written
    to then, since the shim runs it for as long as the container lives (ETXTBSY)."""
    try:
        if not os.path.samefile(path, "/proc/self/exe"):
            return False  # without a call that a filter may not know
        os.close(openat2(AT_FDCWD, path, os.O_PATH, resolve=RESOLVE_NO_MAGICLINKS))
    except OSError as error:
        return error.errno == errno.ELOOP  # not ENOSYS, not what a filter says to openat2
    return False
