"""Events over HTTP."""

from __future__ import annotations

import json
import time
import urllib.parse

from tests.daemon.conftest import Engine, parse


def events(engine: Engine, since: int, **filters: str) -> list[dict[str, object]]:
    wanted = urllib.parse.quote(json.dumps({key: [value] for key, value in filters.items()}))
    until = time.time_ns() // 10**9 + 1
    raw = engine.ask("GET", f"/events?since={since}&until={until}&filters={wanted}").body
    return [json.loads(line) for line in raw.splitlines()]


def test_the_past_is_told_and_until_ends_the_stream(engine: Engine) -> None:
    before = int(time.time())
    container = engine.run("true", Labels={"a": "b"})
    engine.wait(container)
    engine.ask("DELETE", f"/containers/{container}")
    told = events(engine, before, container=container)
    assert [event["Action"] for event in told] == ["create", "start", "die", "destroy"]
    actor = told[2]["Actor"]
    assert isinstance(actor, dict)
    name = actor["Attributes"].pop("name")
    assert int(actor["Attributes"].pop("execDuration")) < 60  # whole seconds
    assert actor["Attributes"] == {"a": "b", "image": "dockpy.builtin/host", "exitCode": "0"}
    assert [event["Action"] for event in events(engine, before, container=name, event="die")] == [
        "die"
    ]


def test_the_present_is_told_as_it_comes(engine: Engine) -> None:
    filters = urllib.parse.quote('{"event":{"exec_die":true}}')
    with engine.connect() as sock:
        sock.sendall(f"GET /events?filters={filters} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        head = sock.recv(4096)
        assert head.startswith(b"HTTP/1.1 200 ")
        container = engine.run("sleep", "60")
        created = engine.ask("POST", f"/containers/{container}/exec", {"Cmd": ["false"]}).json()
        assert isinstance(created, dict)
        engine.ask("POST", f"/exec/{created['Id']}/start", {"Detach": True})
        line = sock.recv(4096).partition(b"\r\n")[2]
        attributes = json.loads(line)["Actor"]["Attributes"]
        assert (attributes["execID"], attributes["exitCode"]) == (created["Id"], "1")


def test_a_past_until_ends_at_once(engine: Engine) -> None:
    answer = parse(
        engine.raw(b"GET /events?until=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    )
    assert (answer.status, answer.body) == (200, b"")


def test_a_client_that_leaves_is_forgotten(engine: Engine) -> None:
    def listeners() -> object:
        raw = engine.ask("GET", "/info").json()
        assert isinstance(raw, dict)
        return raw["NEventsListener"]

    with engine.connect() as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        sock.recv(4096)
        assert listeners() == 1
    deadline = time.monotonic() + 5
    while listeners() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert listeners() == 0
