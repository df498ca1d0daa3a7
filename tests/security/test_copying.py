"""`docker cp` against a container that changes its tree meanwhile (CVE-2018-15664, CVE-2019-14271)."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import Engine, engine, running_engine, store
from tests.storage.archives import Archive

__all__ = ["engine", "running_engine", "store"]

# Exchanges the folder /tmp/a and the link /tmp/l, which leads to where the canary is on the host, for ever.
SWAP = """
import ctypes, os, sys
os.mkdir('/tmp/a'); open('/tmp/a/secret', 'w').write('inside')
os.symlink(sys.argv[1], '/tmp/l')
libc = ctypes.CDLL(None)
open('/tmp/ready', 'w').close()
while True:
    libc.syscall(316, -100, b'/tmp/a', -100, b'/tmp/l', 2)
"""


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "secret").write_text("of the host")
    yield folder


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="renameat2 by its x86-64 number")
def test_a_container_that_swaps_folders_for_links_reads_and_writes_nothing_of_the_host(
    engine: Engine, canary: Path
) -> None:
    container = engine.run("python3", "-c", SWAP, str(canary))
    url = f"/containers/{container}/archive?path="
    for _ in range(500):
        if engine.ask("HEAD", f"{url}/tmp/ready").status == 200:
            break
        time.sleep(0.02)
    end = time.monotonic() + 4
    seen: set[int] = set()
    archive = Archive().folder("deep").add("deep/evil", b"evil").add("evil", b"evil").done()
    while time.monotonic() < end:
        for path in ("/tmp/a/secret", "/tmp/a", "/tmp/l/.", "/tmp"):
            answer = engine.ask("GET", f"{url}{path}")
            seen.add(answer.status)
            assert b"of the host" not in answer.body
            if answer.status == 200 and answer.body.strip(
                b"\0"
            ):  # it may have vanished since it was found
                with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
                    assert all(b"of the host" not in _data(tar, member) for member in tar)
        engine.ask("PUT", f"{url}/tmp/a", archive)
        engine.ask("PUT", f"{url}/tmp", Archive().add("a/evil", b"evil").add("l/evil", b"1").done())
        assert os.listdir(canary) == ["secret"]
        assert (canary / "secret").read_text() == "of the host"
    assert {200, 404} <= seen  # both were met: it was swapping


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    return file.read() if file is not None else b""


def test_links_to_the_kernels_own_files_lead_nowhere(engine: Engine) -> None:
    script = (
        "cd /tmp; ln -s /proc/1/root r; ln -s /proc/self/root s; ln -s /proc/sys/kernel k; "
        "ln -s /proc/self/fd f; touch ready; exec sleep 60"
    )
    container = engine.run("sh", "-c", script)
    url = f"/containers/{container}/archive?path=/tmp"
    for _ in range(500):
        if engine.ask("HEAD", f"{url}/ready").status == 200:
            break
        time.sleep(0.02)
    for name in ("r/", "r/etc/passwd", "s/etc", "k/", "k/core_pattern", "f/", "f/0"):
        assert engine.ask("GET", f"{url}/{name}").status in (404, 500), name
        archive = Archive().add("x", b"x").done()
        assert engine.ask("PUT", f"{url}/{name}", archive).status >= 400, name
    # The same on the way of a member.
    for name in ("r/x", "s/x", "k/core_pattern", "f/x"):
        assert engine.ask("PUT", url, Archive().add(name, b"x").done()).status >= 400, name
