"""A task beside the requests that fails is told, and the daemon's others go on."""

from __future__ import annotations

import pytest
import trio

from dockpy.supervisor.containers import Containers


def test_a_task_that_fails_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(number: int) -> None:
        raise OSError(28, f"No space left for {number}")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            containers = Containers.__new__(Containers)
            containers.nursery = nursery
            containers.aside(fails, 7)
            await trio.sleep(0.01)

    trio.run(main)
    assert "No space left for 7" in caplog.text
