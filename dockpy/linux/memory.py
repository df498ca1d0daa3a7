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


def fill_holes(size: int = 40 << 10) -> list[object]:
    """Small objects of every size, to be kept: what a fork makes then begins on pages of its own,
    and does not copy a page of ours for each gap it finds between old objects (CPython's allocator
    takes the fullest page first). Costs some 2 MiB here, and saves each fork 150 KiB.
    """
    held: list[object] = []
    for length in range(48, 513, 16):
        held.append([bytes(length - 33) for _ in range(size // length)])
    for count in range(1, 20):
        held.append([tuple([None] * count) for _ in range(size // (56 + 8 * count))])
    held.append([float(number) for number in range(size // 24)])
    held.append([object() for _ in range(size // 16)])
    return held
