"""Rows beside the peers: one command, or one transfer, of each engine right after the other's."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pwd
import statistics
import subprocess
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from scripts.benchmarks.engines import BUSYBOX, Engine, Failed

DEBIAN = "localhost/debian:latest"
PULLED = "127.0.0.1:5055/debian:latest"  # bench-peers has put it there
PIPED = 1 << 30
LINES = 400_000
COPIED = 200 << 20
LOG_LINE = "the quick brown fox jumps over the lazy dog, again and again and again"

Measure = Callable[[Engine], float]


@dataclass(frozen=True)
class Row:
    """`bounds`: by peer, our median as a multiple of its (at most; for rates at least)."""

    name: str
    title: str
    measure: Measure
    bounds: dict[str, float]
    pairs: int = 15
    unit: str = "ms"
    also: tuple[str, ...] = ()

    @property
    def rate(self) -> bool:
        return self.unit == "MB/s"


def run(engine: Engine) -> float:
    if engine.name == "runc":
        return engine.time("run", "-b", engine.environ["BUNDLE"], engine.fresh())
    return engine.time("run", "--rm", BUSYBOX, "true")


def run_detached(engine: Engine) -> float:
    name = engine.fresh()
    taken = engine.time("run", "-d", "--name", name, BUSYBOX, "sleep", "1000")
    engine.drop(name)
    return taken


def execute(engine: Engine) -> float:
    name = engine.running()
    try:
        engine.time("exec", name, "true")
        return engine.time("exec", name, "true")
    finally:
        engine.drop(name)


def remove(engine: Engine) -> float:
    return engine.time(*engine.remove, engine.running())


def create(engine: Engine) -> float:
    name = engine.fresh()
    taken = engine.time("create", "--name", name, BUSYBOX, "true")
    engine.drop(name)
    return taken


def version(engine: Engine) -> float:
    return engine.time("--version")


def together(engine: Engine) -> float:
    """Twenty `run --rm` at once, until the last has ended."""
    start = time.perf_counter()
    processes = [engine.popen("run", "--rm", BUSYBOX, "true") for _ in range(20)]
    codes = [process.wait(300) for process in processes]
    if any(codes):
        raise Failed(f"{engine.name}: {len([code for code in codes if code])} of 20 runs failed")
    return (time.perf_counter() - start) * 1e3


def hundred(engine: Engine) -> float:
    names, taken = engine.many(100)
    engine.drop(*names)
    return taken


def remove_hundred(engine: Engine) -> float:
    names, _ = engine.many(100)
    taken = engine.time(*engine.remove, *names)
    engine.made.clear()
    return taken


def list_hundred(engine: Engine) -> float:
    """`ps` with a hundred running: the best of seven, since setting up takes so long."""
    names, _ = engine.many(100)
    try:
        return statistics.median(engine.time("ps") for _ in range(15))
    finally:
        engine.drop(*names)


IMAGES = {"dockpy": 200, "docker": 3}


def list_images(engine: Engine) -> float:
    """`images` with so many: ours with two hundred, docker's with three."""
    missing = IMAGES[engine.name] - len(engine.text("images", "-q").split())
    names = [f"localhost/bench-{os.getpid()}-{number}:latest" for number in range(missing)]
    with tempfile.TemporaryDirectory(prefix="dockpy-bench-images-") as folder:
        archive = Path(folder) / "images.tar"
        os.chmod(folder, 0o755)
        write_images(archive, names)
        engine.time("load", "-i", str(archive))
    try:
        return statistics.median(engine.time("images") for _ in range(15))
    finally:
        engine.popen("rmi", "-f", *names).wait(60)


def write_images(archive: Path, names: list[str]) -> None:
    """Images of one layer each, which has one file."""
    with tarfile.open(archive, "w") as tar:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        manifest = []
        for number, name in enumerate(names):
            layer = io.BytesIO()
            with tarfile.open(fileobj=layer, mode="w") as inner:
                info = tarfile.TarInfo("file")
                info.size = len(name)
                inner.addfile(info, io.BytesIO(name.encode()))
            digest = hashlib.sha256(layer.getvalue()).hexdigest()
            rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
            config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
            add(f"{number}.json", json.dumps(config).encode())
            add(f"{number}.tar", layer.getvalue())
            manifest.append(
                {"Config": f"{number}.json", "RepoTags": [name], "Layers": [f"{number}.tar"]}
            )
        add("manifest.json", json.dumps(manifest).encode())


def load(engine: Engine) -> float:
    engine.popen("rmi", "-f", PULLED, DEBIAN).wait(60)  # the same layer under two names
    return engine.time("load", "-i", engine.environ["IMAGES"] + "/debian.tar")


def save(engine: Engine) -> float:
    engine.popen("load", "-i", engine.environ["IMAGES"] + "/debian.tar").wait(60)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        return engine.time("save", "-o", f"{folder}/saved.tar", DEBIAN)


def pull(engine: Engine) -> float:
    engine.popen("rmi", "-f", PULLED, DEBIAN).wait(60)
    return engine.time(*engine.pull, PULLED)


def pull_again(engine: Engine) -> float:
    """With nothing new."""
    engine.time(*engine.pull, PULLED)
    return engine.time(*engine.pull, PULLED)


def pipe(engine: Engine) -> float:
    """1 GiB through `run -i cat`, in MB/s."""
    start = time.perf_counter()
    process = engine.popen(
        "run",
        "-i",
        "--rm",
        BUSYBOX,
        "cat",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin and process.stdout
    stdin = process.stdin

    def feed() -> None:
        block = bytes(1 << 16)
        try:
            for _ in range(PIPED // len(block)):
                stdin.write(block)
        except OSError:
            return
        finally:
            stdin.close()

    thread = threading.Thread(target=feed)
    thread.start()
    got = 0
    while block := os.read(process.stdout.fileno(), 1 << 18):
        got += len(block)
    thread.join()
    if process.wait(60) or got != PIPED:
        raise Failed(f"{engine.name}: {got} of {PIPED} bytes came back")
    return PIPED / 1e6 / (time.perf_counter() - start)


def logged(engine: Engine) -> tuple[str, float]:
    """A container that has printed its lines, and how long that took."""
    name = engine.fresh()
    start = time.perf_counter()
    engine.time(
        "run", "-d", "--name", name, BUSYBOX, "sh", "-c", f"yes '{LOG_LINE}' | head -n {LINES}"
    )
    engine.time("wait", name)
    return name, time.perf_counter() - start


def log_ingest(engine: Engine) -> float:
    name, taken = logged(engine)
    engine.drop(name)
    return LINES * (len(LOG_LINE) + 1) / 1e6 / taken


def log_read(engine: Engine) -> float:
    name, _ = logged(engine)
    try:
        start = time.perf_counter()
        process = engine.popen("logs", name, stdout=subprocess.PIPE)
        assert process.stdout
        got = 0
        while block := os.read(process.stdout.fileno(), 1 << 18):
            got += len(block)
        if process.wait(60) or got < 20_000_000:
            raise Failed(f"{engine.name}: logs gave {got} bytes")
        return got / 1e6 / (time.perf_counter() - start)
    finally:
        engine.drop(name)


def copied(engine: Engine, inwards: bool) -> float:
    """`cp` of one file of 200 MiB to a running container, or from it."""
    with tempfile.TemporaryDirectory(prefix="dockpy-bench-cp-") as folder:
        entry = pwd.getpwnam(engine.user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        source = Path(folder) / "file"
        block = os.urandom(1 << 20)
        source.write_bytes(block * (COPIED >> 20))
        source.chmod(0o644)
        name = engine.running("sleep", "1000")
        try:
            taken = engine.time("cp", str(source), f"{name}:/file")
            if not inwards:
                taken = engine.time("cp", f"{name}:/file", f"{folder}/back")
                if (Path(folder) / "back").stat().st_size != COPIED:
                    raise Failed(f"{engine.name}: the copy has another size")
            return taken
        finally:
            engine.drop(name)


def copy_to(engine: Engine) -> float:
    return copied(engine, True)


def copy_from(engine: Engine) -> float:
    return copied(engine, False)


ROWS = (
    Row("version", "client alone: --version", version, {"docker": 1.0}),
    Row("run", "run --rm IMG true, warm", run, {"podman": 0.25, "docker": 0.12}, also=("runc",)),
    Row("exec", "exec C true", execute, {"docker": 0.4}),
    Row("run-d", "run -d", run_detached, {"podman": 0.25}),
    Row("rm", "rm -f of a running container", remove, {"docker": 0.3}),
    Row("create", "create", create, {"docker": 0.8}),
    Row("together", "20 runs at once", together, {"podman": 0.2}, pairs=5),
    Row("hundred", "100 × run -d, 4 at a time", hundred, {"podman": 0.3}, pairs=5),
    Row("rm-hundred", "one rm -f of 100", remove_hundred, {"podman": 0.3}, pairs=5),
    Row("ps-hundred", "ps, 100 running", list_hundred, {"docker": 0.7}, pairs=5),
    Row("images", "images, 200 of them (docker: 3)", list_images, {"docker": 1.0}, pairs=3),
    Row("load", "load of a 128 MB image", load, {"podman": 0.4, "docker": 0.4}, pairs=5),
    Row("save", "save of the same", save, {"podman": 0.8, "docker": 0.8}, pairs=5),
    Row(
        "pull",
        "pull of the same from a local registry",
        pull,
        {"podman": 0.5, "docker": 0.5},
        pairs=5,
    ),
    Row("pull-again", "pull with nothing new", pull_again, {"podman": 1.0, "docker": 1.0}),
    Row("cp-to", "cp of 200 MiB to a container", copy_to, {"docker": 1.0}, pairs=5),
    Row("cp-from", "cp of 200 MiB from a container", copy_from, {"docker": 1.0}, pairs=5),
    Row("pipe", "1 GiB through run -i cat", pipe, {"podman": 6.0}, unit="MB/s", pairs=5),
    Row("log-read", "logs of 28 MB", log_read, {"docker": 10.0}, unit="MB/s", pairs=5),
    Row("log-ingest", "28 MB into the log", log_ingest, {"podman": 1.0}, unit="MB/s", pairs=5),
)
