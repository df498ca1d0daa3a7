"""What pytest-xdist may run side by side: the engines of tests/e2e beside each other, else file by file.

An engine is made once a session, and tests of one file may share more than their fixtures say.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    engine = call.params.get("engine") if call is not None else None
    if isinstance(engine, str):
        return f"engine {engine}"
    room = item.path.parent.name
    return room if room == "lab" else str(item.path)
