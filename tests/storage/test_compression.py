from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from dockpy.errors import InvalidParameter
from dockpy.storage import compression
from dockpy.storage.compression import decompressed, sniff

DATA = b"".join(b"line %d\n" % number for number in range(200_000)) + os.urandom(300_000)


def stepwise(data: bytes, step: int) -> Callable[[int], bytes]:
    source = io.BytesIO(data)
    return lambda size: source.read(min(size, step))


def everything(read: Callable[[int], bytes]) -> bytes:
    parts = []
    while part := read(100_000):
        assert len(part) <= 100_000
        parts.append(part)
    return b"".join(parts)


def zstd(data: bytes, *options: str) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("the zstd program, which makes the test's data, is not installed")
    return subprocess.run(
        ["zstd", "-qc", *options], input=data, stdout=subprocess.PIPE, check=True
    ).stdout


@pytest.mark.parametrize("step", [1 << 20, 70_001, 5])
def test_plain_gzip_and_zstd_come_out_alike(step: int) -> None:
    data = DATA if step > 5 else DATA[:20_000]
    for packed in (data, gzip.compress(data), zstd(data)):
        assert everything(decompressed(stepwise(packed, step))) == data


def test_members_and_frames_follow_each_other() -> None:
    assert (
        everything(
            decompressed(stepwise(gzip.compress(b"a") + gzip.compress(b"b") + bytes(600), 7))
        )
        == b"ab"
    )
    assert everything(decompressed(stepwise(zstd(b"a") + zstd(b"b"), 7))) == b"ab"


def test_a_skippable_frame_is_skipped() -> None:
    assert (
        everything(decompressed(stepwise(b"\x50\x2a\x4d\x18\x03\0\0\0xyz" + zstd(b"a"), 100)))
        == b"a"
    )


def test_an_empty_stream_is_empty() -> None:
    assert everything(decompressed(stepwise(b"", 5))) == b""
    assert everything(decompressed(stepwise(gzip.compress(b""), 5))) == b""


@pytest.mark.parametrize("cut", [-1, -9, 100])
def test_streams_that_end_too_early_are_refused(cut: int) -> None:
    for packed in (gzip.compress(DATA), zstd(DATA)):
        with pytest.raises(InvalidParameter):
            everything(decompressed(stepwise(packed[:cut], 1 << 16)))


def test_damaged_streams_are_refused() -> None:
    for packed in (gzip.compress(DATA), zstd(DATA, "--check")):
        broken = bytearray(packed)
        broken[len(broken) // 2] ^= 0xFF
        with pytest.raises(InvalidParameter):
            everything(decompressed(stepwise(bytes(broken), 1 << 16)))


def test_other_compressions_are_named() -> None:
    with pytest.raises(InvalidParameter, match="bzip2"):
        sniff(b"BZh91A")
    with pytest.raises(InvalidParameter, match="xz"):
        sniff(b"\xfd7zXZ\0")


def chunked(data: bytes) -> Iterator[bytes]:
    source = io.BytesIO(data)
    while chunk := source.read(4096):
        yield chunk


def test_the_zstd_program_does_when_there_is_no_library() -> None:
    program = shutil.which("zstd")
    packed = zstd(DATA)
    assert program is not None
    assert b"".join(compression._zstd_by_program(program, stepwise(packed, 9999))) == DATA
    with pytest.raises(InvalidParameter):
        list(compression._zstd_by_program(program, stepwise(packed[:-5], 9999)))

    def broken(size: int) -> bytes:
        raise InvalidParameter("source failed")

    with pytest.raises(InvalidParameter, match="source failed"):
        list(compression._zstd_by_program(program, broken))
    half = compression._zstd_by_program(program, stepwise(zstd(DATA * 5), 9999))
    assert next(half)
    half.close()  # type: ignore[attr-defined]  # it is a generator


def test_the_system_library_does() -> None:
    decoder = compression._zstd_of_system()
    if decoder is None:
        pytest.skip("libzstd.so.1 is not on this host")
    assert b"".join(part for chunk in chunked(zstd(DATA)) for part in decoder.decode(chunk)) == DATA
    decoder.finish()


def test_pythons_own_zstd_does() -> None:
    decoder = compression._zstd_of_python()
    if decoder is None:
        pytest.skip("Python before 3.14 has no compression.zstd")
    assert b"".join(part for chunk in chunked(zstd(DATA)) for part in decoder.decode(chunk)) == DATA
    decoder.finish()
