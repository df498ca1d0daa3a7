"""poll(2), one callback a descriptor, and timers: the shim's (and the keeper's) only place to wait.

A callback gets the events and must not block; a spurious call must do no harm, since a descriptor's
number may have been used again within one round. Nothing is watched with no events: a hang-up is
always reported, and one that nobody handles would spin. Watch the same open file for reading and
writing through two descriptors (os.dup).
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

POLLIN, POLLOUT, POLLHUP, POLLERR = select.POLLIN, select.POLLOUT, select.POLLHUP, select.POLLERR


class Loop:
    def __init__(self) -> None:
        self._poll = select.poll()
        self.poll = self._poll.poll
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._first = 0.0  # of the timers, when it is due

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        self._poll.register(fd, events)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed. Harmless when it is not watched."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, call))
        self._first = min(when for when, _ in self._timers)

    def timeout(self) -> int | None:
        """How long poll(2) may wait, in ms."""
        if not self._timers:
            return None
        return max(0, int((self._first - time.monotonic()) * 1000) + 1)

    def turn(self, quiet: int | None = None) -> bool:
        """Waits for something to happen, and lets it; False when nothing has for `quiet` ms."""
        timeout = self.timeout()
        patient = quiet is not None and (timeout is None or timeout > quiet)
        ready = self.poll(quiet if patient else timeout)
        if patient and not ready:
            return False
        for fd, events in ready:
            call = self._calls.get(fd)
            if call is not None:
                call(events)
        if self._timers and self._first <= (now := time.monotonic()):
            due = [timer for timer in self._timers if timer[0] <= now]
            self._timers = [timer for timer in self._timers if timer[0] > now]
            self._first = min((when for when, _ in self._timers), default=0.0)
            for _, call_later in due:
                call_later()
        return True
