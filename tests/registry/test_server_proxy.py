"""The pull-through cache: what it asks its upstream, what it keeps, and what it does when that one lies or is away."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.house.sources import TOP
from tests.registry.serving import OCI_MANIFEST, Answer, Serving, digest_of
from tests.registry.toy import Handler, Toy, always, cut_after, serving


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Toy, Serving]]:
    with serving(Toy()) as toy:
        cache = Serving(tmp_path_factory.mktemp("cache") / "store", f"--proxy={toy.url}")
        yield toy, cache
        assert cache.stop() == 0
        assert "Traceback" not in cache.errors


@pytest.fixture
def toy(pair: tuple[Toy, Serving]) -> Toy:
    """An upstream that has nothing yet, and is honest."""
    toy = pair[0]
    for kept in (toy.blobs, toy.manifests, toy.lies, toy.seen):
        kept.clear()
    toy.ranges = True
    return toy


@pytest.fixture
def cache(pair: tuple[Toy, Serving], name: str) -> Repository:
    return Repository(pair[1], name)


class Repository:
    """One of a cache."""

    def __init__(self, cache: Serving, name: str = "a") -> None:
        self.ask = cache.ask
        self.port = cache.port
        self.path = f"/v2/{name}"

    def manifest(self, reference: str, method: str = "GET") -> Answer:
        return self.ask(method, f"{self.path}/manifests/{reference}")

    def blob(self, digest: str, **headers: str) -> Answer:
        return self.ask("GET", f"{self.path}/blobs/{digest}", headers=headers)


def test_what_came_once_is_not_asked_for_again(toy: Toy, cache: Repository) -> None:
    layer = os.urandom(3 << 20)
    digest = toy.put_image([layer], [], "latest")
    for _ in range(2):
        for reference in ("latest", digest):
            answer = cache.manifest(reference)
            assert (answer.status, digest_of(answer.body)) == (200, digest)
            assert answer.headers["docker-content-digest"] == digest
            assert answer.headers["content-type"] == OCI_MANIFEST
        assert cache.blob(digest_of(layer)).body == layer
    assert len(toy.asked(f"/manifests/{digest}", "GET")) == 1
    assert len(toy.asked("/manifests/latest", "GET")) == 0
    assert len(toy.asked("/manifests/latest", "HEAD")) == 2
    assert len(toy.asked("/blobs/")) == 1  # its size stood in the manifest


def test_what_is_kept_is_served_while_the_upstream_is_away(tmp_path: Path) -> None:
    upstream = Serving(tmp_path / "upstream")
    digest = upstream.push_image("a", "latest")
    upstream.push_image("a", "other", b"another")
    running = Serving(tmp_path / "store", f"--proxy=http://{upstream.address}")
    cache = Repository(running)
    try:
        assert cache.blob(digest_of(b"layer")).body == b"layer"
        assert cache.manifest("latest").headers["docker-content-digest"] == digest
        assert cache.ask("GET", "/v2/a/tags/list").json()["tags"] == ["latest", "other"]
        upstream.kill()
        begun = time.monotonic()
        assert cache.manifest("latest").headers["docker-content-digest"] == digest
        assert cache.manifest("latest", "HEAD").status == 200
        assert cache.blob(digest_of(b"layer")).body == b"layer"
        assert cache.ask("GET", "/v2/a/tags/list").json()["tags"] == ["latest"]
        assert cache.ask("GET", "/v2/_catalog").json()["repositories"] == ["a"]
        for answer in (cache.manifest("other"), cache.blob(digest_of(b"another"))):
            assert (answer.status, answer.code) == (502, "UNKNOWN")
        assert time.monotonic() - begun < 5  # it is not asked each time
    finally:
        assert running.stop() == 0
        upstream.stop()
    assert "is served as it was" in running.errors


def test_a_tag_that_moves_is_followed(toy: Toy, cache: Repository) -> None:
    for content in (b"one", b"two", b"one"):
        digest = toy.put_image([content], [], "latest")
        assert cache.manifest("latest").headers["docker-content-digest"] == digest
    assert len(toy.asked("/manifests/sha256", "GET")) == 2
    toy.manifests.clear()
    answer = cache.manifest("latest")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


def test_what_the_upstream_has_not(toy: Toy, cache: Repository) -> None:
    assert cache.manifest("none").code == "MANIFEST_UNKNOWN"
    answer = cache.blob(digest_of(b"none"))
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
    data = b"of no manifest"
    assert cache.blob(toy.put_blob(data)).body == data
    assert (
        cache.ask("HEAD", f"{cache.path}/blobs/{toy.put_blob(b'four')}").headers["content-length"]
        == "4"
    )


def test_nothing_can_be_pushed(cache: Repository) -> None:
    for method, path in (("POST", "/v2/a/blobs/uploads/"), ("DELETE", "/v2/a/manifests/x")):
        answer = cache.ask(method, path)
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")


def test_many_clients_at_once_cost_the_upstream_one_download(toy: Toy, cache: Repository) -> None:
    data = os.urandom(4 << 20)
    digest = toy.put_blob(data)

    def slowly(handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.answer(200, data)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: 2 << 20])
        time.sleep(0.3)
        handler.wfile.write(data[2 << 20 :])

    toy.lies["/blobs/"] = slowly
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda _: cache.blob(digest), range(6)))
    assert all(answer.body == data for answer in answers)
    assert len(toy.asked("/blobs/", "GET")) == 1
    part = cache.blob(digest, Range="bytes=5-9")
    assert (part.status, part.body) == (206, data[5:10])


def test_a_client_that_hangs_up_does_not_stop_what_is_coming(toy: Toy, cache: Repository) -> None:
    data = os.urandom(3 << 20)
    digest = toy.put_blob(data)
    go_on = threading.Event()

    def in_two_parts(handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.answer(200, data)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: 2 << 20])
        go_on.wait(10)
        handler.wfile.write(data[2 << 20 :])

    toy.lies["/blobs/"] = in_two_parts
    with socket.create_connection(("127.0.0.1", cache.port)) as sock:
        sock.sendall(f"GET {cache.path}/blobs/{digest} HTTP/1.1\r\nHost: c\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    go_on.set()
    assert cache.blob(digest).body == data
    assert len(toy.asked("/blobs/", "GET")) == 1


def test_a_cut_download_goes_on_where_it_was(toy: Toy, cache: Repository) -> None:
    data = os.urandom(3 << 20)
    digest = toy.put_image([data], [], "latest")
    cache.manifest("latest")
    for ranges in (True, False):
        toy.ranges = ranges
        toy.lies["/blobs/"] = cut_after(1 << 20)
        assert cache.blob(digest_of(data)).body == data
        asked = toy.asked("/blobs/", "GET")
        assert asked[-1].headers["Range"] == f"bytes={1 << 20}-"
        data = os.urandom(3 << 20)
        toy.lies.clear()
        digest = toy.put_image([data], [], "latest")
        cache.manifest(digest)


def test_a_blob_that_is_not_what_it_should_be_arrives_torn_and_is_not_kept(
    toy: Toy, cache: Repository
) -> None:
    data = os.urandom(2 << 20)
    toy.put_image([data], [], "latest")
    cache.manifest("latest")
    digest = digest_of(data)
    toy.blobs[digest] = data[:-1] + bytes([data[-1] ^ 1])
    assert len(torn(cache, digest)) < len(data)
    toy.blobs[digest] = data + b"more"
    assert cache.blob(digest).status == 502
    toy.blobs[digest] = data
    assert cache.blob(digest).body == data


def torn(cache: Repository, digest: str) -> bytes:
    """What arrives of a body before the connection ends."""
    with socket.create_connection(("127.0.0.1", cache.port), timeout=10) as sock:
        sock.sendall(f"GET {cache.path}/blobs/{digest} HTTP/1.1\r\nHost: c\r\n\r\n".encode())
        answer = b""
        while part := sock.recv(1 << 16):
            answer += part
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("piece", "status", "answer"),
    [
        ("/manifests/", 502, always(200, b"<html>", "text/html")),
        ("/manifests/", 502, always(200, b"{}", OCI_MANIFEST)),
        ("/manifests/", 502, always(500)),
        ("/manifests/", 403, always(403)),
        ("/blobs/", 502, always(500)),
        ("/blobs/", 429, always(429)),
        ("/blobs/", 403, always(401)),
        ("/blobs/", 502, always(200, b"shorter", "application/octet-stream")),
    ],
    ids=range(8),
)
def test_an_upstream_s_nonsense_is_an_error_and_nothing_is_kept(
    toy: Toy, cache: Repository, piece: str, status: int, answer: object
) -> None:
    digest = toy.put_image([b"layer"], [], "latest")
    if piece == "/blobs/":
        cache.manifest("latest")
    toy.lies[piece] = answer  # type: ignore[assignment]  # a Lie
    asked = cache.manifest(digest) if piece == "/manifests/" else cache.blob(digest_of(b"layer"))
    assert (asked.status, list(asked.json())) == (status, ["errors"])
    toy.lies.clear()
    assert cache.manifest(digest).status == 200
    assert cache.blob(digest_of(b"layer")).body == b"layer"


def test_the_person_s_credentials_reach_the_upstream_and_nobody_s_eyes(tmp_path: Path) -> None:
    with serving(Toy(basic=True)) as toy:
        toy.put_image([b"layer"], [], "latest")
        auth = base64.b64encode(toy.user.encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {toy.host: {"auth": auth}}}))
        for flag, environ in (
            (f"--proxy=http://{toy.user}@{toy.host}", {}),
            (f"--proxy=http://{toy.host}", {"DOCKER_CONFIG": str(tmp_path)}),
        ):
            running = Serving(tmp_path / f"store{len(environ)}", flag, **environ)
            try:
                assert Repository(running).manifest("latest").status == 200
                words = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
                assert b"secret" not in words
            finally:
                running.stop()
        running = Serving(tmp_path / "store2", f"--proxy=http://{toy.host}", DOCKER_CONFIG="/no")
        try:
            answer = Repository(running).manifest("latest")
            assert (answer.status, answer.code) == (403, "DENIED")
        finally:
            running.stop()


def test_a_cache_that_is_killed_in_the_middle_begins_again(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    with serving(Toy()) as toy:
        toy.put_image([data], [], "latest")
        digest = digest_of(data)
        running = Serving(tmp_path / "store", f"--proxy={toy.url}")
        Repository(running).manifest("latest")  # so that nobody has to ask for the blob's size
        toy.lies["/blobs/"] = cut_after(2 << 20, seconds=1)
        with ThreadPoolExecutor(1) as client:
            asked = client.submit(torn, Repository(running), digest)
            end = time.monotonic() + 10
            while not any(path.stat().st_size for path in tmp_path.glob("store/uploads/*/data")):
                assert time.monotonic() < end
                time.sleep(0.02)
            running.kill()
            assert len(asked.result()) < len(data)
        running.start()
        try:
            toy.lies.clear()
            assert os.listdir(tmp_path / "store/uploads") == []
            assert Repository(running).blob(digest).body == data
        finally:
            assert running.stop() == 0


def test_evict_forgets_what_nobody_asks_for(tmp_path: Path) -> None:
    with serving(Toy()) as toy:
        layer = b"old layer"
        toy.put_image([layer], [], "latest")
        running = Serving(tmp_path / "store", f"--proxy={toy.url}")
        Repository(running).manifest("latest")
        Repository(running).blob(digest_of(layer))
        running.stop()
        hexes = digest_of(layer).partition(":")[2]
        mark = tmp_path / f"store/repositories/a/_blobs/sha256/{hexes}"
        os.utime(mark, (0, 0))
        running.start()
        try:
            end = time.monotonic() + 10
            while mark.exists():
                assert time.monotonic() < end
                time.sleep(0.02)
            assert not (tmp_path / f"store/blobs/sha256/{hexes}").exists()
            assert Repository(running).blob(digest_of(layer)).body == layer
        finally:
            running.stop()


def test_a_limit_forgets_what_nobody_has_asked_for_longest(tmp_path: Path) -> None:
    with serving(Toy()) as toy:
        layers = [os.urandom(40_000) for _ in range(4)]
        marks = []
        for number, layer in enumerate(layers):
            toy.put_image([layer], [], f"v{number}")
            hexes = digest_of(layer).partition(":")[2]
            marks.append(tmp_path / f"store/repositories/a/_blobs/sha256/{hexes}")
        running = Serving(tmp_path / "store", f"--proxy={toy.url}", "--limit=100k")
        try:
            for number in (0, 1):
                assert Repository(running).manifest(f"v{number}").status == 200
                assert Repository(running).blob(digest_of(layers[number])).body == layers[number]
            os.utime(marks[0], (1e9, 1e9))
            os.utime(marks[1], (1e9 - 1, 1e9 - 1))
            assert Repository(running).blob(digest_of(layers[1])).body == layers[1]  # used again
            for number, left in ((2, [1, 2]), (3, [2, 3])):
                assert Repository(running).manifest(f"v{number}").status == 200
                assert Repository(running).blob(digest_of(layers[number])).body == layers[number]
                end = time.monotonic() + 10
                while [n for n, mark in enumerate(marks) if mark.exists()] != left:
                    assert time.monotonic() < end
                    time.sleep(0.02)
            kept = sum(one.stat().st_size for one in (tmp_path / "store/blobs/sha256").iterdir())
            assert kept <= 100 << 10
            assert Repository(running).manifest("v0").status == 200
            assert Repository(running).blob(digest_of(layers[0])).body == layers[0]
        finally:
            running.stop()


def test_a_blob_beyond_the_limit_is_served_and_the_next_takes_its_place(tmp_path: Path) -> None:
    with serving(Toy()) as toy:
        layers = [os.urandom(40_000) for _ in range(2)]
        toy.put_image(layers, [], "latest")
        running = Serving(tmp_path / "store", f"--proxy={toy.url}", "--limit=1k")
        try:
            for layer in (*layers, *layers):
                assert Repository(running).blob(digest_of(layer)).body == layer
            blobs = tmp_path / "store/blobs/sha256"
            end = time.monotonic() + 10
            while len(list(blobs.iterdir())) > 1:
                assert time.monotonic() < end
                time.sleep(0.02)
        finally:
            running.stop()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--proxy", ""], "--proxy is empty"),
        (["--htpasswd="], "--htpasswd is empty"),
        (["--htpasswd", "/etc"], "--htpasswd /etc is a folder: give the file that"),
        (["--htpasswd", "/no/such"], "--htpasswd /no/such: no such file or directory"),
        (
            ["--tls-cert", "/etc", "--tls-key", "/etc"],
            "no certificate with its key: is a directory",
        ),
        (["--proxy", "https://"], "--proxy https://: "),
        (["--limit", "1G"], "--limit is for a cache"),
        (["--limit", "0", "--proxy", "docker.io"], "a limit of 0 would keep nothing"),
    ],
)
def test_what_is_not_meant_is_not_served(tmp_path: Path, flags: list[str], text: str) -> None:
    command = [sys.executable, "-m", "dockpy", "registry", "serve", f"--store={tmp_path}"]
    listen = ["--listen", "127.0.0.1:0"]
    ended = subprocess.run(
        [*command, *listen, *flags],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode and text in ended.stderr and not ended.stdout
