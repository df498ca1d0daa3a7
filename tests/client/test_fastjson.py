"""fastjson is the standard library's JSON, without its import; and refuses what that lets through."""

from __future__ import annotations

import json

import pytest

from dockpy.fastjson import dumps, loads

VALUE = {
    "a": [1, -2.5, 1e300, True, False, None, 'x\u00e9\U0001f600\n"\\\x00'],
    "": {},
    "n": [[]],
    "big": 2**70,
}


def test_there_and_back() -> None:
    assert loads(dumps(VALUE)) == VALUE
    assert json.loads(dumps(VALUE)) == VALUE
    assert loads(json.dumps(VALUE, indent=3)) == VALUE
    assert loads(b" \r\n\t1 ") == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1,]",
        "1 2",
        "NaN",
        "[Infinity]",
        "[" * 100000,
        '{"a":' * 100000,
        '{"a"}',
        "tru",
        '"\n"',
        b"\xff",
    ],
)
def test_what_is_not_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)


def test_what_cannot_be_told_is_refused() -> None:
    deep: list[object] = []
    for _ in range(100000):
        deep = [deep]
    for value in (deep, float("nan"), float("inf")):
        with pytest.raises(ValueError):
            dumps(value)
    with pytest.raises(TypeError):
        dumps({"a": object()})
