"""Much output: what the shim passes on unread (tee and splice), and log files that are written over."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dockpy.shim import recycled
from dockpy.shim.log import LocalReader
from dockpy.shim.logwriter import LocalWriter, serials
from dockpy.shim.protocol import LogConfig, Reply
from tests.shim.harness import client, in_thread, read_all, started

if TYPE_CHECKING:
    from tests.shim.harness import Shim

# Writes blocks of all sizes, phases of large ones and of lines, and says the hash of it all on stderr.
BLOCKS = """
import hashlib, os, random, sys
rng, sha, noise = random.Random(7), hashlib.sha256(), random.Random(8).randbytes(1 << 20)
for phase in range(%d):
    for _ in range(rng.choice((3, 30, 60))):
        size = rng.choice(((65536, 1 << 18, 1 << 20), (1, 80, 5000), (100, 65536, 300_000))[phase %% 3])
        at = rng.randrange(len(noise) - size + 1)
        sha.update(noise[at : at + size])
        view = memoryview(noise)[at : at + size]
        while view:
            view = view[os.write(1, view):]
sys.stderr.write(sha.hexdigest())
"""


def pipe() -> tuple[int, int]:
    """Its reading end, and its writing end, opened again as the client does it."""
    reading, writing = os.pipe()
    again = os.open(f"/proc/self/fd/{writing}", os.O_WRONLY | os.O_NONBLOCK)
    os.close(writing)
    return reading, again


def config(folder: Path, size: int = 1 << 30, files: int = 2) -> LogConfig:
    return LogConfig("local", str(folder / "bundle/log"), size, files)


def logged(folder: Path, stream: int = 1) -> bytes:
    reader = LocalReader(str(folder), streams=frozenset((stream,)))
    said = b""
    while runs := reader.runs():
        said += b"".join(run.read() for run in runs)
    reader.close()
    return said


def test_log_and_client_get_the_same_bytes_whatever_the_blocks(tmp_path: Path) -> None:
    reading, writing = pipe()
    ours, attachment = client(stdout_fd=writing, stderr=False)
    command = ("python3", "-c", BLOCKS % 9)
    shim = started(tmp_path, *command, attachments=(attachment,), log=config(tmp_path, 1 << 20, 99))
    rng = random.Random(9)
    said = bytearray()
    while data := os.read(reading, rng.choice((16384, 65536, 1 << 20))):
        said += data
        if rng.random() < 0.01:
            time.sleep(0.002)
    assert read_all(ours) == b""
    assert shim.code() == 0
    assert len(said) > 10 << 20
    folder = shim.bundle / "log"
    assert sha256(said).hexdigest().encode() == logged(folder, 2)
    assert sha256(logged(folder)).digest() == sha256(said).digest()


def test_a_flood_without_a_client_writes_old_files_over(tmp_path: Path) -> None:
    shim = started(
        tmp_path,
        "sh",
        "-c",
        "head -c 30000000 /dev/zero | tr '\\0' a; head -c 3000000 /dev/zero | tr '\\0' b; echo; echo end",
        log=config(tmp_path, 1 << 20, 3),
    )
    assert shim.code() == 0
    folder = shim.bundle / "log"
    said = logged(folder)
    assert 2 << 20 < len(said) < 4 << 20
    assert said == (b"a" * 33_000_000 + b"b" * 3_000_000 + b"\nend\n")[-len(said) :]
    assert shim.log() == said  # nothing of the older bytes is left behind the last ones
    assert len(serials(str(folder))) == 3
    assert len(list(folder.iterdir())) == 6


def flooding(folder: Path, rest: str) -> tuple[Shim, int, socket.socket]:
    """40 MB, of which the client reads so much that the shim passes on what comes unread."""
    reading, writing = pipe()
    ours, attachment = client(stdout_fd=writing)
    command = f"head -c 40000000 /dev/zero; {rest}"
    shim = started(folder, "sh", "-c", command, attachments=(attachment,), log=config(folder))
    got = 0
    while got < 20_000_000:
        got += len(os.read(reading, 20_000_000 - got))
    return shim, reading, ours


def test_a_client_that_stalls_in_a_flood_keeps_nothing_from_the_log(tmp_path: Path) -> None:
    shim, reading, _ = flooding(tmp_path, "printf %040d 0")
    time.sleep(0.5)
    # The pipe is full, and so is the queue before it: only a pipe's content may be missing in the log.
    there = len(shim.log())
    assert there > 20_900_000
    assert there < 25_000_000
    got = 20_000_000
    while data := os.read(reading, 1 << 16):
        got += len(data)
    assert got == 40_000_040
    assert shim.code() == 0
    assert logged(shim.bundle / "log") == bytes(40_000_000) + b"0" * 40


def test_what_a_stalled_client_left_in_the_pipe_is_logged(tmp_path: Path) -> None:
    reading, writing = pipe()
    _, attachment = client(stdout_fd=writing)
    # After the flood so much as fills the client's pipe, and then some.
    command = "head -c 20000000 /dev/zero; read go; head -c 400000 /dev/zero; sleep 60"
    shim = started(
        tmp_path,
        "sh",
        "-c",
        command,
        attachments=(attachment,),
        log=config(tmp_path),
    )
    got = 0
    while got < 20_000_000:
        got += len(os.read(reading, 1 << 20))
    deadline = time.monotonic() + 3
    while len(shim.log()) < 20_400_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(logged(shim.bundle / "log")) == 20_400_000
    shim.link.kill(signal.SIGKILL)


def test_a_client_that_goes_in_a_flood_takes_nothing_with_it(tmp_path: Path) -> None:
    shim, reading, ours = flooding(tmp_path, "echo end")
    ours.close()
    read_all(reading)
    assert shim.code() == 0
    assert logged(shim.bundle / "log") == bytes(40_000_000) + b"end\n"


def test_a_reader_that_goes_in_a_flood_does_not_end_it(tmp_path: Path) -> None:
    shim, reading, _ = flooding(tmp_path, "echo end")
    os.close(reading)
    assert shim.code() == 0
    assert logged(shim.bundle / "log") == bytes(40_000_000) + b"end\n"


def test_a_second_client_in_a_flood_gets_what_comes_then(tmp_path: Path) -> None:
    shim, reading, _ = flooding(tmp_path, "echo end")
    other, attachment = client(framed=False)
    shim.link.attach(attachment)
    os.close(attachment.conn)
    thread_got: list[bytes] = []
    thread = in_thread(lambda: thread_got.append(read_all(reading)))
    late = read_all(other)
    thread.join(10)
    assert late.endswith(b"\0end\n")
    assert thread_got[0].endswith(b"\0end\n")
    assert shim.code() == 0
    assert logged(shim.bundle / "log") == bytes(40_000_000) + b"end\n"


def test_a_blocking_pipe_for_both_streams_never_blocks_the_shim(tmp_path: Path) -> None:
    """Between poll's word that there is room and the write, the other stream may have filled it."""
    reading, writing = os.pipe()
    ours, attachment = client(stdout_fd=writing, stderr_fd=os.dup(writing))
    lines = "i=0; while [ $i -lt 30000 ]; do echo $i; echo $i >&2; i=$((i+1)); done"
    flood = "head -c 2000000 /dev/zero; (head -c 1000000 /dev/zero >&2); echo end"
    shim = started(
        tmp_path, "sh", "-c", f"{lines}; {flood}", attachments=(attachment,), log=config(tmp_path)
    )
    for _ in range(20):
        shim.link.state()
        shim.hear(Reply, 2)
        os.read(reading, 5000)
    rest = read_all(reading)
    assert rest.count(b"\0") == 3_000_000
    assert read_all(ours) == b""
    assert shim.code() == 0
    numbers = b"".join(b"%d\n" % number for number in range(30000))
    assert logged(shim.bundle / "log") == numbers + bytes(2_000_000) + b"end\n"
    assert logged(shim.bundle / "log", 2) == numbers + bytes(1_000_000)


# ------------------------------------------------------------------------- files written over


def fill(writer: LocalWriter, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        writer.append(1, memoryview(b"%09d\n" % number), number + 1)


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.glob("*.data")}


def test_a_flood_goes_round_in_the_same_files(tmp_path: Path) -> None:
    writer = LocalWriter(str(tmp_path), 1000, 3)
    fill(writer, 300)
    first = inodes(tmp_path)
    fill(writer, 1050, 300)
    assert inodes(tmp_path) == first
    assert serials(str(tmp_path)) == [11, 12, 13]
    # The last file is half new; its rest is none of the log, neither now nor for the next writer.
    assert logged(tmp_path) == b"".join(b"%09d\n" % number for number in range(1100, 1350))
    assert (tmp_path / "13.data").stat().st_size == 1000
    fill(LocalWriter(str(tmp_path), 1000, 3), 1, 1350)
    assert (tmp_path / "13.data").stat().st_size == 510
    assert logged(tmp_path).endswith(b"\n000001349\n000001350\n")


def test_what_is_being_read_is_not_written_over(tmp_path: Path) -> None:
    writer = LocalWriter(str(tmp_path), 1000, 3)
    fill(writer, 250)
    reader = LocalReader(str(tmp_path))
    entries = reader.entries()
    assert next(entries).data == b"000000000\n"
    fill(writer, 1000, 250)
    # The file it has open to its end; then what is still there.
    expected = [b"%09d\n" % number for number in (*range(1, 100), *range(1000, 1250))]
    assert [entry.data for entry in entries] == expected
    reader.close()


def test_a_file_that_was_filled_long_ago_is_not_written_over(tmp_path: Path) -> None:
    writer = LocalWriter(str(tmp_path), 1000, 3)
    fill(writer, 300)
    first = inodes(tmp_path)
    os.utime(tmp_path / "0.data", (time.time(), time.time() - 2 * recycled.FRESH))
    fill(writer, 50, 300)
    assert len(inodes(tmp_path) & first) == 2


def test_a_reader_that_comes_while_it_happens_gets_nothing(tmp_path: Path) -> None:
    old = tmp_path / "0.data"
    old.write_bytes(b"old")
    held = os.open(old, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(FileNotFoundError):
        recycled.open_shared(str(old))
    fcntl.flock(held, fcntl.LOCK_UN)
    fd = recycled.open_shared(str(old))
    assert recycled.recycle(str(old), f"{tmp_path}/0.index", f"{tmp_path}/1.data") == -1
    assert old.read_bytes() == b"old"
    os.close(fd)
    os.close(held)


def test_a_log_written_over_that_somebody_has_emptied_goes_on(tmp_path: Path) -> None:
    writer = LocalWriter(str(tmp_path), 1000, 2)
    fill(writer, 450)
    os.truncate(tmp_path / "4.data", 0)
    fill(writer, 1, 450)
    assert logged(tmp_path) == b"".join(b"%09d\n" % n for n in (*range(300, 400), 450))


def test_no_room_in_a_flood_leaves_a_hole_that_is_told(tmp_path: Path) -> None:
    import resource

    reading, writing = os.pipe()
    os.write(writing, b"x" * 60_000 + b"\n")
    writer = LocalWriter(str(tmp_path), 0, 1)
    fill(writer, 1)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        moved = writer.splice(1, reading, 60_001, 2)
        with pytest.raises(OSError, match="File too large"):
            writer.splice(1, reading, 60_001 - moved, 3)
        writer.append(1, memoryview(os.read(reading, 60_000)), 4)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert not writer.splices
        fill(writer, 1, 1)
        os._exit(0 if moved == 4990 and writer.splices else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert logged(tmp_path) == b"000000000\n" + b"x" * 4990 + b"000000001\n"
    hole = b"dockpy: 55011 bytes of output are missing here: File too large\n"
    assert logged(tmp_path, 2) == hole
