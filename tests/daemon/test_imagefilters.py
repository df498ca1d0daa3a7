"""The filters of `images`: patterns as Go's path.Match has them, times, and what is refused."""

from __future__ import annotations

import pytest

from dockpy.daemon.imagefilters import Filter, parse, pattern
from dockpy.errors import InvalidParameter, NotFound
from dockpy.images.image import Image


def nothing(name: str) -> Image:
    raise NotFound(f"No such image: {name}")


def filter_of(**filters: str) -> Filter:
    return parse({key: (value,) for key, value in filters.items()}, nothing)


@pytest.mark.parametrize(
    ("text", "name", "matches"),
    [
        ("busybox", "busybox", True),
        ("busy*", "busybox", True),
        ("*", "local/x", False),
        ("*/*", "local/x", True),
        ("l?cal/x", "local/x", True),
        ("local?x", "local/x", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("\\*", "*", True),
        ("a.c", "abc", False),
        ("", "x", False),
    ],
)
def test_patterns(text: str, name: str, matches: bool) -> None:
    assert bool(pattern(text).fullmatch(name)) == matches


@pytest.mark.parametrize("text", ["[a", "[]", "a\\", "[z-a]", "[-x]"])
def test_bad_patterns_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="syntax error in pattern"):
        pattern(text)


def test_times_labels_and_names_decide() -> None:
    old, new, tags = "2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z", ("x:1", "x@sha256:00")
    assert filter_of(until="2021-01-01").admits(old, {}, tags)
    assert not filter_of(until="2021-01-01").admits(new, {}, tags)
    assert not filter_of(until="2021-01-01").admits("", {}, tags)
    assert filter_of().admits("", {}, ())
    assert filter_of(dangling="1").admits(old, {}, ("x@sha256:00",))
    assert not filter_of(dangling="true").admits(old, {}, tags)
    assert not filter_of(label="a=b").admits(old, {"a": "c"}, tags)
    assert filter_of(reference="x:1").admits(old, {}, tags)
    assert filter_of(reference="x@*").names("x@sha256:00")
    assert not filter_of(reference="y").admits(old, {}, tags)
    for filters in ({"dangling": "x"}, {"until": "x"}):
        with pytest.raises(InvalidParameter):
            filter_of(**filters)
    with pytest.raises(NotFound, match="No such image: nope"):
        filter_of(before="nope")
