"""Partial files: two hands on one, restarts, damage, and what is left for whom."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dockpy.errors import InvalidParameter, Unavailable
from dockpy.oci.digest import Digest, digest_bytes
from dockpy.storage.content import ContentStore
from dockpy.storage.partial import Partials, Stopped

DATA = bytes(range(256)) * 64
BLOB = digest_bytes(DATA)


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "images"))


def test_a_reader_follows_the_writer_and_the_blob_is_kept(content: ContentStore) -> None:
    partials = Partials(content)
    one = partials.take(BLOB, len(DATA))
    assert partials.take(BLOB, len(DATA)) is one
    assert one.begin() == 0
    places: list[int] = []
    got: list[bytes] = []

    def follow() -> None:
        read = one.reader(lambda: False, places.append)
        while piece := read(1000):
            got.append(piece)
        one.wait(lambda: False)

    reader = threading.Thread(target=follow)
    reader.start()
    for at in range(0, len(DATA), 3000):
        one.write(DATA[at : at + 3000])
    one.verify()
    reader.join(5)
    assert b"".join(got) == DATA
    assert places[-1] == len(DATA)
    one.keep()
    one.keep()
    partials.release(one)
    partials.release(one)
    assert content.read(BLOB) == DATA
    assert not os.listdir(f"{content.root}/partial")


def test_the_next_goes_on_where_the_last_has_stopped(content: ContentStore) -> None:
    first = Partials(content)
    one = first.take(BLOB, len(DATA))
    one.begin()
    one.write(DATA[:5000])
    first.release(one)
    two = Partials(content).take(BLOB, len(DATA))
    assert two.begin() == 5000
    two.write(DATA[5000:])
    two.verify()


def test_wrong_bytes_leave_nothing(content: ContentStore) -> None:
    partials = Partials(content)
    one = partials.take(BLOB, len(DATA))
    one.begin()
    one.write(bytes(reversed(DATA)))
    with pytest.raises(InvalidParameter, match=f"verification failed for digest {BLOB}"):
        one.verify()
    with pytest.raises(InvalidParameter, match="has more than"):
        one.write(DATA + b"x")
    partials.release(one)
    assert not os.listdir(f"{content.root}/partial")


def test_one_from_before_the_last_boot_is_begun_again(content: ContentStore) -> None:
    partials = Partials(content)
    one = partials.take(BLOB, len(DATA))
    one.begin()
    one.write(DATA[:5000])
    path = one.path
    partials.release(one)
    os.utime(path, (1, 1))
    again = partials.take(BLOB, len(DATA))
    assert again.begin() == 0
    again.write(DATA[:10])
    assert partials.clean(0) == 0  # somebody wants it
    partials.release(again)
    assert partials.clean() == 0  # it is young
    assert partials.clean(0) > 0
    assert not os.listdir(f"{content.root}/partial")


def test_a_reader_can_be_stopped(content: ContentStore) -> None:
    one = Partials(content).take(BLOB, len(DATA))
    stopped = threading.Event()
    ended: list[str] = []

    def follow() -> None:
        try:
            one.reader(stopped.is_set, lambda _: None)(10)
        except Stopped:
            ended.append("stopped")

    reader = threading.Thread(target=follow)
    reader.start()
    stopped.set()
    one.wake()
    reader.join(5)
    assert ended == ["stopped"]


def test_more_than_the_disk_has_is_refused_before_the_first_byte(content: ContentStore) -> None:
    one = Partials(content).take(Digest("sha256:" + "0" * 64), 1 << 60)
    with pytest.raises(Unavailable, match="no space left on device"):
        one.begin()


def test_two_sizes_of_one_blob_do_not_meet(content: ContentStore) -> None:
    partials = Partials(content)
    honest, lying = partials.take(BLOB, len(DATA)), partials.take(BLOB, 100)
    for one in (honest, lying):
        one.begin()
    honest.write(DATA[:9000])
    lying.write(b"x" * 100)
    with pytest.raises(InvalidParameter):
        lying.verify()
    honest.write(DATA[9000:])
    honest.verify()
    honest.keep()
    assert content.read(BLOB) == DATA
