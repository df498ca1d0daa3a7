"""Every operation of the Engine API's document, with values near and far from right.

No error of ours (5xx), no traceback, no waiting, and a refusal has changed nothing. The long form (DOCKPY_TEST_LONG)
asks more often; a failure names the seed and the request.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.daemon.conftest import IMAGE, Answer, Engine, eventually, parse
from tests.daemon.fuzz import Fuzzer, Request, operations

LONG = bool(os.environ.get("DOCKPY_TEST_LONG"))
ROUNDS = 150 if LONG else 6
PATIENCE = 10.0  # seconds until an answer's head must be there
SCRIPT = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
NAMES = ("one", "two")
# What docker, too, answers with 500 or 503, in its own words.
DOCKERS_OWN = re.compile(
    r"is not paused|file name too long|connection refused|no such host|"
    r"This node is not a swarm manager"
)


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    folder = tempfile.mkdtemp(prefix="dockpy-")
    engine = Engine(folder)
    engine.start()
    yield engine
    engine.start()
    engine.stop()
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    whole: bool


def send(engine: Engine, request: Request) -> Reply:
    """The answer; of an endless one its beginning. AssertionError when no head comes."""
    with engine.connect() as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.sendall(request.bytes())
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered already
        data, whole = b"", True
        while True:
            try:
                part = sock.recv(1 << 16)
            except socket.timeout:
                assert b"\r\n\r\n" in data, f"no answer: {request}"
                whole = False
                break
            except ConnectionResetError:
                break
            data += part
            if not part or len(data) > 1 << 20:
                break
            if b"\r\n\r\n" in data:
                sock.settimeout(0.3)  # logs -f, events, attach: they have begun, that is enough
    assert data.startswith(b"HTTP/1.1 "), f"{data[:200]!r} answers {request}"
    status = int(data[9:12])
    if not whole or status == 101:
        return Reply(status, b"", False)
    answer: Answer = parse(data, request.method)
    return Reply(status, answer.body, True)


def state(engine: Engine) -> object:
    """All that a refusal must leave as it is. Health and times of running ones may move."""
    found: list[Any] = []
    containers = engine.ask("GET", "/containers/json?all=1").json()
    assert isinstance(containers, list)
    for row in sorted(containers, key=lambda row: str(row["Id"])):
        raw = engine.ask("GET", f"/containers/{row['Id']}/json").json()
        assert isinstance(raw, dict)
        raw.pop("ExecIDs", None)
        found.append(raw)
    images = engine.ask("GET", "/images/json?all=1").json()
    assert isinstance(images, list)
    found.append(sorted((image["Id"], image["RepoTags"]) for image in images))
    return json.loads(json.dumps(found))


def ready(engine: Engine) -> None:
    """Both containers run, whatever was done to them, others are gone, and the image has its name."""
    assert engine.ask("GET", f"/images/{IMAGE}/json").status == 200
    rows = engine.ask("GET", "/containers/json?all=1").json()
    assert isinstance(rows, list)
    by_name = {row["Names"][0][1:]: row for row in rows}
    for name, row in by_name.items():
        if name not in NAMES or row["State"] != "running":
            engine.ask("DELETE", f"/containers/{row['Id']}?force=1")
    for name in NAMES:
        if name not in by_name or by_name[name]["State"] != "running":
            engine.run("sh", "-c", SCRIPT, name=name)


def test_requests_near_and_far_from_right(own_engine: Engine) -> None:
    engine = own_engine
    ready(engine)
    image = engine.ask("GET", f"/images/{IMAGE}/json").json()
    assert isinstance(image, dict)
    daemon = engine.record()["daemon"]["pid"]
    made = engine.ask("POST", "/containers/one/exec", {"Cmd": ["true"]}).json()
    assert isinstance(made, dict)
    known = {
        "containers": NAMES,
        "images": (IMAGE, str(image["Id"]), str(image["Id"])[7:19]),
        "exec": (str(made["Id"]),),
        "networks": ("none", "host", "bridge"),
    }
    before = state(engine)
    for seed in range(ROUNDS):
        fuzzer = Fuzzer(seed, known)
        for operation in operations():
            request = fuzzer.request(operation)
            reply = send(engine, request)
            what = f"seed {seed}: {reply.status} {reply.body[:300]!r} answers {request}"
            known_fault = DOCKERS_OWN.search(reply.body.decode(errors="replace"))
            assert reply.status < 500 or reply.status == 501 or known_fault, what
            if reply.status >= 400:
                if reply.whole and request.method != "HEAD":
                    raw = json.loads(reply.body)
                    assert set(raw) == {"message"} and raw["message"], what
                    assert "Traceback" not in raw["message"], what
                after = state(engine)
                assert after == before, f"a refusal has changed something; {what}"
            elif request.method not in ("GET", "HEAD"):
                if operation["path"].endswith("/kill"):
                    time.sleep(0.3)  # a signal is sent, and what comes of it comes later
                ready(engine)
                before = state(engine)
    assert engine.record()["daemon"]["pid"] == daemon, "it has ended meanwhile"
    with open(engine.paths.daemon_log, encoding="utf-8", errors="replace") as file:
        log = file.read()
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
    eventually(lambda: descriptors(daemon) < 60)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_bodies_that_never_end_or_never_come(own_engine: Engine) -> None:
    """Half-open, slow, oversized and pipelined: bounded in memory, and others are served meanwhile."""
    engine = own_engine
    daemon = engine.record()["daemon"]["pid"]
    held = []
    for _ in range(200):
        sock = engine.connect()
        sock.sendall(b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Le")
        held.append(sock)
    for _ in range(20):
        sock = engine.connect()
        sock.sendall(
            b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 999999999999\r\n\r\n{"
        )
        held.append(sock)
    begun = time.monotonic()
    assert engine.ask("GET", "/_ping").status == 200
    assert time.monotonic() - begun < 5
    for sock in held:
        sock.close()
    eventually(lambda: descriptors(daemon) < 60)

    before = resident(daemon)
    with engine.connect() as sock:
        sock.sendall(
            b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        try:
            for _ in range(256):
                sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            answer = sock.recv(4096)
        except ConnectionResetError:
            pass
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    assert resident(daemon) - before < 64 << 20
    for line in (b"G" * 200_000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000):
        with engine.connect() as sock:
            try:
                sock.sendall(line + b"\r\n\r\n")
                said = sock.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                continue
            assert said.startswith(b"HTTP/1.1 4"), said

    many = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n" * 500
    with engine.connect() as sock:
        sock.sendall(many + b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        got = b""
        while True:
            part = sock.recv(1 << 16)
            if not part:
                break
            got += part
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 501


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
