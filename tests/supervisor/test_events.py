"""The ring of events: docker's matching, and listeners of any speed."""

from __future__ import annotations

import json
import time

import pytest
import trio
import trio.testing

from dockpy.supervisor import events as module
from dockpy.supervisor.events import Event, Events, Overtaken, matches

VERSION = (1, 50)


def event(kind: str = "container", action: str = "start", **attributes: str) -> Event:
    return Event(kind, action, "0123456789abcdef", attributes, 5)


@pytest.mark.parametrize(
    ("happened", "filters", "shown"),
    [
        (event(), {"type": ("container",)}, True),
        (event(), {"type": ("image",)}, False),
        (event(action="exec_start: sh -c true"), {"event": ("exec_start",)}, True),
        (event(action="health_status: healthy"), {"event": ("health_status",)}, True),
        (event(action="health_status: healthy"), {"event": ("health_status: healthy",)}, True),
        (event(action="start"), {"event": ("sta",)}, False),
        (event(name="web-1"), {"container": ("web",)}, True),
        (event(name="web-1"), {"container": ("01234",)}, True),
        (event(name="web-1"), {"container": ("eb-1",)}, False),
        (event(image="debian:12"), {"image": ("debian",)}, True),
        (event(image="localhost:5000/a/b:1"), {"image": ("localhost:5000/a/b",)}, True),
        (event(image="debian:12"), {"image": ("debian:12",)}, True),
        (event(image="debian:12"), {"image": ("debian:11",)}, False),
        (event("image", "tag", name="debian:12"), {"image": ("debian",)}, True),
        (event(a="b"), {"label": ("a", "a=b")}, True),
        (event(a="b"), {"label": ("a", "c")}, False),
        (event(), {"scope": ("swarm",)}, False),
        (event("network", "connect", name="bridge"), {"network": ("bridge",)}, True),
        (event(), {"type": ("image", "container"), "event": ("die", "start")}, True),
    ],
)  # fmt: skip
def test_an_event_is_shown_where_docker_shows_it(
    happened: Event, filters: dict[str, tuple[str, ...]], shown: bool
) -> None:
    assert matches(happened, filters) is shown


def test_a_line_has_the_older_names_too() -> None:
    raw = json.loads(event(image="i", exitCode="3").line(VERSION))
    assert raw["status"] == raw["Action"] == "start"
    assert raw["from"] == "i"
    assert raw["id"] == raw["Actor"]["ID"] == "0123456789abcdef"
    assert raw["timeNano"] == 5


def test_the_past_is_bounded_by_both_times() -> None:
    events = Events()
    for number in range(module.REMEMBERED + 10):
        events.publish("container", "start", str(number), {})
    every = list(events.past(None, None))
    assert [one.id for one in every] == [str(n) for n in range(10, module.REMEMBERED + 10)]
    assert list(events.past(every[5].time, every[7].time)) == every[5:8]


async def _count(events: Events, wanted: int) -> int:
    listener = events.listen({}, VERSION)
    seen = 0
    try:
        while seen < wanted:
            seen += (await listener.next()).count(b"\n")
    finally:
        listener.close()
    return seen


def test_fifty_listeners_get_five_thousand_events_a_second_each_once() -> None:
    """In half of the time at most: the daemon has other things to do."""
    events = Events()
    seen: list[int] = []

    async def listen() -> None:
        seen.append(await _count(events, 5000))

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            before = time.thread_time()
            for _ in range(100):
                for _ in range(50):
                    events.publish("container", "start", "a" * 64, {"image": "i", "name": "n"})
                await trio.sleep(0.01)
        return time.thread_time() - before

    spent = trio.run(main)
    assert seen == [5000] * 50
    assert events.listeners == 0
    assert spent < 0.5


def test_a_listener_that_was_overtaken_is_told_so() -> None:
    events = Events()

    async def main() -> None:
        listener = events.listen({}, VERSION)
        for _ in range(module.REMEMBERED + 1):
            events.publish("container", "start", "a", {})
        with pytest.raises(Overtaken):
            await listener.next()
        listener.close()

    trio.run(main)


def test_a_filter_that_nothing_meets_keeps_waiting() -> None:
    events = Events()

    async def main() -> None:
        listener = events.listen({"event": ("die",)}, VERSION)
        events.publish("container", "start", "a", {})
        with trio.move_on_after(0.1) as scope:
            await listener.next()
        assert scope.cancelled_caught
        events.publish("container", "die", "a", {})
        assert (await listener.next()).count(b"\n") == 1
        listener.close()

    trio.run(main)
