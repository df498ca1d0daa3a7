"""A limit on what images take: which of them go, in which order, and which never."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from dockpy.files import shared_lock
from dockpy.images import archive
from dockpy.images.index import READERS
from dockpy.images.quota import YOUNG, Quota, touch
from dockpy.images.store import ImageStore
from tests.images.archives import docker_archive, image
from tests.images.conftest import opened

SIZE = 100_000


def load(store: ImageStore, word: str, age: float) -> str:
    """An image of some 200 kB, blob and tree, last used `age` seconds ago."""
    data = docker_archive(image(word * SIZE, names=[word]))
    archive.load(store, io.BytesIO(data).read, lambda message: None)
    found = store.resolve(word)
    then = time.time() - age
    os.utime(store.content.path(found.id), (then, then))
    return found.id


def quota(tmp_path: Path, store: ImageStore, *used: str) -> Quota:
    return Quota(str(tmp_path / "limit"), store, lambda identifier: identifier in used)


def test_what_was_not_used_for_longest_goes_until_the_rest_fits(
    tmp_path: Path, store: ImageStore
) -> None:
    a, b, c, d = (load(store, word, age) for word, age in zip("abcd", (4000, 9000, 2000, 7000)))
    one = quota(tmp_path, store, d)
    assert one.keep() == [] and one.limit is None
    full = one.used()
    assert 8 * SIZE < full < 9 * SIZE
    one.set(full)
    assert one.keep() == []
    one.set(full - 3 * SIZE)
    assert [gone.id for gone in one.keep()] == [b, a], "d is in use"
    assert {left.id for left in store.list()} == {c, d}
    assert one.used() <= full - 3 * SIZE

    one.set(0)
    assert [gone.id for gone in one.keep()] == [c]
    assert one.used() > 0, "what is in use is nobody's to take"
    again = quota(tmp_path, store, d)
    assert again.limit == 0, "it is remembered"
    again.set(None)
    assert quota(tmp_path, store).limit is None and again.keep() == []


def test_nothing_is_forgotten_while_nothing_can_be_collected(
    tmp_path: Path, store: ImageStore
) -> None:
    ids = {load(store, word, 9000) for word in "ab"}
    one = quota(tmp_path, store)
    one.set(one.used() - SIZE)
    with store.writing():  # a pull
        assert one.keep() == [] and one.put_off
    reader = shared_lock(f"{store.content.root}/{READERS}")  # another store's daemon
    assert one.keep() == [] and one.put_off
    assert {left.id for left in store.list()} == ids
    os.close(reader)
    assert len(one.keep()) == 1 and not one.put_off


def test_nameless_images_go_first_and_young_ones_not(tmp_path: Path, store: ImageStore) -> None:
    load(store, "a", 9000)
    nameless = load(store, "b", 100 + YOUNG)
    store.unname(next(iter(store.names_of(store.resolve(nameless).id))))
    young = load(store, "c", 9000)
    touch(store, store.resolve(young))
    one = quota(tmp_path, store)
    one.set(one.used() - 1)
    assert [gone.id for gone in one.keep()] == [nameless]
    one.set(0)
    one.keep()
    assert [left.id for left in store.list()] == [young]


def test_an_image_of_another_store_is_not_taken(tmp_path: Path) -> None:
    site = opened(tmp_path / "site")
    lent = load(site, "a", 9000)
    mine = opened(tmp_path / "mine", tmp_path / "site")
    one = quota(tmp_path, mine)
    one.set(0)
    assert one.keep() == []
    assert mine.resolve("a").id == lent
    touch(mine, mine.resolve("a"))


@pytest.mark.parametrize("text", ["", "many", "\0" * 8])
def test_a_limit_that_cannot_be_read_is_none(tmp_path: Path, store: ImageStore, text: str) -> None:
    (tmp_path / "limit").write_text(text)
    assert quota(tmp_path, store).limit is None
