"""The lines to the keeper and to shims, for trio: a request is awaited, an event is told.

Descriptors that go along stay open here until the datagram has left; the kernel has its own
reference to them from then on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Callable, Protocol, TypeVar, Union

import trio

from dockpy.errors import Conflict, DockpyError, InvalidParameter, NotFound, Unavailable
from dockpy.keeper.protocol import Born, KeeperLink, NewListener, NotBorn
from dockpy.shim.protocol import (
    BadMessage,
    Detached,
    ExecExit,
    ExecFailed,
    ExecStarted,
    Exit,
    Failed,
    Refusal,
    Reply,
    ShimLink,
    Start,
    Started,
)

log = logging.getLogger(__name__)

ShimEvent = Union[Started, Failed, ExecStarted, ExecFailed, ExecExit, Exit, Detached, None]

# A shim answers within microseconds; one that is stopped by a signal must not hang the daemon's caller.
ANSWER_WITHIN = 10.0


T = TypeVar("T", covariant=True)


class Lost(DockpyError):
    """The other side is gone, or does not answer."""


REFUSALS: Mapping[str, type[DockpyError]] = {
    "not-found": NotFound,
    "not-running": Conflict,
    "invalid": InvalidParameter,
}


class Refused(DockpyError):
    """A shim's or keeper's no, in its words."""


class _Answer:
    """One awaited answer."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.value: object = None

    def set(self, value: object) -> None:
        self.value = value
        self.ready.set()


class _Link(Protocol[T]):
    def receive(self) -> T: ...

    def fileno(self) -> int: ...


async def _received(link: _Link[T], whose: str) -> T:
    """The next message, or what stands for the end."""
    while True:
        try:
            return link.receive()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(link)
        except BadMessage as error:
            log.error("%s sent what is no message: %s", whose, error)


class Shim:
    """One shim's line. `tell` gets every event, and None once at the end."""

    def __init__(self, link: ShimLink, tell: Callable[[ShimEvent], None]) -> None:
        self._link = link
        self._tell = tell
        self._waiting: dict[int, _Answer] = {}
        self._ended = False

    async def read(self) -> None:
        """Runs until the shim is gone. The daemon's nursery owns it."""
        gone = True
        try:
            while (message := await _received(self._link, "a shim")) is not None:
                if isinstance(message, (Reply, Refusal)):
                    answer = self._waiting.pop(message.seq, None)
                    if answer is not None:
                        answer.set(message)
                    continue
                self._tell_of(message)
        except trio.Cancelled:
            gone = False  # it is the daemon that ends: the next one adopts this shim
            raise
        finally:
            self._ended = True
            self._link.close()
            for answer in self._waiting.values():
                answer.set(None)
            self._waiting.clear()
            if gone:
                self._tell_of(None)

    def _tell_of(self, event: ShimEvent) -> None:
        try:
            self._tell(event)
        except Exception:
            # One container's trouble (a full disk, say) must not end the daemon of all.
            log.exception("an event of a shim was not dealt with: %s", event)

    async def ask(self, send: Callable[[ShimLink], int], within: float = ANSWER_WITHIN) -> Reply:
        """One request; the shim's refusal comes as the error that its kind means."""
        answer = _Answer()
        seq = -1
        try:
            with trio.move_on_after(within):
                while True:
                    if self._ended:
                        raise Lost("the container's shim has ended")
                    try:
                        seq = send(self._link)
                        break
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(self._link)
                    except (BrokenPipeError, ConnectionResetError):
                        raise Lost("the container's shim has ended") from None
                self._waiting[seq] = answer
                await answer.ready.wait()
        finally:
            self._waiting.pop(seq, None)
        if isinstance(answer.value, Reply):
            return answer.value
        if isinstance(answer.value, Refusal):
            raise REFUSALS.get(answer.value.kind, Refused)(answer.value.error)
        raise Lost("the container's shim does not answer")


class Keeper:
    """The line to the keeper; `revive` makes a next one when it has died (keeper.takeover.spawn)."""

    def __init__(
        self,
        link: KeeperLink,
        revive: Callable[[], KeeperLink],
        new_listener: Callable[[int], None],
    ) -> None:
        self._link = link
        self._revive = revive
        self._new_listener = new_listener
        self._waiting: dict[int, _Answer] = {}
        self._alive = trio.Event()
        self._alive.set()

    async def read(self) -> None:
        """Runs for ever, through as many keepers as it takes."""
        pause = 0.0
        while True:
            born = trio.current_time()
            await self._read_one()
            self._alive = trio.Event()
            for answer in self._waiting.values():
                answer.set(None)
            self._waiting.clear()
            log.warning("the keeper has died; starting another")
            # One that dies at birth (its store is gone, say) would die again at once.
            pause = 0.0 if trio.current_time() - born > 10 else min(max(pause * 2, 0.05), 5)
            await trio.sleep(pause)
            while True:
                try:
                    self._link = self._revive()
                    break
                except (OSError, DockpyError) as error:
                    log.error("no new keeper: %s", error)
                    pause = min(max(pause * 2, 0.05), 5)
                    await trio.sleep(pause)
            self._alive.set()

    async def _read_one(self) -> None:
        while (message := await _received(self._link, "the keeper")) is not None:
            if isinstance(message, NewListener):
                self._new_listener(message.fd)
                continue
            answer = self._waiting.pop(message.seq, None)
            if answer is not None:
                answer.set(message)
            elif isinstance(message, Born):
                os.close(message.pidfd)
        self._link.close()

    async def start_shim(self, start: Start, control: int) -> Born | None:
        """A shim for `start`. None: the keeper died meanwhile, so only the control socket knows whether there is one."""
        answer = _Answer()
        with trio.move_on_after(ANSWER_WITHIN):
            while True:
                await self._alive.wait()
                try:
                    seq = self._link.start_shim(start, control)
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._link)
                except (BrokenPipeError, ConnectionResetError):
                    # Nothing was sent: the reader will notice, and bring the next keeper.
                    await trio.sleep(0.01)
            self._waiting[seq] = answer
            await answer.ready.wait()
            if isinstance(answer.value, Born):
                return answer.value
            if isinstance(answer.value, NotBorn):
                raise Refused(answer.value.error)
            return None
        raise Unavailable("the keeper does not answer; see `dockpy daemon status`")

    def stop(self) -> None:
        """Tells the keeper that the daemon's end is meant."""
        try:
            self._link.stop()
        except OSError:
            log.warning("the keeper could not be told to stop")
