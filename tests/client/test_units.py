"""Sizes, durations and times in docker's spellings."""

from __future__ import annotations

import pytest

from dockpy.client import units


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("32", 32),
        ("32b", 32),
        ("32k", 32768),
        ("1.5g", 3 << 29),
        ("1KiB", 1024),
        ("1 MB", 1 << 20),
        ("-1", -1),
        ("5T", 5 << 40),
    ],
)
def test_ram_bytes(text: str, count: int) -> None:
    assert units.ram_bytes(text) == count


@pytest.mark.parametrize("text", ["", "x", "1x", "-2", "1.2.3", "k", "1_0", "\u0663"])
def test_bad_ram_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        units.ram_bytes(text)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0", 0),
        ("1s", 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("-2ms", -2 * 10**6),
        ("100us", 10**5),
    ],
)
def test_durations(text: str, nanos: int) -> None:
    assert units.duration(text) == nanos


@pytest.mark.parametrize("text", ["", "5", "5x", "s", "-", "1s2", "1..2s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        units.duration(text)


@pytest.mark.parametrize(
    ("count", "digits", "text"),
    [
        (0, 3, "0B"),
        (999, 3, "999B"),
        (1000, 3, "1kB"),
        (1982000, 3, "1.98MB"),
        (1982000, 4, "1.982MB"),
        (128e6, 3, "128MB"),
        (1.5e9, 3, "1.5GB"),
    ],
)
def test_sizes(count: float, digits: int, text: str) -> None:
    assert units.size(count, digits) == text


def test_timestamps() -> None:
    assert units.timestamp("10m", 1000.0) == "400"
    assert units.timestamp("1136073600.000000001", 0) == "1136073600.000000001"
    assert units.timestamp("2", 5.0) == "2"
    assert units.timestamp("2006-01-02T15:04:05.5Z", 0) == "1136214245.500000000"
    assert units.timestamp("2006-01-02T15:04:05+01:00", 0) == "1136210645.000000000"
    with pytest.raises(ValueError, match='failed to parse value as time or duration: "x"'):
        units.timestamp("x", 0)
