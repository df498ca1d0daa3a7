"""The filters of `ps`: what docker refuses, and ports."""

from __future__ import annotations

import pytest

from dockpy.errors import InvalidParameter
from dockpy.supervisor.filters import check, ports


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("status", "bogus", "invalid filter 'status=bogus'"),
        ("health", "bogus", "Unrecognised filter value for health: bogus"),
        ("exited", "x", 'strconv.Atoi: parsing "x": invalid syntax'),
        ("is-task", "x", "invalid filter 'is-task=[x]'"),
        ("expose", "80:80", "filter for 'expose' should not contain ':': 80:80"),
        ("publish", "foo", 'publish foo: strconv.ParseUint: parsing "foo": invalid syntax'),
        ("publish", "99999", 'parsing "99999": value out of range'),
        ("expose", "9-8", "invalid range specified for port: 9-8"),
    ],
)
def test_values_that_docker_refuses_are_refused_in_its_words(
    key: str, value: str, text: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check({key: (value,)})
    assert str(caught.value).endswith(text)


def test_others_pass() -> None:
    check({"status": ("paused", "dead"), "health": ("none",), "exited": ("-1", "0"), "is-task": ("True",)})  # fmt: skip


def test_ports_by_number_range_and_protocol() -> None:
    assert ports("expose", "80") == {"80/tcp"}
    assert ports("expose", "80-82/udp") == {"80/udp", "81/udp", "82/udp"}
