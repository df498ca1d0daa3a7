"""The one libc handle, the one place where errno becomes OSError, and the numbers of system calls.

`prototype` and `syscall` make a function pointer of their own for each use, so that no module can
change the argument types under another.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from typing_extensions import TypeAlias

    Function: TypeAlias = Callable[..., int]

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter's lock while it runs: only for clone(2), where nothing may happen in
# between.
_locked_libc = ctypes.PyDLL(None, use_errno=True)

MACHINE = os.uname().machine

_X86_64 = {
    "clone": 56,
    "splice": 275,
    "tee": 276,
    "pivot_root": 155,
    "capget": 125,
    "capset": 126,
    "setns": 308,
    "seccomp": 317,
    "keyctl": 250,
    "signalfd4": 289,
}
_AARCH64 = {
    "clone": 220,
    "splice": 76,
    "tee": 77,
    "pivot_root": 41,
    "capget": 90,
    "capset": 91,
    "setns": 268,
    "seccomp": 277,
    "keyctl": 219,
    "signalfd4": 74,
}
# From 5.1 on all architectures number new calls alike.
_EVERYWHERE = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
NUMBERS: dict[str, int] = {**(_AARCH64 if MACHINE == "aarch64" else _X86_64), **_EVERYWHERE}

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100


def raise_errno(path: str | bytes | None = None) -> NoReturn:
    """Raises what the last call left in errno."""
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), os.fsdecode(path) if path is not None else None)


def prototype(name: str, *argtypes: Any) -> Function:
    """libc's function `name` with its argument types; results are int."""
    function = _libc[name]
    function.argtypes = argtypes
    function.restype = ctypes.c_int
    return function


def syscall(name: str, *argtypes: Any, locked: bool = False) -> Function:
    """The system call `name` by number, for what libc lacks (or changes); the result is a long."""
    function = (_locked_libc if locked else _libc)["syscall"]
    function.argtypes = (ctypes.c_long, *argtypes)
    function.restype = ctypes.c_long
    number = NUMBERS[name]

    def call(*arguments: Any) -> int:
        result: int = function(number, *arguments)
        return result

    return call
