"""The extractor alone beside GNU tar: the same layer, as the same user, onto the same disk."""

from __future__ import annotations

import os
import pwd
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Callable

from dockpy.storage.layer import extract
from dockpy.storage.owners import Owners
from scripts.benchmarks.engines import Engine
from scripts.benchmarks.report import quartiles, verdict

PAIRS = 15
BOUND = 1.3


def extractor(engine: Engine) -> None:
    folder = Path(tempfile.mkdtemp(prefix="dockpy-bench-", dir=pwd.getpwnam(engine.user).pw_dir))
    try:
        layer = folder / "layer.tar"
        _take_layer(Path(engine.environ["IMAGES"]) / "debian.tar", layer)
        os.chown(folder, pwd.getpwnam(engine.user).pw_uid, -1)
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(PAIRS):
            ours.append(_timed(engine.user, folder, lambda target: _ours(layer, target)))
            theirs.append(_timed(engine.user, folder, lambda target: _tar(layer, target)))
    finally:
        shutil.rmtree(folder)
    low, middle, high = quartiles([a / b for a, b in zip(ours, theirs)])
    print("the extractor alone, of the 128 MB image's layer")
    print(
        f"  dockpy   {statistics.median(ours):9.1f} ms\n  GNU tar  {statistics.median(theirs):9.1f} ms"
    )
    told = verdict(middle, BOUND)
    print(f"  {middle:.3f} × tar ({low:.3f} to {high:.3f}); at most {BOUND}: {told}")


def _take_layer(archive: Path, layer: Path) -> None:
    with tarfile.open(archive) as image:
        biggest = max(image, key=lambda member: member.size)
        content = image.extractfile(biggest)
        assert content is not None
        with open(layer, "wb") as file:
            shutil.copyfileobj(content, file)
    os.chmod(layer, 0o644)


def _ours(layer: Path, target: str) -> None:
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    with open(layer, "rb", buffering=0) as file:
        extract(file.read, fd, Owners(False), hashed=False)
    os.close(fd)


def _tar(layer: Path, target: str) -> None:
    # Devices and other owners are nothing that this user could make: said, and not counted.
    command = ["tar", "-x", "--no-same-owner", "-f", str(layer), "-C", target]
    subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


def _timed(user: str, folder: Path, work: Callable[[str], None]) -> float:
    """Milliseconds in a process of that user, into a new folder, which is then removed."""
    entry = pwd.getpwnam(user)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
            target = tempfile.mkdtemp(dir=folder)
            start = time.perf_counter()
            work(target)
            os.write(writing, repr((time.perf_counter() - start) * 1e3).encode())
            subprocess.run(["chmod", "-R", "u+rwX", target], check=True)
            shutil.rmtree(target)
        finally:
            os._exit(0)
    os.close(writing)
    taken = os.read(reading, 100)
    os.close(reading)
    os.waitpid(pid, 0)
    return float(taken)
