"""A container alive in memory: its record and state, its shim, who waits and who is attached."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

import trio

from dockpy.api.container import ExecCreate
from dockpy.shim.protocol import Attachment, Sinks
from dockpy.supervisor.records import Record, State
from dockpy.supervisor.shims import Shim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.supervisor.health import Health


@dataclass
class Client:
    """A hijacked connection with the descriptors its client sent; ours until a shim has them."""

    connection: socket.socket
    stdin: bool
    stdout: bool
    stderr: bool
    framed: bool
    sinks: dict[str, int] = field(default_factory=dict)
    detach_keys: str = ""
    early: bytes = b""
    exit: bool = False

    def attachment(self) -> Attachment:
        sinks = Sinks(self.sinks.get("stdin"), self.sinks.get("stdout"), self.sinks.get("stderr"))
        return Attachment(
            conn=self.connection.fileno(),
            stdin=self.stdin,
            stdout=self.stdout,
            stderr=self.stderr,
            framed=self.framed,
            sinks=sinks,
            detach_keys=self.detach_keys,
            early=self.early,
            exit=self.exit,
        )

    def close(self) -> None:
        self.connection.close()
        for fd in self.sinks.values():
            os.close(fd)
        self.sinks.clear()

    def gone(self) -> bool:
        """Whether nobody is at the other end any more."""
        import select

        poller = select.poll()
        poller.register(self.connection, 0)
        return any(happened & (select.POLLHUP | select.POLLERR) for _, happened in poller.poll(0))


@dataclass(frozen=True)
class Outcome:
    """What a waiter gets. `error`: why a start failed; a run that has ended is told by its code alone,
    for docker's client takes any error for its own trouble (125).
    """

    exit_code: int
    error: str = ""

    def to_json(self) -> dict[str, object]:
        told: dict[str, object] = {"Error": {"Message": self.error}} if self.error else {}
        return {**told, "StatusCode": self.exit_code}


class Waiters:
    """Those who wait for one condition; each gets the outcome of the next time it is met."""

    def __init__(self) -> None:
        self._waiting: list[Waiter] = []

    def add(self) -> Waiter:
        waiter = Waiter(self)
        self._waiting.append(waiter)
        return waiter

    def release(self, outcome: Outcome) -> None:
        for waiter in self._waiting:
            waiter.outcome = outcome
            waiter.ready.set()
        self._waiting.clear()

    def forget(self, waiter: Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)


class Waiter:
    """One who waits; registered from the moment it exists."""

    def __init__(self, among: Waiters) -> None:
        self._among = among
        self.ready = trio.Event()
        self.outcome = Outcome(0)

    async def wait(self) -> Outcome:
        try:
            await self.ready.wait()
        finally:
            self._among.forget(self)
        return self.outcome


@dataclass
class Exec:
    """A process beside the container's own."""

    id: str
    container_id: str
    request: ExecCreate
    running: bool = False
    started: bool = False
    pid: int = 0
    exit_code: int | None = None
    console_size: tuple[int, int] | None = None
    over: trio.Event = field(default_factory=trio.Event)


@dataclass
class Container:
    record: Record
    state: State
    shim: Shim | None = None
    removing: bool = False
    unstarted: bool = False  # its last start has failed, in this daemon's time
    being_restarted: bool = False  # by a user: an exit now is not the end of a --rm container
    health: Health | None = None
    monitor: trio.CancelScope | None = None  # of the task that probes (supervisor.health)
    wish: tuple[bool, bool] | None = None  # what restart.json says (Folders.write_wish)
    back_off: trio.CancelScope | None = None  # the wait of a restarting one (supervisor.restart)
    pending: list[Client] = field(default_factory=list)
    execs: dict[str, Exec] = field(default_factory=dict)
    lock: trio.Lock = field(default_factory=trio.Lock)
    exits: Waiters = field(default_factory=Waiters)  # next-exit, not-running
    removals: Waiters = field(default_factory=Waiters)
    # Set while a start waits for what its shim says first.
    starting: trio.MemorySendChannel[object] | None = None

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def outcome(self) -> Outcome:
        failed = self.unstarted or self.state.status == "created"
        return Outcome(self.state.exit_code, self.state.error if failed else "")

    def take_pending(self) -> list[Client]:
        clients, self.pending = self.pending, []
        return clients

    def drop_pending(self) -> None:
        for client in self.take_pending():
            client.close()
