"""Many clients that do at random what can be done to few containers: no deadlock, no leak, no odd answer.

A short form always runs; with DOCKPY_TEST_LONG it is two hundred clients on thirty containers for two minutes.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import Answer, Engine, eventually

LONG = bool(os.environ.get("DOCKPY_TEST_LONG"))
CLIENTS, CONTAINERS, SECONDS = (200, 30, 120.0) if LONG else (24, 6, 6.0)
SCRIPT = "trap 'exit 0' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done"
# An answer's head and body together; on two cores two hundred wait for one another.
PATIENCE = 90.0


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    folder = tempfile.mkdtemp(prefix="dockpy-")
    engine = Engine(folder, PATIENCE)
    engine.start()
    yield engine
    engine.start()
    engine.stop()
    shutil.rmtree(folder, ignore_errors=True)


class Client(threading.Thread):
    """Asks until `end`; what no docker would have answered is in `wrong`."""

    def __init__(self, engine: Engine, seed: int, end: float) -> None:
        super().__init__()
        self._engine = engine
        self._random = random.Random(seed)
        self._end = end
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.now = ""

    def run(self) -> None:
        while time.monotonic() < self._end:
            verb, allowed = self._random.choice(VERBS)
            self.now = verb.__name__
            try:
                answer = verb(self)
            except Exception as error:  # told in the main thread
                self.wrong.append(f"{verb.__name__}: {error!r}")
                return
            self.done[f"{verb.__name__} {answer.status}"] += 1
            if answer.status not in allowed:
                self.wrong.append(f"{verb.__name__}: {answer.status} {answer.body[:300]!r}")
        self.now = ""

    def name(self) -> str:  # type: ignore[override]  # the thread's own is never asked for
        return f"crowd{self._random.randrange(CONTAINERS)}"

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        return self._engine.ask(method, path, body)

    def to(self, method: str, rest: str, body: object = None) -> Answer:
        return self.ask(method, f"/containers/{self.name()}{rest}", body)

    def choice(self, *texts: str) -> str:
        return self._random.choice(texts)


def start(client: Client) -> Answer:
    return client.to("POST", "/start")


def stop(client: Client) -> Answer:
    return client.to("POST", f"/stop?t={client.choice('0', '1')}")


def restart(client: Client) -> Answer:
    return client.to("POST", "/restart?t=0")


def kill(client: Client) -> Answer:
    return client.to("POST", f"/kill?signal={client.choice('KILL', 'TERM', 'USR1')}")


def pause(client: Client) -> Answer:
    return client.to("POST", "/pause")


def unpause(client: Client) -> Answer:
    return client.to("POST", "/unpause")


def remove(client: Client) -> Answer:
    return client.ask("DELETE", f"/containers/{client.name()}?force={client.choice('0', '1')}")


def create(client: Client) -> Answer:
    body = {
        "Image": "dockpy.builtin/host",
        "Cmd": ["sh", "-c", SCRIPT],
        "HostConfig": {
            "NetworkMode": "none",
            "RestartPolicy": {"Name": client.choice("no", "on-failure", "always")},
        },
    }
    return client.ask("POST", f"/containers/create?name={client.name()}", body)


def inspect(client: Client) -> Answer:
    return client.to("GET", "/json")


def listed(client: Client) -> Answer:
    return client.ask("GET", "/containers/json?all=1&size=1")


def logs(client: Client) -> Answer:
    return client.to("GET", "/logs?stdout=1&tail=20")


def top(client: Client) -> Answer:
    return client.to("GET", "/top")


def stats(client: Client) -> Answer:
    return client.to("GET", "/stats?stream=0&one-shot=1")


def rename(client: Client) -> Answer:
    return client.to("POST", f"/rename?name={client.name()}")


def update(client: Client) -> Answer:
    policy = {"RestartPolicy": {"Name": client.choice("no", "unless-stopped")}}
    return client.to("POST", "/update", policy)


def changes(client: Client) -> Answer:
    return client.to("GET", "/changes")


def read_file(client: Client) -> Answer:
    return client.to("GET", "/archive?path=/etc/hostname")


def write_file(client: Client) -> Answer:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("crowd")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"crowd"))
    return client.to("PUT", "/archive?path=/tmp", buffer.getvalue())


def execute(client: Client) -> Answer:
    made = client.to("POST", "/exec", {"Cmd": ["echo", "hello"], "AttachStdout": True})
    if made.status != 201:
        return made
    identifier = json.loads(made.body)["Id"]
    return client.ask("POST", f"/exec/{identifier}/start", {"Detach": False})


def events(client: Client) -> Answer:
    now = time.time()
    return client.ask("GET", f"/events?since={now - 1:.3f}&until={now:.3f}")


# What docker may answer to each: the container is gone, runs already, is paused, its name is taken …
VERBS: tuple[tuple[Callable[[Client], Answer], tuple[int, ...]], ...] = (
    (start, (204, 304, 404, 409)),
    (start, (204, 304, 404, 409)),
    (stop, (204, 304, 404, 409)),
    (restart, (204, 404, 409)),
    (kill, (204, 404, 409)),
    (pause, (204, 404, 409)),
    (unpause, (204, 404, 409, 500)),  # 500: docker's, for one that is not paused
    (unpause, (204, 404, 409, 500)),
    (remove, (204, 404, 409)),
    (create, (201, 409)),
    (create, (201, 409)),
    (inspect, (200, 404)),
    (listed, (200,)),
    (logs, (200, 404, 409)),
    (top, (200, 404, 409)),
    (stats, (200, 404)),
    (rename, (204, 400, 404, 409)),
    (update, (200, 404, 409)),
    (changes, (200, 404, 409)),
    (read_file, (200, 404, 409)),
    (write_file, (200, 404, 409)),
    (execute, (200, 201, 404, 409)),
    (events, (200,)),
)


def left(engine: Engine) -> dict[str, int]:
    """What grows when something leaks."""
    raw = engine.ask("GET", "/dockpy/status").json()
    assert isinstance(raw, dict)
    rows = raw["processes"]
    daemon, keeper = (
        next(row["pid"] for row in rows if row["role"] == role) for role in ("daemon", "keeper")
    )
    store = Path(engine.paths.store)
    return {
        "processes": len(rows),
        "mounts": len(Path(f"/proc/{daemon}/mountinfo").read_text().splitlines()),
        "descriptors of the daemon": len(os.listdir(f"/proc/{daemon}/fd")),
        "descriptors of the keeper": len(os.listdir(f"/proc/{keeper}/fd")),
        "containers": len(list((store / "containers").iterdir())),
        "trees": len(list((store / "snapshots/active").iterdir())),
        "temporary files": len(list((store / "tmp").iterdir())),
        "net namespaces": len({os.readlink(path) for path in ns_of(rows)}),
    }


def ns_of(rows: list[dict[str, int]]) -> Iterator[str]:
    for row in rows:
        path = f"/proc/{row['pid']}/ns/net"
        if os.path.exists(path):
            yield path


def test_a_crowd_of_clients(own_engine: Engine) -> None:
    engine = own_engine
    engine.run("true", name="first")  # the image is made
    engine.ask("DELETE", "/containers/first?force=1")
    before = left(engine)
    end = time.monotonic() + SECONDS
    clients = [Client(engine, seed, end) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        _join(client, engine, end)
    wrong = [text for client in clients for text in client.wrong]
    assert not wrong, "\n".join(wrong[:20])
    done = sum((client.done for client in clients), Counter[str]())
    assert not LONG or all(
        any(f"{verb.__name__} {status}" in done for status in (200, 201, 204)) for verb, _ in VERBS
    )

    rows = engine.ask("GET", "/containers/json?all=1").json()
    assert isinstance(rows, list)
    for row in rows:  # each has come to rest in a state that can be told, and can be removed
        assert row["State"] in ("created", "running", "paused", "exited", "restarting"), row
        removed = engine.ask("DELETE", f"/containers/{row['Id']}?force=1")
        assert removed.status in (204, 404), removed.body
    eventually(lambda: not grown(before, left(engine)), 20)
    with open(engine.paths.daemon_log, encoding="utf-8", errors="replace") as file:
        log = file.read()
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]


def _join(client: Client, engine: Engine, end: float) -> None:
    """What a pause met in the middle (an exec, say) waits for an unpause, and the last one may have been."""
    client.join(max(0.0, end - time.monotonic()))
    while client.is_alive() and time.monotonic() < end + PATIENCE:
        for number in range(CONTAINERS):
            engine.ask("POST", f"/containers/crowd{number}/unpause")
        client.join(1.0)
    assert not client.is_alive(), f"{client.now} does not end"


def grown(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {key: now[key] for key in now if now[key] > before[key] + 2 * ("descr" in key)}
