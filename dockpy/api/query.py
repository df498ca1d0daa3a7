"""Values in query strings: Go's booleans, times, durations, filters in both of their forms."""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Collection, Mapping

from dockpy.errors import InvalidParameter

Filters = Mapping[str, tuple[str, ...]]


def boolean(query: Mapping[str, str], name: str, default: bool = False) -> bool:
    """docker's httputils.BoolValue: anything but these words is true."""
    value = query.get(name)
    if value is None:
        return default
    return value.strip().lower() not in ("", "0", "no", "false", "none")


def integer(query: Mapping[str, str], name: str, default: int, *, least: int = -(1 << 31)) -> int:
    value = query.get(name, "")
    if value == "":
        return default
    if re.fullmatch(r"[+-]?[0-9]{1,10}", value) is None:
        raise InvalidParameter(f"{name}={value} is not a whole number")
    number = int(value)
    if not least <= number < 1 << 31:
        raise InvalidParameter(f"{name}={value} is out of range")
    return number


def filters(query: Mapping[str, str], known: Collection[str]) -> Filters:
    """`{"key":["v"]}` or the older `{"key":{"v":true}}`; a key that is not known is refused."""
    text = query.get("filters", "")
    if not text:
        return {}
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParameter("invalid filter: not a JSON object") from None
    if not isinstance(raw, dict):
        raise InvalidParameter("invalid filter: not a JSON object")
    result: dict[str, tuple[str, ...]] = {}
    for key, values in raw.items():
        if key not in known:
            raise InvalidParameter(f"invalid filter '{key}'")
        if isinstance(values, dict):
            values = [name for name, set_ in values.items() if set_]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InvalidParameter(f"invalid filter '{key}': its values must be strings")
        if values:
            result[key] = tuple(values)
    return result


def timestamp(text: str, name: str) -> int | None:
    """Nanoseconds since 1970 of `unix[.fraction]`, RFC 3339 or a Go duration before now; None when absent or 0."""
    if text in ("", "0"):
        return None
    match = re.fullmatch(r"(-?[0-9]{1,18})(?:\.([0-9]{1,9}))?", text)
    if match is not None:
        return int(match[1]) * 1_000_000_000 + int((match[2] or "0").ljust(9, "0"))
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|z|[+-]\d\d:\d\d)?",
        text,
    )
    if match is not None:
        clock = match[2] or "00:00:00"
        try:
            parsed = time.strptime(
                f"{match[1]} {clock if len(clock) == 8 else clock + ':00'}", "%Y-%m-%d %H:%M:%S"
            )
        except ValueError:
            raise InvalidParameter(f"{name}={text} is not a time") from None
        seconds = calendar.timegm(parsed)
        zone = match[4] or "Z"
        if zone not in "Zz":
            offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
            seconds -= offset if zone[0] == "+" else -offset
        return seconds * 1_000_000_000 + int((match[3] or "0").ljust(9, "0"))
    length = duration(text)
    if length is None:
        raise InvalidParameter(f"{name}={text} is not a time")
    return time.time_ns() - length


_UNITS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


def duration(text: str) -> int | None:
    """Nanoseconds of a Go duration such as 1h30m; None when it is none."""
    parts = re.findall(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def matches_labels(wanted: Collection[str], labels: Mapping[str, str]) -> bool:
    """`key` or `key=value`, all of them."""
    for entry in wanted:
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
