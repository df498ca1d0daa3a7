"""dockpy/images/elf.py: compared with what the host's own loader says, and with what a compiler
makes.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from dockpy.images import elf

PROGRAMS = [
    path for name in ("sh", "bash", "ls", "python3", "tar", "ip", "curl", "git", "ssh", "gpg")
    if (path := shutil.which(name, path="/usr/bin:/bin"))
]  # fmt: skip


def closure(path: str) -> set[str]:
    """All libraries of a program, by real path."""
    loader = elf.Loader()
    start = loader.read(os.path.realpath(path))
    assert start is not None
    pending: list[tuple[elf.Object, tuple[str, ...]]] = [(start, ())]
    found: set[str] = set()
    while pending:
        item, above = pending.pop()
        paths = elf.rpaths(item, above)
        for name in item.needed:
            for place in loader.find(name, item, paths, "ld-musl" in start.interpreter)[:1]:
                if os.path.realpath(place) not in found:
                    found.add(os.path.realpath(place))
                    library = loader.read(place)
                    assert library is not None
                    pending.append((library, paths))
    return found


@pytest.mark.parametrize("path", PROGRAMS)
def test_libraries_are_those_that_the_loader_takes(path: str) -> None:
    start = elf.Loader().read(os.path.realpath(path))
    if start is None or not start.interpreter:
        pytest.skip(f"{path} is no dynamic program here")
    done = subprocess.run(
        [start.interpreter, "--list", os.path.realpath(path)],
        capture_output=True, text=True, env={}, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("this machine's loader knows no --list")
    listed = {os.path.realpath(found) for found in re.findall(r"=> (/\S+)", done.stdout)}
    assert closure(path) - {os.path.realpath(start.interpreter)} == listed - {
        os.path.realpath(start.interpreter)
    }


def compiled(folder: Path, *arguments: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("this machine lacks a C compiler")
    subprocess.run([compiler, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("tags", ["--enable-new-dtags", "--disable-new-dtags"])
def test_rpath_goes_down_and_runpath_does_not(tmp_path: Path, tags: str) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "inner.c").write_text("int inner(void) { return 7; }")
    (tmp_path / "outer.c").write_text("int inner(void); int outer(void) { return inner(); }")
    (tmp_path / "main.c").write_text("int outer(void); int main(void) { return outer(); }")
    compiled(tmp_path, "-shared", "-fPIC", "-o", "lib/libinner.so", "inner.c")
    compiled(tmp_path, "-shared", "-fPIC", "-o", "lib/libouter.so", "outer.c", "-Llib", "-linner")
    compiled(
        tmp_path, "-o", "main", "main.c", "-Llib", "-louter", f"-Wl,{tags}",
        "-Wl,-rpath,$ORIGIN/lib", "-Wl,-rpath-link,lib",
    )  # fmt: skip
    program = elf.Loader().read(str(tmp_path / "main"))
    assert program is not None
    runs = subprocess.run([str(tmp_path / "main")], env={}, capture_output=True, check=False)
    names = {os.path.basename(path) for path in closure(str(tmp_path / "main"))}
    assert "libouter.so" in names
    # The system's loader is the judge.
    assert ("libinner.so" in names) == (runs.returncode == 7)
    assert bool(program.rpath) == (tags == "--disable-new-dtags")


def test_a_static_program_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text("int main(void) { return 0; }")
    compiled(tmp_path, "-static", "-o", "main", "main.c")
    program = elf.Loader().read(str(tmp_path / "main"))
    assert program is not None
    assert (program.interpreter, program.needed) == ("", ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1),
        b"\x7fELF\x02\x01\x01" + bytes(9) + b"\xff" * 200,
        b"\x7fELF\x01\x02\x01" + bytes(9) + os.urandom(4000),
        b"#!/bin/sh\n",
    ],
    ids=["empty", "magic alone", "cut header", "ones", "rubbish", "script"],
)
def test_damaged_files_need_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    found = elf.Loader().read(str(path))
    assert found is None or found.needed == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"#!/bin/sh\nx", ("/bin/sh",)),
        (b"#! /usr/bin/env python3 -x\n", ("/usr/bin/env", "python3 -x")),
        (b"#!/bin/sh", ("/bin/sh",)),
        (b"#!\n", ()),
        (b"nothing", ()),
    ],
)
def test_shebang(tmp_path: Path, line: bytes, words: tuple[str, ...]) -> None:
    path = tmp_path / "script"
    path.write_bytes(line)
    assert elf.shebang(str(path)) == words


def test_what_is_not_there_is_no_object() -> None:
    assert elf.Loader().read("/no/such/file") is None
    assert elf.shebang("/no/such/file") == ()
