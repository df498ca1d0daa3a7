"""A disk that is full: an error, nothing half there, no end and no exit code lost, and work goes on with room."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import Engine, eventually, kill
from tests.daemon.test_archive import content, put
from tests.e2e.conftest import layer_of
from tests.images.archives import sha256, tar_of
from tests.registry.toy import Toy, serving
from tests.storage.archives import Archive

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")


@pytest.fixture(params=("tmpfs", "ext4"))
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine whose store is a small disk with the programs of busybox as `localhost/busybox`."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("this machine lacks busybox (Debian: busybox-static)")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)]
    if request.param == "ext4":
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, 48 << 20)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("this machine lacks mkfs.ext4 (Debian: e2fsprogs)")
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        mount = ["mount", "-o", "loop", str(image), str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip(f"a {request.param} cannot be mounted here")
    engine = Engine(str(place / "store"))
    try:
        engine.start()
        layer = layer_of(Path(busybox))
        answer = engine.ask("POST", "/images/create?fromSrc=-&repo=localhost/busybox", layer)
        assert answer.status == 200, answer.body
        yield engine
        room(engine)
        engine.start()
        engine.stop()
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def brim(engine: Engine) -> None:
    """No byte is left."""
    if not (Path(engine.paths.store).parent / "filler").exists():
        fill(engine, 1 << 20)
    fd = os.open(f"{engine.paths.store}/../rest", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for size in (1 << 16, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
    finally:
        os.close(fd)


def room(engine: Engine) -> None:
    for name in ("filler", "rest"):
        (Path(engine.paths.store).parent / name).unlink(missing_ok=True)


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


BUSYBOX = "localhost/busybox"
# Twenty kilobytes a second in the end: a page that the file system has given already is full in no time.
FLOOD = (
    "pad=$(printf '%0400d' 0); end=; i=0; while :; do "
    "i=$((i+1)); echo line $i $end; [ $i -lt 3000 ] || { end=$pad; sleep 0.02; }; done"
)


def test_containers_outlive_a_full_disk(disk: Engine) -> None:
    def run(name: str, script: str, host: dict[str, object] | None = None) -> str:
        return disk.run("sh", "-c", script, name=name, host=host, Image=BUSYBOX)

    logs: tuple[dict[str, object], ...] = (
        {"LogConfig": {"Type": "local"}},
        {"LogConfig": {"Type": "json-file"}},
    )
    floods = [run(f"flood{number}", FLOOD, host) for number, host in enumerate(logs)]
    quick = run("quick", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
    always: dict[str, object] = {"RestartPolicy": {"Name": "always"}}
    again = run("again", "sleep 1; exit 3", always)
    stopped = run("stopped", "sleep 1000", always)
    dead = run("dead", "head -c 300000 /dev/zero")
    disk.wait(dead)
    spare = disk.create("true", name="spare", Image=BUSYBOX)
    archive = disk.ask("GET", f"/images/{BUSYBOX}/get").body
    eventually(lambda: all(b"line 3000\n" in disk.output(flood) for flood in floods))

    brim(disk)
    refused(disk, spare, dead, archive)
    made = disk.ask("POST", f"/containers/{quick}/exec", {"Cmd": ["true"]}).json()
    assert isinstance(made, dict)
    assert disk.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True}).status == 200
    assert disk.ask("POST", f"/containers/{quick}/kill?signal=TERM").status == 204
    assert disk.wait(quick) == 7
    eventually(lambda: disk.state(again)["Status"] == "restarting")
    assert [disk.state(flood)["Running"] for flood in floods] == [True, True]

    # Neither the daemon's death nor a start of all anew needs room, and nothing is forgotten.
    brim(disk)
    kill(disk.record()["daemon"]["pid"])
    come_back(disk)
    keeper = disk.record()["keeper"]["pid"]
    disk.ask("POST", "/dockpy/stop")
    eventually(lambda: not os.path.exists(f"/proc/{keeper}"))
    brim(disk)
    disk.start()
    brim(disk)
    assert disk.wait(quick) == 7
    assert len(disk.ask("GET", "/images/json").json()) == 1  # type: ignore[arg-type]  # a list
    free = os.statvfs(disk.paths.store).f_bavail
    assert disk.ask("DELETE", f"/containers/{dead}").status == 204
    eventually(lambda: os.statvfs(disk.paths.store).f_bavail > free)
    brim(disk)
    assert disk.ask("POST", f"/containers/{stopped}/stop?t=0").status == 204
    # Nor is what a user has decided, whatever dies before there is room to write it; and that it was no start.
    assert wish(disk, stopped) == {"begun": True, "stopped": True}
    brim(disk)
    kill(disk.record()["daemon"]["pid"])
    come_back(disk)
    assert (disk.state(stopped)["Status"], disk.state(stopped)["ExitCode"]) == ("exited", 137)

    room(disk)
    eventually(lambda: b"bytes of output are missing here" in disk.output(floods[0]))
    for flood in floods:
        eventually(lambda flood=flood: told(disk, flood))  # type: ignore[misc]  # of this turn
    eventually(lambda: disk.state(again)["Running"] is True)
    assert disk.state(quick)["ExitCode"] == 7
    assert disk.wait(disk.run("true", name="new", Image=BUSYBOX)) == 0
    assert b"error" not in disk.ask("POST", "/images/load", archive).body
    assert disk.ask("POST", f"/containers/{spare}/start").status == 204


def refused(disk: Engine, spare: str, dead: str, archive: bytes) -> None:
    """What needs room says that there is none, and changes nothing."""
    for path, body in (
        ("/containers/create?name=new", {"Image": BUSYBOX, "Cmd": ["true"]}),
        (f"/containers/{spare}/start", None),
        (f"/containers/{spare}/rename?name=other", None),
        (f"/commit?container={dead}&repo=localhost/new", None),
        (f"/images/{BUSYBOX}/tag?repo=localhost/new", None),
    ):
        answer = disk.ask("POST", path, body)
        assert answer.status in (500, 503), (path, answer)
        assert answer.message.endswith("no space left on device"), (path, answer)
    loaded = disk.ask("POST", "/images/load", archive)
    assert b"no space left on device" in loaded.body
    assert disk.state(spare)["Status"] == "created"
    assert disk.inspect(spare)["Name"] == "/spare"
    assert disk.ask("GET", "/containers/new/json").status == 404
    assert disk.ask("GET", "/images/localhost/new/json").status == 404


def come_back(disk: Engine) -> None:
    def answers() -> bool:
        try:
            return disk.ask("GET", "/_ping").status == 200
        except OSError:
            return False

    eventually(answers)


def wish(disk: Engine, container: str) -> object:
    return json.loads(Path(disk.paths.containers, container, "restart.json").read_bytes())


def told(disk: Engine, flood: str) -> bool:
    """Whether the log goes on behind a hole that it tells; no line of it is torn."""
    *lines, last = disk.output(flood).split(b"\n")
    assert last == b""
    assert all(line.startswith((b"line ", b"dockpy: ")) for line in lines)
    holes = [at for at, line in enumerate(lines) if line.startswith(b"dockpy: ")]
    return bool(holes) and holes[-1] < len(lines) - 1
