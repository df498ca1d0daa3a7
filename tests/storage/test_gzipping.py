"""gzip by several threads: what every reader reads, the same bytes with any number of threads."""

from __future__ import annotations

import gzip
import io
import os
import random

import pytest

from dockpy.storage.compression import decompressed
from dockpy.storage.gzipping import BLOCK, compressed


def text(size: int) -> bytes:
    words = [os.urandom(3).hex().encode() for _ in range(300)]
    choose = random.Random(size)
    return b" ".join(choose.choice(words) for _ in range(size // 7 + 1))[:size]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 12345])
def test_what_comes_out_goes_in_again(size: int) -> None:
    data = text(size)
    packed = b"".join(compressed(io.BytesIO(data).read, 3))
    assert gzip.decompress(packed) == data
    read = decompressed(io.BytesIO(packed).read)
    assert b"".join(iter(lambda: read(1 << 16), b"")) == data
    assert packed == b"".join(compressed(io.BytesIO(data).read, 1))


def test_short_reads_make_no_difference() -> None:
    data = text(2 * BLOCK + 7)
    whole, short = io.BytesIO(data), io.BytesIO(data)
    assert b"".join(compressed(whole.read)) == b"".join(
        compressed(lambda size: short.read(min(size, 65521)))
    )


def test_blocks_cost_next_to_nothing() -> None:
    data = text(4 * BLOCK)
    packed = sum(map(len, compressed(io.BytesIO(data).read)))
    assert packed < len(gzip.compress(data, 4)) * 1.01


def test_a_failing_read_ends_it() -> None:
    def read(size: int) -> bytes:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(compressed(read))
