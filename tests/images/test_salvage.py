"""An image index that cannot be read: whole entries keep their names, the other images stay without one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.images.archives import docker_archive, image
from tests.images.conftest import Open
from tests.images.test_archive import loaded
from tests.images.test_store import names


def test_names_before_the_damage_and_all_images_are_kept(open_store: Open, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = open_store(folder)
    made = [image(layer, names=[f"{layer}:v1"]) for layer in ("a", "b", "c")]
    loaded(store, docker_archive(*made))
    index = Path(store.content.root, "index.json")
    whole = index.read_bytes()
    kept: list[int] = []
    damages = [
        *(whole[: len(whole) * eighths // 8] for eighths in range(8)),
        b"\xff" * 50,
        bytes(len(whole)),
        b"[" * 100_000,
        b"[]",
        b'{"schemaVersion":2,"manifests":[7]}',
        b'{"schemaVersion":2,"manifests":{}}',
    ]
    for content in damages:
        index.write_bytes(content)
        again = open_store(folder)
        assert {one.id for one in again.list()} == {one.id for one in made}
        kept.append(sum(len(names(again, one.id)) for one in made))
        json.loads(index.read_bytes())
    assert kept[:8] == sorted(kept[:8])
    assert kept[7] == 2
    assert len(os.listdir(folder / "damaged")) == len(damages)


def test_one_wrong_entry_takes_no_other_along(open_store: Open, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    made = [image(layer, names=[f"{layer}:v1"]) for layer in ("a", "b")]
    loaded(store, docker_archive(*made))
    index = Path(store.content.root, "index.json")
    raw = json.loads(index.read_bytes())
    raw["manifests"][0]["size"] = "long"
    index.write_text(json.dumps(raw))
    again = open_store(tmp_path / "store")
    assert names(again, made[1].id) == ["b:v1"]
    assert names(again, made[0].id) == []


def test_without_an_index_no_image_is_lost(open_store: Open, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    (made,) = [image("a", names=["a:v1"])]
    loaded(store, docker_archive(made))
    os.unlink(f"{store.content.root}/index.json")
    assert open_store(tmp_path / "store").resolve(made.id).id == made.id
