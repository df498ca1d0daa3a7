"""Pulls through a real daemon: what it says on the wire, and what a kill or a hang-up at each stage leaves."""

from __future__ import annotations

import base64
import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import Engine, eventually, kill
from tests.images.archives import MACHINE, sha256, tar_of
from tests.registry.toy import Handler, Toy, first, serving


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving(Toy()) as served:
        yield served


def put(toy: Toy, *contents: bytes) -> list[bytes]:
    plain = [tar_of([("etc", None), (f"etc/{n}", data)]) for n, data in enumerate(contents)]
    diff_ids = [sha256(one) for one in plain]
    packed = [gzip.compress(one, 1) for one in plain]
    config = {
        "architecture": MACHINE,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    toy.put_image(packed, diff_ids, "latest", config=config)
    return packed


def pull(engine: Engine, toy: Toy, name: str) -> list[dict[str, object]]:
    answer = engine.ask("POST", f"/images/create?fromImage={toy.host}/{name}&tag=latest")
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def known(engine: Engine, name: str) -> bool:
    return engine.ask("GET", f"/images/{name}/json").status == 200


class Gate:
    """Answers the first request half, and then nothing until the other side is gone."""

    def __init__(self, sent: int = 0) -> None:
        self.reached = threading.Event()
        self._sent = sent

    def __call__(self, handler: Handler) -> None:
        data = handler.toy.blobs.get(handler.path.rpartition("/")[2], b"")
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) or 100))
        handler.end_headers()
        handler.wfile.write(data[: self._sent])
        handler.wfile.flush()
        time.sleep(0.1)  # what was sent is read and written down meanwhile
        self.reached.set()
        handler.rfile.read(1)
        handler.hang_up()


def test_progress_and_failures_on_the_wire(engine: Engine, toy: Toy) -> None:
    [packed] = put(toy, b"x" * 1000)
    toy.token_realm = f"{toy.url}/token"
    auth = base64.urlsafe_b64encode(b'{"username":"me","password":"secret"}').decode()
    request = f"/images/create?fromImage={toy.host}/wire&tag=latest"
    head = f"POST {request} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nX-Registry-Auth: {auth}\r\n\r\n"
    answer = engine.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'{"status":"Pulling from wire","id":"latest"}\r\n' in answer
    short = sha256(packed)[7:19].encode()
    assert b'{"status":"Pulling fs layer","progressDetail":{},"id":"' + short + b'"}\r\n' in answer
    toy.token_realm = ""
    described = engine.ask("GET", f"/distribution/{toy.host}/wire:latest/json").json()
    assert isinstance(described, dict)
    assert described["Descriptor"]["digest"] == sha256(toy.manifests["latest"][1])
    assert described["Platforms"] == [{"architecture": MACHINE, "os": "linux"}]
    missing = engine.ask("POST", f"/images/create?fromImage={toy.host}/wire&tag=nope")
    assert missing.status == 404
    assert missing.message.startswith(f"manifest for {toy.host}/wire:nope not found: manifest unkn")
    toy.blobs.pop(sha256(put(toy, b"gone")[0]))
    late = pull(engine, toy, "wire")
    assert late[-1]["error"] == "blob unknown: blob unknown to registry"
    engine.ask("DELETE", f"/images/{toy.host}/wire:latest")


@pytest.mark.parametrize("stage", ["manifest", "config", "layer"])
def test_a_daemon_killed_in_a_pull_leaves_no_image_and_its_next_goes_on(
    engine: Engine, toy: Toy, stage: str
) -> None:
    [packed] = put(toy, os.urandom(2_000_000))
    config = next(name for name in toy.blobs if name != sha256(packed))
    gate = Gate(1_200_000 if stage == "layer" else 0)
    pieces = {"manifest": "/manifests/", "config": config, "layer": sha256(packed)}
    toy.lies[pieces[stage]] = first(1, gate)
    name = f"{toy.host}/cut-{stage}:latest"
    asking = threading.Thread(target=_asking, args=(engine, name), daemon=True)
    asking.start()
    assert gate.reached.wait(10)
    kill(engine.record()["daemon"]["pid"])
    asking.join(10)
    engine.start()
    assert not known(engine, name)
    lines = pull(engine, toy, f"cut-{stage}")
    assert str(lines[-1]["status"]).startswith("Status: Downloaded newer image")
    assert known(engine, name)
    again = [seen.headers.get("Range", "") for seen in toy.asked(sha256(packed))][-1]
    assert again.startswith("bytes=") == (stage == "layer")
    engine.ask("DELETE", f"/images/{name}")


def _asking(engine: Engine, name: str) -> None:
    with engine.connect() as sock:
        query = f"fromImage={name.rpartition(':')[0]}&tag=latest"
        sock.sendall(f"POST /images/create?{query} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        try:
            while sock.recv(65536):
                pass
        except OSError:
            return


def test_a_client_that_hangs_up_ends_its_pull(engine: Engine, toy: Toy) -> None:
    [packed] = put(toy, os.urandom(2_000_000))
    gate = Gate(1_200_000)
    toy.lies[sha256(packed)] = first(1, gate)
    with engine.connect() as sock:
        query = f"fromImage={toy.host}/hung&tag=latest"
        sock.sendall(f"POST /images/create?{query} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        assert gate.reached.wait(10)
    partial = Path(engine.paths.images, "partial")
    eventually(lambda: _written(partial, sha256(packed)) > 0)
    assert not known(engine, f"{toy.host}/hung:latest")
    pull(engine, toy, "hung")
    assert toy.asked(sha256(packed))[-1].headers["Range"].startswith("bytes=")
    assert not os.listdir(partial)
    engine.ask("DELETE", f"/images/{toy.host}/hung:latest")


def _written(folder: Path, digest: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{digest.replace(':', '-')}.*"))
