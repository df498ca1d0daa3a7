"""What pytest-xdist may run side by side: the engines of tests/e2e beside each other, else file by file.

An engine is made once a session, and tests of one file may share more than their fixtures say. And signals
that whoever started pytest ignores (nohup, a shell's background) are not ignored by what tests start.
"""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            # We go on not to heed it, but no program inherits that.
            signal.signal(number, lambda *_: None)


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
