"""Ranges of subordinate ids in /etc/subuid and /etc/subgid, and the set-uid programs that map them."""

from __future__ import annotations

import os
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# newuidmap and newgidmap are where the system's other set-uid programs are, whatever PATH says.
PROGRAM_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin")


@dataclass(frozen=True)
class Range:
    start: int
    count: int


def parse(text: str, name: str, uid: int) -> tuple[Range, ...]:
    """The ranges of a user, whom subuid(5) lets stand there by name or by number; nonsense is
    skipped.
    """
    ranges = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in (name, str(uid)):
            continue
        if fields[1].isdecimal() and fields[2].isdecimal() and int(fields[2]) > 0:
            ranges.append(Range(int(fields[1]), int(fields[2])))
    return tuple(ranges)


def ranges_of(path: str, name: str, uid: int) -> tuple[Range, ...]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read(), name, uid)
    except OSError:
        return ()


def program(name: str) -> str | None:
    for folder in PROGRAM_FOLDERS:
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    return None


def mapping(own: int, ranges: Sequence[Range]) -> list[str]:
    """Arguments of newuidmap: 0 inside is us, 1 and up are the ranges, one after the other."""
    arguments = ["0", str(own), "1"]
    inside = 1
    for item in ranges:
        arguments += [str(inside), str(item.start), str(item.count)]
        inside += item.count
    return arguments
