"""What happens, told to whoever listens: the last 256 events, and a channel a listener."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import trio

REMEMBERED = 256  # docker's own number
# A listener that does not read for so many events is cut off, as in docker.
BACKLOG = 1024


@dataclass(frozen=True)
class Event:
    type: str
    action: str
    id: str
    attributes: Mapping[str, str]
    time: int  # nanoseconds

    def to_json(self, version: tuple[int, int]) -> dict[str, object]:
        result: dict[str, object] = {}
        if version < (1, 52) and self.type in ("container", "image"):
            result["status"], result["id"] = self.action, self.id
            if "image" in self.attributes:
                result["from"] = self.attributes["image"]
        result.update(
            Type=self.type,
            Action=self.action,
            Actor={"ID": self.id, "Attributes": dict(self.attributes)},
            scope="local",
            time=self.time // 1_000_000_000,
            timeNano=self.time,
        )
        return result


class Events:
    """Publishing never waits."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._listeners: set[trio.MemorySendChannel[Event]] = set()

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        event = Event(kind, action, actor, attributes, time.time_ns())
        self._recent.append(event)
        for listener in list(self._listeners):
            try:
                listener.send_nowait(event)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._listeners.discard(listener)
                listener.close()

    def since(self, nanoseconds: int) -> Iterator[Event]:
        return (event for event in list(self._recent) if event.time >= nanoseconds)

    def listen(self) -> trio.MemoryReceiveChannel[Event]:
        """Events from now on; closing the channel ends it."""
        send, receive = trio.open_memory_channel[Event](BACKLOG)
        self._listeners.add(send)
        return receive

    @property
    def listeners(self) -> int:
        return len(self._listeners)
