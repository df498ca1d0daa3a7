from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockpy.errors import InvalidParameter, NotFound
from dockpy.oci.digest import digest, digest_bytes, hasher
from dockpy.storage.content import ContentStore


def test_a_blob_is_found_by_its_digest(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path))
    blob = store.put(b"hello")
    assert store.put(b"hello") == blob
    assert store.has(blob)
    assert store.size(blob) == 5
    assert store.read(blob) == b"hello"
    assert list(store.digests()) == [blob]
    assert (tmp_path / "blobs" / "sha256" / blob[7:]).read_bytes() == b"hello"
    store.remove(blob)
    store.remove(blob)
    with pytest.raises(NotFound):
        store.open(blob)


def test_a_blob_other_than_announced_leaves_nothing(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path))
    with pytest.raises(InvalidParameter, match="not sha256"), store.writer() as writer:
        writer.write(b"one")
        writer.commit(digest_bytes(b"two"))
    with pytest.raises(InvalidParameter, match="3 bytes, not 4"), store.writer() as writer:
        writer.write(b"one")
        writer.commit(digest_bytes(b"one"), 4)
    with store.writer() as writer:
        writer.write(b"given up")
    assert list(store.digests()) == []
    assert os.listdir(tmp_path / "ingest") == []


def test_sha512_is_verified_when_asked_for(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path))
    state = hasher(digest("sha512:" + "0" * 128))
    state.update(b"x")
    wanted = digest("sha512:" + state.hexdigest())
    with store.writer() as writer:
        writer.write(b"x")
        assert writer.commit(wanted) == (wanted, 1)
    assert store.read(wanted) == b"x"


def test_a_rotten_blob_is_told(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path))
    blob = store.put(b"good")
    Path(store.path(blob)).write_bytes(b"evil")
    with pytest.raises(InvalidParameter, match="does not have this digest"):
        store.read(blob)
    with pytest.raises(InvalidParameter, match="longer than 2"):
        store.read(blob, 2)


def test_half_arrived_blobs_go_at_recover(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path))
    store.writer().write(b"cut")
    store.recover()
    assert os.listdir(tmp_path / "ingest") == []
