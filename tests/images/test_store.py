"""dockpy/images/store.py: names, ids, docker's rules of removal, cuts, and skopeo as a witness."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dockpy.errors import Conflict, InvalidParameter, NotFound
from dockpy.images.store import ImageStore
from tests.images.archives import docker_archive, image
from tests.images.conftest import Open, in_tree, is_empty
from tests.images.test_archive import loaded

Load = Callable[[bytes], list[str]]
CONTAINER = "c0ffee" * 10 + "beef"


def nobody(identifier: str) -> list[str]:
    return []


def somebody(identifier: str) -> list[str]:
    return [CONTAINER]


def names(store: ImageStore, text: str) -> list[str]:
    return list(store.resolve(text).repo_tags)


def test_an_image_is_found_by_names_and_ids(store: ImageStore, load: Load) -> None:
    made = image("one", names=["some.host:5000/a/b:v1", "busybox"])
    load(docker_archive(made))
    found = store.resolve("busybox")
    for text in (
        "busybox:latest",
        "docker.io/library/busybox",
        "docker.io/busybox:latest",
        "index.docker.io/library/busybox",
        "some.host:5000/a/b:v1",
        made.id,
        made.id[7:],
        made.id[:20],
        made.id[7:12],
        f"busybox@{found.descriptor.digest}",
        f"busybox:other@{found.descriptor.digest}",
    ):
        assert store.resolve(text) == found, text
    assert found.id == made.id
    assert found.repo_tags == ("busybox:latest", "some.host:5000/a/b:v1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing", "No such image: nothing:latest"),
        ("nothing:v1", "No such image: nothing:v1"),
        ("docker.io/library/nothing:v1", "No such image: nothing:v1"),
        ("a.b/nothing", "No such image: a.b/nothing:latest"),
        ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
        ("0" * 64, "No such image: sha256:" + "0" * 64),
        ("nothing@sha256:" + "0" * 64, "No such image: nothing@sha256:" + "0" * 64),
    ],
)
def test_a_missing_image_is_told_in_dockers_words(store: ImageStore, text: str, told: str) -> None:
    with pytest.raises(NotFound) as caught:
        store.resolve(text)
    assert str(caught.value) == told


@pytest.mark.parametrize("text", ["UPPER", "a b", "", "a::b", "-a", "a@sha256:12", "http://a/b"])
def test_what_is_no_reference_is_refused(store: ImageStore, text: str) -> None:
    with pytest.raises(InvalidParameter):
        store.resolve(text)


def test_the_beginning_of_two_ids_is_ambiguous(store: ImageStore, load: Load) -> None:
    made = [image(str(number)) for number in range(17)]
    load(docker_archive(*made))
    first = [one.id[7] for one in made]
    shared = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(NotFound, match="ambiguous"):
        store.resolve(f"sha256:{shared}")


def test_a_name_moves_and_leaves_its_image_dangling(store: ImageStore, load: Load) -> None:
    one, two = image("one", names=["a:v1"]), image("two", names=["b:v1"])
    load(docker_archive(one, two))
    tagged = store.tag("b:v1", "a:v1")
    assert tagged.id == two.id
    assert names(store, two.id) == ["a:v1", "b:v1"]
    assert names(store, one.id) == []
    store.tag(one.id, "c")
    assert names(store, one.id) == ["c:latest"]
    assert len(store.list()) == 2


def test_bad_targets_of_tag(store: ImageStore, load: Load) -> None:
    load(docker_archive(image("one", names=["a"])))
    with pytest.raises(InvalidParameter, match="refusing to create a tag with a digest reference"):
        store.tag("a", "b@sha256:" + "0" * 64)
    with pytest.raises(InvalidParameter):
        store.tag("a", "Not/Lower")
    with pytest.raises(NotFound):
        store.tag("missing", "b")


def test_removal_untags_first_and_deletes_with_the_last_name(store: ImageStore, load: Load) -> None:
    made = image("one", "two", names=["a:v1", "b:v1"])
    load(docker_archive(made))
    chains = store.resolve("a:v1").chain_ids
    assert store.remove("a:v1", False, nobody) == [{"Untagged": "a:v1"}]
    assert store.remove("b:v1", False, nobody) == [
        {"Untagged": "b:v1"},
        {"Deleted": made.id},
        {"Deleted": chains[1]},
        {"Deleted": chains[0]},
    ]
    assert is_empty(store)


def test_removal_keeps_layers_that_others_have(store: ImageStore, load: Load) -> None:
    one, two = image("base", "one", names=["a:v1"]), image("base", "two", names=["b:v1"])
    load(docker_archive(one, two))
    kept = store.resolve("b:v1")
    gone = store.remove("a:v1", False, nobody)
    assert {"Deleted": kept.chain_ids[0]} not in gone
    assert all(store.snapshots.has(chain) for chain in kept.chain_ids)
    assert all(store.content.has(layer.digest) for layer in kept.manifest.layers)


def test_removal_by_id(store: ImageStore, load: Load) -> None:
    made = image("one", names=["a:v1", "b:v1"])
    load(docker_archive(made))
    with pytest.raises(Conflict) as caught:
        store.remove(made.id, False, nobody)
    assert str(caught.value) == (
        f"conflict: unable to delete {made.id[7:19]} (must be forced)"
        " - image is referenced in multiple repositories"
    )
    gone = store.remove(made.id[7:19], True, nobody)
    assert gone[:3] == [{"Untagged": "a:v1"}, {"Untagged": "b:v1"}, {"Deleted": made.id}]
    assert is_empty(store)


def test_an_image_of_a_container_is_not_removed(store: ImageStore, load: Load) -> None:
    made = image("one", names=["a:v1"])
    load(docker_archive(made))
    short, container = made.id[7:19], CONTAINER[:12]
    with pytest.raises(Conflict) as caught:
        store.remove("a:v1", False, somebody)
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "a:v1" (must force) - container'
        f" {container} is using its referenced image {short}"
    )
    with pytest.raises(Conflict) as caught:
        store.remove(short, False, somebody)
    assert str(caught.value) == (
        f"conflict: unable to delete {short} (must be forced)"
        f" - image is being used by stopped container {container}"
    )
    with pytest.raises(Conflict) as caught:
        store.remove(short, True, somebody, running=lambda container: True)
    assert str(caught.value) == (
        f"conflict: unable to delete {short} (cannot be forced)"
        f" - image is being used by running container {container}"
    )
    assert names(store, made.id) == ["a:v1"]


def test_force_takes_the_name_of_a_running_image_and_leaves_the_image(
    store: ImageStore, load: Load
) -> None:
    made = image("one", names=["a:v1"])
    load(docker_archive(made))
    gone = store.remove("a:v1", True, somebody, running=lambda container: True)
    assert gone == [{"Untagged": "a:v1"}]
    assert names(store, made.id) == []


def test_a_tree_that_a_container_stands_on_outlives_its_image(
    store: ImageStore, load: Load
) -> None:
    made = image("base", "top", names=["a:v1"])
    load(docker_archive(made))
    chains = store.resolve("a:v1").chain_ids
    store.snapshots.prepare(CONTAINER, chains[-1])
    store.remove("a:v1", True, somebody)
    with pytest.raises(NotFound):
        store.resolve(made.id)
    assert in_tree(store, CONTAINER, "etc/file").read_text() == "top"
    store.snapshots.remove(CONTAINER)
    store.collect()
    assert is_empty(store)


def test_what_a_cut_left_is_collected(tmp_path: Path, open_store: Open) -> None:
    store = open_store(tmp_path / "store")
    kept = image("kept", names=["kept:v1"])
    loaded(store, docker_archive(kept))
    root = Path(store.content.root)
    orphan = store.content.put(b"put, and then the power went")
    (root / "ingest" / "half").write_bytes(b"half a layer")
    (root / "index.json.1.abcd.tmp").write_bytes(b"{")
    again = open_store(tmp_path / "store")
    assert not again.content.has(orphan)
    assert not (root / "ingest" / "half").exists()
    assert not (root / "index.json.1.abcd.tmp").exists()
    assert names(again, kept.id) == ["kept:v1"]


def test_a_removal_cut_after_the_index_is_finished_at_the_next_start(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store(tmp_path / "store")
    loaded(store, docker_archive(image("one", "two", names=["a:v1"])))
    empty = {"schemaVersion": 2, "manifests": []}
    Path(store.content.root, "index.json").write_text(json.dumps(empty))
    assert is_empty(open_store(tmp_path / "store"))


def test_nothing_is_collected_while_an_entry_cannot_be_read(store: ImageStore, load: Load) -> None:
    made = image("one", names=["a:v1"])
    load(docker_archive(made, image("two", names=["b:v1"])))
    layer = store.resolve("a:v1").manifest.layers[0].digest
    os.truncate(store.content.path(store.resolve("a:v1").descriptor.digest), 5)
    fresh = ImageStore(
        store.content,
        store.snapshots,
        f"{store.content.root}/index.json",
        f"{store.content.root}/lock",
    )
    fresh.collect()
    assert fresh.content.has(layer)
    assert names(fresh, "b:v1") == ["b:v1"]
    # Its name can be removed, and everything is as it should be then.
    assert fresh.remove("a:v1", False, nobody) == [{"Untagged": "a:v1"}]
    assert not fresh.content.has(layer)
    assert loaded(fresh, docker_archive(made)) == ["a:v1"]


def test_one_archive_loaded_by_many_at_once(store: ImageStore) -> None:
    data = docker_archive(image("x" * (3 << 20), "two", names=["a:v1"], compress="gzip"))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            loaded(store, data)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(store.list()) == 1
    store.remove("a:v1", False, nobody)
    assert is_empty(store)


def test_an_image_that_is_being_loaded_is_not_collected(store: ImageStore, load: Load) -> None:
    load(docker_archive(image("one", names=["a:v1"])))
    with store.writing():
        blob = store.content.put(b"arriving")
        store.remove("a:v1", False, nobody)
        assert store.content.has(blob)
    assert is_empty(store)


def test_many_threads_tag_and_untag_and_no_name_is_lost(store: ImageStore, load: Load) -> None:
    load(docker_archive(image("one", names=["a:v1"])))

    def work(number: int) -> None:
        for turn in range(10):
            store.tag("a:v1", f"n{number}:t{turn}")
        for turn in range(0, 10, 2):
            store.remove(f"n{number}:t{turn}", False, nobody)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [f"n{number}:t{turn}" for number in range(4) for turn in range(1, 10, 2)]
    assert names(store, "a:v1") == sorted(["a:v1", *expected])


def test_the_store_is_an_oci_layout_that_skopeo_reads(store: ImageStore, load: Load) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("this machine lacks skopeo")
    load(docker_archive(image("one", names=["localhost/a:v1", "b"]), image("two", names=["c:v2"])))
    for name in ("localhost/a:v1", "b:latest", "c:v2"):
        shown = subprocess.run(
            [skopeo, "inspect", "--config", f"oci:{store.content.root}:{name}"],
            check=True, capture_output=True,
        )  # fmt: skip
        diff_ids = json.loads(shown.stdout)["rootfs"]["diff_ids"]
        assert diff_ids == list(store.resolve(name).config.diff_ids)
