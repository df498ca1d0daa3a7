"""The bundles and situations of the runtime's tests, for attacks on it."""

from __future__ import annotations

from tests.runtime.conftest import box, inside, situation

__all__ = ["box", "inside", "situation"]
