"""Memory given back before others are forked from this process."""

from __future__ import annotations

import ctypes

from dockpy.linux.processes import prctl

PR_SET_THP_DISABLE = 41

_libc = ctypes.CDLL(None)


def give_back() -> None:
    """Free heap goes to the kernel, and no huge pages: a fork's first write would copy 2 MiB."""
    try:
        trim = _libc.malloc_trim
    except AttributeError:  # musl
        trim = None
    if trim is not None:
        trim(0)
    try:
        prctl(PR_SET_THP_DISABLE, 1)
    except OSError:
        pass  # an optimisation
