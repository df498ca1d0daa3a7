"""Requests as the daemon's handlers see them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union
from urllib.parse import parse_qsl, unquote


@dataclass(frozen=True)
class Request:
    """The head of a request. Header names are lower case; of a repeated query key the first counts, as in Go."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    query_lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def upgrade(self) -> str | None:
        """The protocol that the client wants to change to, in lower case."""
        if "upgrade" not in self.headers.get("connection", "").lower():
            return None
        return self.headers.get("upgrade", "").lower() or None


@dataclass(frozen=True)
class Body:
    """Some bytes of the request's body."""

    data: bytes


class EndOfRequest:
    """The request is complete."""


class NeedData:
    """Nothing to tell before more bytes arrive."""


class Closed:
    """The peer will send no further request."""


Event = Union[Request, Body, EndOfRequest, NeedData, Closed]


def parse_target(target: str) -> tuple[str, dict[str, str], dict[str, tuple[str, ...]]]:
    """Path (still percent-encoded), first value of each query key, and all values of each."""
    path, _, query = target.partition("?")
    lists: dict[str, tuple[str, ...]] = {}
    if query:
        for key, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
            lists[key] = (*lists.get(key, ()), value)
    return path, {key: values[0] for key, values in lists.items()}, lists


def decode_segment(segment: str) -> str:
    """One segment of a path without its percent signs."""
    return unquote(segment) if "%" in segment else segment
