from __future__ import annotations

import json

import pytest

from dockpy.api import query as q
from dockpy.api.times import ago, rfc3339nano
from dockpy.errors import InvalidParameter


@pytest.mark.parametrize("text", ["", "0", "no", "False", "none"])
def test_words_that_are_false(text: str) -> None:
    assert not q.boolean({"x": text}, "x", default=True)


def test_filters_in_both_forms() -> None:
    known = ("label", "status")
    new = {"filters": json.dumps({"label": ["a", "b=c"]})}
    old = {"filters": json.dumps({"label": {"a": True, "b=c": True, "d": False}})}
    assert q.filters(new, known) == q.filters(old, known) == {"label": ("a", "b=c")}


@pytest.mark.parametrize("text", ["[", "[]", '{"nope":["x"]}', '{"label":"x"}', '{"label":[1]}'])
def test_other_filters_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter"):
        q.filters({"filters": text}, ("label",))


def test_a_nest_of_brackets_is_refused_too() -> None:
    with pytest.raises(InvalidParameter):
        q.filters({"filters": "[" * 100_000}, ("label",))


def test_times() -> None:
    assert q.timestamp("1700000000.5", "since") == 1_700_000_000_500_000_000
    assert q.timestamp("2023-11-14T22:13:20.5Z", "since") == 1_700_000_000_500_000_000
    assert q.timestamp("2023-11-14T23:13:20+01:00", "since") == 1_700_000_000_000_000_000
    assert q.timestamp("0", "since") is None
    with pytest.raises(InvalidParameter):
        q.timestamp("yesterday", "since")


def test_durations_as_go_writes_them() -> None:
    assert q.duration("1h30m") == 5400 * 10**9
    assert q.duration("1.5s") == 1_500_000_000
    assert q.duration("5") is None


def test_printed_times_drop_zeros_at_the_end() -> None:
    assert rfc3339nano(1_700_000_000_500_000_000) == "2023-11-14T22:13:20.5Z"
    assert rfc3339nano(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (3600 * 47, "47 hours"),
        (86400 * 2, "2 days"),
        (86400 * 14, "2 weeks"),
        (86400 * 60, "2 months"),
        (86400 * 730, "2 years"),
    ],
)
def test_how_long_ago(seconds: float, words: str) -> None:
    assert ago(seconds) == words
