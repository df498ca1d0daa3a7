"""Typed reading of JSON that somebody else wrote: a value of the asked type, or InvalidParameter naming the field.

`null` counts as absent, as for docker: its configs are full of it. No effects, no defaults of meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from dockpy.errors import InvalidParameter

T = TypeVar("T")


def parse(data: bytes | str, what: str) -> object:
    """The JSON document in `data`; `what` names it in the error."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        # RecursionError: a bomb of brackets. UnicodeDecodeError is a ValueError.
        raise InvalidParameter(f"{what} is not valid JSON") from None


def dump(raw: object) -> bytes:
    """Canonical bytes of a document of ours: sorted keys, no spaces, so equal values have equal digests."""
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Fields:
    """One JSON object being read."""

    __slots__ = ("_raw", "_what")

    def __init__(self, raw: object, what: str) -> None:
        if not isinstance(raw, dict):
            raise InvalidParameter(f"{what} must be a JSON object")
        self._raw: dict[str, object] = raw
        self._what = what

    def _wrong(self, key: str, expected: str) -> InvalidParameter:
        return InvalidParameter(f"{self._what}: {key} must be {expected}")

    def raw(self, key: str) -> object:
        return self._raw.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._raw.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._raw.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "a whole number")
        return value

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self._raw.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings; None when absent (which differs from empty for Cmd and Entrypoint)."""
        value = self._raw.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings")
        return tuple(value)

    def mapping(self, key: str) -> Mapping[str, str]:
        value = self._raw.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self._wrong(key, "an object of strings")
        return dict(value)

    def keys(self, key: str) -> tuple[str, ...]:
        """The names of an object used as a set (`Volumes`, `ExposedPorts`)."""
        value = self._raw.get(key)
        if value is None:
            return ()
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return tuple(value)

    def each(
        self, key: str, read: Callable[[object], T], *, required: bool = False
    ) -> tuple[T, ...]:
        value = self._raw.get(key)
        if value is None and not required:
            return ()
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return tuple(read(item) for item in value)

    def optional(self, key: str, read: Callable[[object], T]) -> T | None:
        value = self._raw.get(key)
        return None if value is None else read(value)


def without_empty(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """A JSON object of what is there: None, "", (), {} and False are left out."""
    return {
        key: value
        for key, value in pairs
        if value not in (None, "", (), [], {}) and value is not False
    }
