"""The archive calls, changes, export and commit over HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests.daemon.conftest import Engine
from tests.storage.archives import Archive

READY = "while [ ! -e /ready ]; do sleep 0.01; done"


def facts(engine: Engine, container: str, path: str) -> dict[str, object]:
    answer = engine.ask("HEAD", f"/containers/{container}/archive?path={path}")
    assert answer.status == 200, path
    raw = json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
    assert isinstance(raw, dict)
    return raw


def put(engine: Engine, container: str, path: str, archive: Archive, more: str = "") -> int:
    url = f"/containers/{container}/archive?path={path}{more}"
    return engine.ask("PUT", url, archive.done()).status


def content(engine: Engine, container: str, path: str) -> bytes:
    answer = engine.ask("GET", f"/containers/{container}/archive?path={path}")
    assert answer.status == 200, answer.body
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        member = tar.next()
        assert member is not None
        file = tar.extractfile(member)
        assert file is not None
        return file.read()


def ready(engine: Engine, container: str) -> None:
    for _ in range(500):
        if engine.ask("HEAD", f"/containers/{container}/archive?path=/tmp/ready").status == 200:
            return
        time.sleep(0.02)
    raise AssertionError("the container did not get ready")


def test_stat_as_docker_encodes_it(engine: Engine) -> None:
    script = (
        "mkdir -m 1777 /tmp/d; ln -s /tmp/d /tmp/l; mkfifo /tmp/p; touch /tmp/ready; exec sleep 60"
    )
    container = engine.run("sh", "-c", script)
    ready(engine, container)
    assert facts(engine, container, "/tmp/d")["mode"] == 1 << 31 | 1 << 20 | 0o777
    link = facts(engine, container, "/tmp/l")
    assert (link["name"], link["mode"], link["linkTarget"]) == ("l", 1 << 27 | 0o777, "/tmp/d")
    assert str(link["mtime"]).endswith("Z")
    assert facts(engine, container, "/tmp/l/")["linkTarget"] == ""
    mode = facts(engine, container, "/tmp/p")["mode"]
    assert isinstance(mode, int) and mode & 1 << 25


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("", 400, "bad parameter: path cannot be empty"),
        ("/nope", 404, "Could not find the file /nope in container {0}"),
        ("/etc/passwd/x", 500, "lstat /etc/passwd/x: not a directory"),
        ("a%00b", 400, "bad parameter: path has a NUL"),
    ],
)
def test_refusals(engine: Engine, method: str, path: str, status: int, message: str) -> None:
    container = engine.create("true")
    answer = engine.ask(method, f"/containers/{container}/archive?path={path}", b"")
    assert (answer.status, answer.message) == (status, message.format(container))


def test_a_file_is_no_place_to_unpack(engine: Engine) -> None:
    container = engine.create("true")
    answer = engine.ask("PUT", f"/containers/{container}/archive?path=/etc/passwd", b"")
    assert (answer.status, answer.message) == (400, "extraction point is not a directory")
    answer = engine.ask("PUT", f"/containers/{container}/archive?path=/tmp", b"no archive" * 100)
    assert answer.status == 400
    assert put(engine, container, "/tmp", Archive().add("../x")) == 400


def test_kinds_are_kept_when_asked(engine: Engine) -> None:
    container = engine.create("true")
    assert put(engine, container, "/tmp", Archive().folder("d").add("f")) == 200
    keep = "&noOverwriteDirNonDir=1"
    assert put(engine, container, "/tmp", Archive().add("d"), keep) == 500
    assert put(engine, container, "/tmp", Archive().folder("f"), keep) == 500
    assert put(engine, container, "/tmp", Archive().add("d", b"file")) == 200
    assert content(engine, container, "/tmp/d") == b"file"


def test_what_is_mounted_in_a_running_container_is_seen(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("bound")
    host = {"Tmpfs": {"/scratch": ""}, "Binds": [f"{tmp_path}:/b"], "ReadonlyRootfs": True}
    script = "echo here > /scratch/x; touch /scratch/ready; exec sleep 60"
    container = engine.run("sh", "-c", script, host=host)
    for _ in range(500):
        if engine.ask("HEAD", f"/containers/{container}/archive?path=/scratch/ready").status == 200:
            break
        time.sleep(0.02)
    assert content(engine, container, "/scratch/x") == b"here\n"
    assert content(engine, container, "/b/f") == b"bound"
    # Written where the container sees it, too.
    assert put(engine, container, "/scratch", Archive().add("from-outside", b"1")) == 200
    assert content(engine, container, "/scratch/from-outside") == b"1"
    answer = engine.ask("PUT", f"/containers/{container}/archive?path=/root", Archive().done())
    assert (answer.status, answer.message) == (400, "container rootfs is marked read-only")
    # The kernel's own file systems are no files.
    assert engine.ask("GET", f"/containers/{container}/archive?path=/proc/1/environ").status == 404
    whole = engine.ask("GET", f"/containers/{container}/archive?path=/")
    with tarfile.open(fileobj=io.BytesIO(whole.body)) as tar:
        names = tar.getnames()
    assert "/proc" in names and not [name for name in names if name.startswith("/proc/")]
    assert "/scratch/x" in names


def test_with_our_own_init_and_after_a_chroot(engine: Engine) -> None:
    code = "import os,time; os.mkdir('/tmp/jail'); open('/tmp/ready','w').close(); os.chroot('/tmp/jail'); time.sleep(60)"
    container = engine.run("python3", "-c", code)
    ready(engine, container)
    time.sleep(0.2)
    # A workload that has changed its root does not change what its container is.
    assert facts(engine, container, "/tmp/jail")["name"] == "jail"
    container = engine.run("sh", "-c", "touch /tmp/ready; exec sleep 60", host={"Init": True})
    ready(engine, container)


def test_the_tree_of_a_stopped_container_is_whole_and_leaves_no_mount(engine: Engine) -> None:
    container = engine.run("sh", "-c", "echo 1 > /tmp/x; rm /etc/group")
    engine.wait(container)
    before = os.listdir("/proc/self/fd")
    daemon = engine.record()["daemon"]["pid"]
    fds = len(os.listdir(f"/proc/{daemon}/fd"))
    threads = len(os.listdir(f"/proc/{daemon}/task"))
    for _ in range(5):
        assert content(engine, container, "/tmp/x") == b"1\n"
        assert engine.ask("HEAD", f"/containers/{container}/archive?path=/etc/group").status == 404
    assert len(os.listdir(f"/proc/{daemon}/fd")) <= fds + 1
    assert len(os.listdir(f"/proc/{daemon}/task")) <= threads + 2
    with open(f"/proc/{daemon}/mountinfo", encoding="utf-8") as file:
        assert container not in file.read()
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1
    assert engine.ask("POST", f"/containers/{container}/start").status == 204
    engine.wait(container)


def test_a_container_is_not_started_while_its_stopped_tree_is_read(engine: Engine) -> None:
    container = engine.create("true")
    big = Archive().add("big", bytes(40 << 20))
    assert put(engine, container, "/tmp", big) == 200
    with engine.connect() as sock:
        sock.sendall(
            f"GET /containers/{container}/archive?path=/tmp/big HTTP/1.1\r\nHost: d\r\n\r\n".encode()
        )
        sock.recv(100)  # it has begun, and nobody reads on
        started: list[int] = []
        thread = threading.Thread(
            target=lambda: started.append(
                engine.ask("POST", f"/containers/{container}/start").status
            )
        )
        thread.start()
        time.sleep(0.3)
        assert not started
    thread.join(20)
    assert started == [204]


def test_changes_are_null_for_none_and_kinds_are_numbers(engine: Engine) -> None:
    container = engine.create("true")
    assert engine.ask("GET", f"/containers/{container}/changes").body == b"null\n"
    put(engine, container, "/tmp", Archive().add("n"))
    raw = engine.ask("GET", f"/containers/{container}/changes").json()
    assert raw == [{"Path": "/tmp", "Kind": 0}, {"Path": "/tmp/n", "Kind": 1}]


def test_a_start_alone_is_no_change(engine: Engine) -> None:
    container = engine.run("true")
    engine.wait(container)
    assert engine.ask("GET", f"/containers/{container}/changes").body == b"null\n"


def test_commit_takes_a_config_and_merges_the_containers(engine: Engine) -> None:
    container = engine.create("true", Env=["A=1", "B=2"], Labels={"x": "1"}, WorkingDir="/tmp")
    body = {"Env": ["A=9"], "Cmd": ["ls"], "Labels": {"y": "2"}}
    url = f"/commit?container={container}&repo=localhost/made&tag=t&changes=USER%20app&changes=EXPOSE%2080"
    answer = engine.ask("POST", url, body)
    assert answer.status == 201, answer.body
    shown = engine.ask("GET", "/images/localhost/made:t/json").json()
    assert isinstance(shown, dict)
    config = shown["Config"]
    assert config["Env"][:2] == ["A=9", "B=2"]
    assert (config["Cmd"], config["User"], config["WorkingDir"]) == (["ls"], "app", "/tmp")
    assert config["Labels"] == {"x": "1", "y": "2"}
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert engine.ask("POST", "/commit?container=nope-x").status == 404
    assert engine.ask("POST", f"/commit?container={container}&repo=UPPER").status == 400
    assert engine.ask("POST", f"/commit?container={container}&changes=RUN%20x").status == 400
    engine.ask("DELETE", "/images/localhost/made:t?force=1")
