"""What breaks off, crowds in, dawdles or fills the disk: the server goes on, and serves whole blobs only."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.registry.serving import Serving, digest_of


def test_killed_at_any_point_of_an_upload(tmp_path: Path) -> None:
    """After each death: what is served is whole, what arrived is kept, and the upload can go on."""
    serving = Serving(tmp_path / "store")
    chance = random.Random(4)
    data = chance.randbytes(24 << 20)
    digest = digest_of(data)
    place = serving.begin("a")
    have = 0
    deaths = 0
    while True:
        killer = threading.Timer(chance.uniform(0.003, 0.03), serving.kill)
        if deaths < 6:
            killer.start()
        answer = None
        with contextlib.suppress(ConnectionError, OSError):
            rest = data[have:]
            where = {"Content-Range": f"{have}-{len(data) - 1}"} if rest else {}
            answer = serving.ask("PUT", f"{place}?digest={digest}", rest, where)
        if deaths < 6:
            killer.cancel()
            killer.join()
        if serving.process.poll() is not None:
            deaths += 1
            serving.start()
        got = serving.ask("GET", f"/v2/a/blobs/{digest}")
        if answer is not None and answer.status == 201:
            assert got.status == 200
        if got.status == 200:
            assert got.body == data
            break
        assert got.status == 404
        status = serving.ask("GET", place)
        if status.status == 404:  # killed between the blob's name and the repository's: once more
            place, have = serving.begin("a"), 0
            continue
        last = int(status.headers["range"].partition("-")[2])
        have = last + 1 if last else 0
    assert serving.stop() == 0
    assert deaths, "no death: the test's times are wrong for this machine"
    assert os.listdir(tmp_path / "store/tmp") == []
    assert os.listdir(tmp_path / "store/uploads") == []


def test_what_arrived_before_a_cut_is_kept(registry: Serving, name: str) -> None:
    data = os.urandom(300_000)
    place = registry.begin(name)
    with socket.create_connection(("127.0.0.1", registry.port)) as sock:
        head = f"PATCH {place} HTTP/1.1\r\nHost: r\r\nContent-Length: {len(data)}\r\n\r\n"
        sock.sendall(head.encode() + data[:200_000])
    end = time.monotonic() + 10
    while registry.ask("GET", place).headers["range"] != "0-199999":
        assert time.monotonic() < end
        time.sleep(0.02)
    digest = digest_of(data)
    answer = registry.ask(
        "PUT", f"{place}?digest={digest}", data[200_000:], {"Content-Range": "200000-299999"}
    )
    assert answer.status == 201
    assert registry.ask("GET", f"/v2/{name}/blobs/{digest}").body == data


def test_two_requests_do_not_write_one_upload(registry: Serving, name: str) -> None:
    place = registry.begin(name)
    with socket.create_connection(("127.0.0.1", registry.port)) as sock:
        sock.sendall(f"PATCH {place} HTTP/1.1\r\nHost: r\r\nContent-Length: 9\r\n\r\nabc".encode())
        time.sleep(0.1)
        assert registry.ask("PATCH", place, b"xyz").status == 409
    end = time.monotonic() + 10
    while registry.ask("PATCH", place, b"def").status != 202:
        assert time.monotonic() < end
        time.sleep(0.02)
    answer = registry.ask("PUT", f"{place}?digest={digest_of(b'abcdef')}")
    assert answer.status == 201


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10,
        b"GET /v2/ HTTP/1.1\r\nHost: r\r\n" + b"X: " + b"x" * 300_000 + b"\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: r\r\nContent-Length: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
    ],
    ids=range(6),
)
def test_what_is_no_http_is_answered_and_hung_up_on(registry: Serving, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", registry.port), timeout=10) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while part := sock.recv(4096):
                answer += part
            assert answer[:10] == b"HTTP/1.1 4" or not answer
    assert registry.ask("GET", "/v2/").status == 200


def test_broken_chunks_are_a_bad_request(registry: Serving, name: str) -> None:
    place = registry.begin(name)
    with socket.create_connection(("127.0.0.1", registry.port), timeout=10) as sock:
        head = f"PATCH {place} HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        sock.sendall(head.encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_expect_continue(registry: Serving, name: str) -> None:
    place = registry.begin(name)
    with socket.create_connection(("127.0.0.1", registry.port), timeout=10) as sock:
        path = f"{place}?digest={digest_of(b'abc')}"
        sock.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: r\r\nContent-Length: 3\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        assert sock.recv(4096).startswith(b"HTTP/1.1 201 ")


def test_requests_may_follow_each_other_on_one_connection(registry: Serving) -> None:
    with socket.create_connection(("127.0.0.1", registry.port), timeout=10) as sock:
        one = b"GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n"
        sock.sendall(one * 3 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = b""
        while part := sock.recv(4096):
            answer += part
        assert answer.count(b"HTTP/1.1 200 ") == 4


def test_sigterm_lets_what_is_under_way_end(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "store")
    place = serving.begin("a")
    idle = socket.create_connection(("127.0.0.1", serving.port))
    sock = socket.create_connection(("127.0.0.1", serving.port), timeout=10)
    path = f"{place}?digest={digest_of(b'abcdef')}"
    sock.sendall(f"PUT {path} HTTP/1.1\r\nHost: r\r\nContent-Length: 6\r\n\r\nabc".encode())
    time.sleep(0.1)
    serving.process.terminate()
    time.sleep(0.1)
    assert serving.process.poll() is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", serving.port))
    sock.sendall(b"def")
    assert sock.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert sock.recv(4096) == b""
    assert idle.recv(10) == b""
    assert serving.process.wait(10) == 0
    serving.stop()
    sock.close()
    idle.close()


def test_large_bodies_pass_through_little_memory(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "store")
    try:
        digest = serving.push_blob("a", b"warm")
        before = peak_memory(serving.process.pid)
        digest = serving.push_blob("a", bytes(96 << 20))
        assert len(serving.ask("GET", f"/v2/a/blobs/{digest}").body) == 96 << 20
        assert peak_memory(serving.process.pid) - before < 24 << 20
    finally:
        serving.stop()


def peak_memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_disk_is_told_and_given_back(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        serving = Serving(disk / "store")
        try:
            data = os.urandom(9 << 20)
            path = f"/v2/a/blobs/uploads/?digest={digest_of(data)}"
            place = serving.begin("a")
            for method, where in (("POST", path), ("PATCH", place)):
                answer = serving.ask(method, where, data, {"Expect": ""})
                assert answer.status == 507
                assert "no space is left" in answer.body.decode()
            assert serving.ask("GET", place).code == "BLOB_UPLOAD_UNKNOWN"
            digest = serving.push_image("a", "x", data[: 4 << 20])
            assert serving.ask("GET", f"/v2/a/manifests/{digest}").status == 200
        finally:
            assert serving.stop() == 0
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_many_who_push_mount_and_delete_the_same_blob(registry: Serving, name: str) -> None:
    """Whatever the order, a repository that has been told 201 has the whole blob until it deletes it."""
    data = os.urandom(200_000)
    digest = digest_of(data)

    def one(number: int) -> None:
        own = f"{name}/{number}"
        for turn in range(6):
            if (number + turn) % 2:
                path = f"/v2/{own}/blobs/uploads/?mount={digest}&from={name}/{number - 1}"
                if registry.ask("POST", path).status != 201:
                    registry.push_blob(own, data)
            else:
                registry.push_blob(own, data)
            assert registry.ask("GET", f"/v2/{own}/blobs/{digest}").body == data
            assert registry.ask("DELETE", f"/v2/{own}/blobs/{digest}").status == 202

    with ThreadPoolExecutor(6) as clients:
        list(clients.map(one, range(6)))
    assert not (registry.store / "blobs" / digest.replace(":", "/")).exists()
