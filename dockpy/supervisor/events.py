"""What happens, told to whoever listens: a ring of the last events, and a place in it for each listener.

A listener owns no queue: it reads the ring from where it stands, whole batches at once, as lines that
are encoded once for all. So a slow one costs nothing but its place, and one that the ring has overtaken
is cut off. Matching is docker's, also where it is odd: names are compared by prefix and whatever the
event's type, actions only of exec_create, exec_start and health_status.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import trio

from dockpy.errors import DockpyError
from dockpy.oci.reference import parse_reference

# Of the past, for `since`, and of the present, for slow listeners (docker keeps 256, and 1024 a listener).
REMEMBERED = 2048
# A listener that has just been told something waits for this boundary of the clock, seconds, before it
# looks again: at thousands of events a second that is what the daemon's time goes into.
BEAT = 0.025

Filters = Mapping[str, tuple[str, ...]]

FUZZY_ACTIONS = frozenset(("exec_create", "exec_start", "health_status"))


class Overtaken(DockpyError):
    """A listener that has not read for so long that events it should get are no longer there."""


@dataclass(frozen=True)
class Event:
    type: str
    action: str
    id: str
    attributes: Mapping[str, str]
    time: int  # nanoseconds
    lines: dict[bool, bytes] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self, version: tuple[int, int]) -> dict[str, object]:
        result: dict[str, object] = {}
        if version < (1, 52) and self.type in ("container", "image"):
            result["status"], result["id"] = self.action, self.id
            if "image" in self.attributes:
                result["from"] = self.attributes["image"]
        result.update(
            Type=self.type,
            Action=self.action,
            Actor={"ID": self.id, "Attributes": dict(sorted(self.attributes.items()))},
            scope="local",
            time=self.time // 1_000_000_000,
            timeNano=self.time,
        )
        return result

    def line(self, version: tuple[int, int]) -> bytes:
        old = version < (1, 52)
        known = self.lines.get(old)
        if known is None:
            known = json.dumps(self.to_json(version), separators=(",", ":")).encode() + b"\n"
            self.lines[old] = known
        return known


class Events:
    """Publishing never waits."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._published = 0
        self._news = trio.Event()
        self._awaited = False
        # Listeners wake at the same beat and mostly want the same: the batch of the last one who asked.
        self._batches: dict[tuple[object, ...], bytes] = {}
        self.listeners = 0

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        self._recent.append(Event(kind, action, actor, attributes, time.time_ns()))
        self._published += 1
        if self._batches:
            self._batches.clear()
        if self._awaited:
            self._awaited = False
            self._news.set()
            self._news = trio.Event()

    def past(self, since: int | None, until: int | None) -> Iterator[Event]:
        """Those of the ring between two times in ns, both included."""
        return (
            event
            for event in list(self._recent)
            if (since is None or event.time >= since) and (until is None or event.time <= until)
        )

    def listen(self, filters: Filters, version: tuple[int, int]) -> Listener:
        """From now on; `close` it."""
        return Listener(self, filters, version)

    @property
    def published(self) -> int:
        return self._published

    async def news(self, position: int) -> None:
        """Returns once there is something beyond `position`."""
        while self._published <= position:
            self._awaited = True
            await self._news.wait()

    def batch(self, position: int, filters: Filters, version: tuple[int, int]) -> bytes:
        """The lines beyond `position`; Overtaken when some of them are lost."""
        key = (position, version < (1, 52), tuple(sorted(filters.items())))
        known = self._batches.get(key)
        if known is not None:
            return known
        skipped = len(self._recent) - (self._published - position)
        if skipped < 0:
            raise Overtaken("events were published faster than this client read them")
        found = itertools.islice(self._recent, skipped, None)
        lines = b"".join(event.line(version) for event in found if matches(event, filters))
        self._batches[key] = lines
        return lines


class Listener:
    def __init__(self, events: Events, filters: Filters, version: tuple[int, int]) -> None:
        self._events = events
        self._filters = filters
        self._version = version
        self._position = events.published
        events.listeners += 1

    async def next(self) -> bytes:
        """The next lines, at least one; Overtaken when there was too much."""
        while True:
            if self._events.published > self._position:
                # There is a backlog already: whoever reads it a beat later reads more at once.
                now = trio.current_time()
                await trio.sleep_until((now // BEAT + 1) * BEAT)
            else:
                await self._events.news(self._position)
            lines = self._events.batch(self._position, self._filters, self._version)
            self._position = self._events.published
            if lines:
                return lines

    def close(self) -> None:
        self._events.listeners -= 1


def matches(event: Event, filters: Filters) -> bool:
    """Whether docker would show it: all keys, any value of a key (labels: all)."""
    return all(_matches(event, key, values) for key, values in filters.items())


def _matches(event: Event, key: str, values: tuple[str, ...]) -> bool:
    attributes = event.attributes
    if key == "type":
        return event.type in values
    if key == "event":
        if FUZZY_ACTIONS.isdisjoint(values):
            return event.action in values
        return event.action.startswith(values)
    if key == "scope":
        return "local" in values
    if key == "image":
        name = attributes.get("name" if event.type == "image" else "image", "")
        return not {event.id, name, _untagged(event.id), _untagged(name)}.isdisjoint(values)
    if key == "label":
        for value in values:
            label, equals, wanted = value.partition("=")
            if label not in attributes or (equals and attributes[label] != wanted):
                return False
        return True
    return event.id.startswith(values) or attributes.get("name", "").startswith(values)


def _untagged(name: str) -> str:
    """docker's familiar name, without the tag."""
    if not name:
        return name
    try:
        return parse_reference(name).familiar_name
    except DockpyError:
        return name
