"""Pages that forks have in common, dropped by each; what they hold stays as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dockpy.linux import samepage
from dockpy.linux.libc import MACHINE

ROOT = Path(__file__).resolve().parents[2]
needs_code = pytest.mark.skipif(MACHINE != "x86_64", reason="the exchange is x86-64 code")

# A single-threaded process of its own: its forks fill blocks of the heap, the recorded one as the others.
START = """
import ctypes, mmap, os, random, signal, sys
sys.path.insert(0, sys.argv[1])
from dockpy.linux.samepage import Samepage

blocks = [bytearray(5000) for _ in range(400)]

def fill():
    for number, block in enumerate(blocks):
        block[:] = bytes((number % 250 + 1,)) * 5000

def intact():
    return all(block == bytes((number % 250 + 1,)) * 5000 for number, block in enumerate(blocks))

def own():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

samepage = Samepage()
child(lambda: (fill(), samepage.record()))
samepage.adopt()
assert not any(map(any, blocks)), "the parent's memory is its own"
"""


def run(work: str) -> None:
    code = f"{START}\ndef work():\n{work}\nchild(work)\nassert not any(map(any, blocks))\n"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code, str(ROOT)], capture_output=True, text=True, timeout=60
    )
    assert not done.returncode, done.stderr


@needs_code
def test_what_a_fork_has_written_as_the_recorded_one_is_shared() -> None:
    run("""
    fill()
    before = own()
    samepage.merge()
    assert intact()
    after = own()
    assert after < before - 1700, (before, after)
    fill()
    blocks[7][9] = 0
    samepage.merge()
    assert blocks[7][9] == 0 and blocks[7].count(0) == 1
    """)


@needs_code
def test_whatever_was_written_between_merges_stays() -> None:
    run("""
    calls = []
    signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    chance = random.Random(1)
    fill()
    expected = [bytes(block) for block in blocks]
    for _ in range(100):
        for _ in range(20):
            number, at = chance.randrange(400), chance.randrange(5000)
            if chance.random() < 0.5:
                blocks[number][:] = bytes((number % 250 + 1,)) * 5000
            else:
                blocks[number][at] = chance.randrange(256)
            expected[number] = bytes(blocks[number])
        rubbish = [bytearray(chance.randrange(100000)) for _ in range(20)]
        samepage.merge()
        assert blocks == expected
    assert calls
    """)


@needs_code
def test_memory_that_is_mapped_no_more_is_left_alone() -> None:
    run("""
    area = mmap.mmap(-1, 1 << 20)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None)
    assert not libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(1 << 20))
    fill()
    samepage._pieces.append((start, 1 << 20, 0))
    samepage.merge()
    samepage.record()
    assert intact()
    """)


@needs_code
def test_a_piece_that_is_no_longer_of_the_file_keeps_what_it_holds() -> None:
    run("""
    area = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    area.write(bytes(range(256)) * 4096)
    samepage._pieces.append((start, 1 << 20, 0))
    samepage.merge()
    assert area[:] == bytes(range(256)) * 4096
    """)


def test_the_code_is_what_an_assembler_makes_of_its_source(tmp_path: Path) -> None:
    if shutil.which("as") is None or shutil.which("objcopy") is None:
        pytest.skip("no binutils here")
    source, made, code = tmp_path / "code.s", tmp_path / "code.o", tmp_path / "code"
    source.write_text(samepage.SOURCE)
    subprocess.run(["as", "--64", str(source), "-o", str(made)], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(made), str(code)], check=True)
    assert code.read_bytes() == samepage.CODE


@pytest.mark.skipif(MACHINE == "x86_64", reason="here it is made for this machine")
def test_elsewhere_it_is_refused() -> None:
    with pytest.raises(OSError, match="not made for"):
        samepage.Samepage()
