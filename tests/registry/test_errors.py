"""What registries say when they refuse, also when they say nonsense."""

from __future__ import annotations

import pytest

from dockpy.registry.errors import refusal


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("Mon, 01 Jan 2024 00:00:00 GMT", 0.0),
        ("soon", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after(said: str, seconds: float | None) -> None:
    assert refusal(429, {"retry-after": said}, b"", "Get").retry_after == seconds
