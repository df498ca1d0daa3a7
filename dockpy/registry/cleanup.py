"""What must happen at the end of a task, also of a cancelled one, and must not hold it up for ever."""

from __future__ import annotations

from typing import Callable

import trio

WITHIN = 10.0  # seconds: a disk that hangs keeps no connection, and no daemon from ending


async def to_the_end(work: Callable[..., object], *arguments: object) -> None:
    """Runs what blocks in a thread of its own, through cancellation. Beyond WITHIN it goes on by itself."""
    with trio.move_on_after(WITHIN, shield=True):
        # Of its own: with all of a limiter's threads at work, or hanging, it would never begin.
        await trio.to_thread.run_sync(
            work, *arguments, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )
