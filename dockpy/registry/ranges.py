"""Byte ranges: `Range` of a download (RFC 9110, 14.1.2) and `Content-Range` of a chunk (distribution-spec). Pure."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
_CHUNK = re.compile(r"(?:bytes )?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?", re.ASCII)


class Unsatisfiable(Exception):
    """No byte of the asked range exists."""


def wanted_range(header: str, size: int) -> tuple[int, int] | None:
    """(offset, length) of the part that `header` asks for; None: the whole.

    What is not one range is passed over, as the RFC allows; Unsatisfiable is a 416, also for one that ends before
    it begins.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or found.group() == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        if not length:
            raise Unsatisfiable
        return size - length, length
    start = int(first)
    if start >= size or (last and int(last) < start):
        raise Unsatisfiable
    end = min(int(last) + 1 if last else size, size)
    return start, end - start


def chunk_range(header: str) -> tuple[int, int]:
    """(offset, length) of a chunk's `start-end`; ValueError for anything else."""
    found = _CHUNK.fullmatch(header.strip())
    if found is None or int(found.group(2)) < int(found.group(1)):
        raise ValueError(header)
    return int(found.group(1)), int(found.group(2)) + 1 - int(found.group(1))
