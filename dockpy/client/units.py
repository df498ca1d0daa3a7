"""Sizes, durations and CPU counts as docker writes and reads them. Pure."""

from __future__ import annotations

_BINARY = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_NANOS = {
    "ns": 1,
    "us": 1000,
    "\u00b5s": 1000,
    "\u03bcs": 1000,
    "ms": 1000000,
    "s": 1000000000,
    "m": 60 * 1000000000,
    "h": 3600 * 1000000000,
}


def ram_bytes(text: str) -> int:
    """`512m`, `1.5g`, `100kb`, `64 MiB`: powers of 1024; -1 is let through, as docker's swap limit
    needs it.
    """
    if text == "-1":
        return -1
    at = len(text)
    while at and not (text[at - 1].isdigit() or text[at - 1] == "."):
        at -= 1
    number, unit = text[:at], text[at:].strip().lower()
    if unit.endswith("ib"):
        unit = unit[:-2]
    elif unit != "b" and unit.endswith("b"):
        unit = unit[:-1]
    if not number.isascii() or not number.replace(".", "", 1).isdigit() or unit not in _BINARY:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(number) * _BINARY[unit])


def nano_cpus(text: str) -> int:
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isdigit() or not text.isascii():
        raise ValueError(f"failed to parse {text} as a rational number")
    if len(fraction.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    return int(whole or "0") * 10**9 + int((fraction + "0" * 9)[:9])


def duration(text: str) -> int:
    """Go's time.ParseDuration, in nanoseconds."""
    bad = f'time: invalid duration "{text}"'
    rest, sign = text, 1
    if rest[:1] in ("-", "+"):
        sign, rest = (-1 if rest[0] == "-" else 1), rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(bad)
    total = 0.0
    exact = 0
    while rest:
        at = 0
        while at < len(rest) and (rest[at] in "0123456789."):
            at += 1
        number, rest = rest[:at], rest[at:]
        at = 0
        while at < len(rest) and rest[at] not in "0123456789.":
            at += 1
        unit, rest = rest[:at], rest[at:]
        if not number.replace(".", "", 1).isdigit():
            raise ValueError(bad)
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _NANOS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        if "." in number:
            total += float(number) * _NANOS[unit]
        else:
            exact += int(number) * _NANOS[unit]
    return sign * (exact + int(total))


def timestamp(text: str, now: float) -> str:
    """`42m` (before now), RFC 3339 in any of its shortnesses, or unix seconds, as the API's
    seconds[.nanoseconds].
    """
    try:
        return str(int(now - duration(text) / 1e9))
    except ValueError:
        pass
    whole, _, fraction = text.partition(".")
    if (whole + fraction).isdecimal() and len(whole) < 19:  # far from what 64 bits hold
        return text
    from datetime import datetime

    stamp, nanos = text, ""
    if "." in text:
        head, _, rest = text.partition(".")
        digits = len(rest) - len(rest.lstrip("0123456789"))
        nanos, stamp = rest[:digits], head + rest[digits:]
    if stamp.endswith("Z"):
        stamp = f"{stamp[:-1]}+00:00"
    for shape in (
        "%Y-%m-%dT%H:%M:%S%z",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H",
        "%Y-%m-%d%z",
        "%Y-%m-%d",
    ):
        try:
            seconds = int(datetime.strptime(stamp, shape).timestamp())
        except ValueError:
            continue
        return f"{seconds}.{(nanos + '0' * 9)[:9]}"
    raise ValueError(f'failed to parse value as time or duration: "{text}"')


def size(count: float, digits: int = 4, base: float = 1000.0) -> str:
    """`1.09MB`: four significant digits, powers of 1000 (three digits in tables: `size(n, 3)`)."""
    names = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
    at = 0
    while count >= base and at < len(names) - 1:
        count /= base
        at += 1
    return f"{significant(count, digits)}{names[at]}"


def significant(value: float, digits: int) -> str:
    """Go's %.<digits>g for the numbers that occur here."""
    text = f"{value:.{digits}g}"
    if "e" in text:
        return f"{float(text):.0f}"
    return text
