"""Options of log drivers: docker's words for what is wrong, and what every line bears."""

from __future__ import annotations

import pytest

from dockpy.errors import InvalidParameter
from dockpy.supervisor import logoptions


@pytest.mark.parametrize(
    ("text", "size"),
    [("10m", 10_000_000), ("1G", 10**9), ("512", 512), ("2kB", 2000), ("1.5 KiB", 1500), ("7b", 7)],
)
def test_sizes_are_decimal_as_dockers(text: str, size: int) -> None:
    assert logoptions.size(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("abc", "invalid size: 'abc'"),
        ("-1", "invalid size: '-1'"),
        ("1x", "invalid suffix: 'x'"),
        ("1mbb", "invalid suffix: 'mbb'"),
    ],
)
def test_other_sizes_are_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        logoptions.size(text)
    assert str(raised.value) == words
