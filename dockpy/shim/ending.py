"""Ends a container whose time is over, or whose clients have gone: its stop signal, then SIGKILL.

Of the shim, so that it happens without a daemon; by the loop's monotonic clock.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from dockpy.shim.clients import Client
    from dockpy.shim.loop import Loop
    from dockpy.shim.stdio import ProcessIO

TIMED_OUT = 124  # as timeout(1)
SIGKILL = 9


class Ending:
    """`start` is the message with `timeout`, `lease`, `stop_signal` and `stop_timeout` (shim.protocol)."""

    def __init__(
        self, loop: Loop, start: Mapping[str, Any], pid: int, running: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._start = start
        self._pid = pid
        self._running = running
        self._holders: tuple[Client, ...] = ()
        self.reason = ""  # why, once it has begun
        self.timed_out = False
        if start.get("timeout"):
            loop.after(start["timeout"], self._time_over)

    def hold(self, io: ProcessIO) -> None:
        """The clients attached now are those whose life is the container's, if it has a lease."""
        if self._start.get("lease"):
            self._holders = tuple(io.clients)
            io.on_drop = self._dropped
            self._dropped(io)

    def code(self, code: int) -> int:
        """The container's exit code, where the kernel says `code`."""
        return TIMED_OUT if self.timed_out else code

    def _dropped(self, io: ProcessIO) -> None:
        if not any(client in io.clients for client in self._holders):
            self._begin("the client that held its lease (--lease) has gone")

    def _time_over(self) -> None:
        if self._running():
            self.timed_out = True
            self._begin(f"its time (--timeout {self._start['timeout']:g}s) was over")

    def _begin(self, reason: str) -> None:
        if self.reason or not self._running():
            return
        self.reason = reason
        self._signal(self._start["stop_signal"])
        if self._start["stop_timeout"] >= 0:
            self._loop.after(self._start["stop_timeout"], lambda: self._signal(SIGKILL))

    def _signal(self, number: int) -> None:
        # Our child, and not reaped: the pid is its own.
        if self._running():
            os.kill(self._pid, number)
