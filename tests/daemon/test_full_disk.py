"""A disk that is full during cp, export and commit: an error, nothing half there, and work goes on with room."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import Engine
from tests.daemon.test_archive import content, put
from tests.images.archives import sha256, tar_of
from tests.registry.toy import Toy, serving
from tests.storage.archives import Archive

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Engine]:
    """An engine whose store is a tmpfs of 64 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
    engine = Engine(str(disk / "store"))
    try:
        engine.start()
        yield engine
        engine.start()
        engine.stop()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(engine: Engine, leave: int) -> Path:
    path = Path(engine.paths.store).parent / "filler"
    room = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave)
    return path


def test_nothing_is_half_copied_or_half_committed(small: Engine) -> None:
    rootfs = Archive().folder("tmp", 0o1777).done()
    assert small.ask("POST", "/images/create?fromSrc=-&repo=localhost/tiny", rootfs).status == 200
    made = small.ask("POST", "/containers/create", {"Image": "localhost/tiny", "Cmd": ["x"]}).json()
    assert isinstance(made, dict)
    container = made["Id"]
    assert (
        put(small, container, "/tmp", Archive().add("x", b"old").add("data", bytes(3 << 20))) == 200
    )
    filler = fill(small, 1 << 20)
    # The old file stays, a new one does not begin.
    for name in ("x", "new"):
        answer = small.ask(
            "PUT",
            f"/containers/{container}/archive?path=/tmp",
            Archive().add(name, os.urandom(2 << 20)).done(),
        )
        assert answer.status in (500, 503), answer.body
        assert "no space left on device" in answer.message
    assert content(small, container, "/tmp/x") == b"old"
    assert small.ask("HEAD", f"/containers/{container}/archive?path=/tmp/new").status == 404
    images = small.ask("GET", "/images/json").json()
    answer = small.ask("POST", f"/commit?container={container}&repo=localhost/full")
    assert answer.status in (500, 503), answer.body
    assert "no space left" in answer.message.lower()
    assert small.ask("GET", "/images/json").json() == images
    filler.unlink()
    answer = small.ask("POST", f"/commit?container={container}&repo=localhost/full")
    assert answer.status == 201, answer.body
    other = small.ask("POST", "/containers/create", {"Image": "localhost/full", "Cmd": ["true"]})
    assert other.status == 201
    assert content(small, container, "/tmp/x") == b"old"
    assert small.ask("GET", f"/containers/{container}/export").status == 200


def test_a_pull_that_does_not_fit_leaves_nothing(small: Engine) -> None:
    room = os.statvfs(small.paths.store)
    before = room.f_bavail * room.f_frsize
    with serving(Toy()) as toy:
        bomb = tar_of([("zeros", bytes(96 << 20))])
        toy.put_image([gzip.compress(bomb, 1)], [sha256(bomb)], "latest")
        toy.put_image([os.urandom(80 << 20)], [sha256(b"")], "large")
        for tag, words in (
            ("latest", "no space left for a file"),
            ("large", "no space left on device"),
        ):
            query = f"fromImage={toy.host}/full&tag={tag}"
            answer = small.ask("POST", f"/images/create?{query}")
            assert words in str(json.loads(answer.body.splitlines()[-1])["error"])
            assert small.ask("GET", f"/images/{toy.host}/full:{tag}/json").status == 404
        assert small.ask("POST", "/images/prune").status == 200
    room = os.statvfs(small.paths.store)
    assert before - room.f_bavail * room.f_frsize < 4 << 20
