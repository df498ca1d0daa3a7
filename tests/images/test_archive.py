"""dockpy/images/archive.py: archives of all writers in, ours out; hostile ones leave nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dockpy.errors import DockpyError, InvalidParameter, NotFound
from dockpy.images import archive
from dockpy.images.store import ImageStore
from dockpy.oci.platform import parse_platform
from tests.images.archives import (
    MACHINE,
    Layout,
    docker_archive,
    docker_members,
    image,
    oci_archive,
    sha256,
    tar_of,
    zstd,
)
from tests.images.conftest import Open, in_tree, is_empty

Load = Callable[[bytes], list[str]]


def loaded(store: ImageStore, data: bytes, platform: str = "") -> list[str]:
    wanted = parse_platform(platform) if platform else None
    return archive.load(store, io.BytesIO(data).read, lambda message: None, wanted)


def saved(store: ImageStore, *refs: str) -> bytes:
    buffer = io.BytesIO()
    archive.save(store, refs, buffer.write)
    return buffer.getvalue()


def content(store: ImageStore, text: str) -> str:
    """The file `etc/file` of a container made from an image."""
    found = store.resolve(text)
    store.snapshots.prepare("probe", store.unpack(found))
    try:
        return in_tree(store, "probe", "etc/file").read_text()
    finally:
        store.snapshots.remove("probe")


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"this machine lacks {program}")
    return path


@pytest.mark.parametrize("compress", ["", "gzip", "zstd"])
@pytest.mark.parametrize("kind", [docker_archive, oci_archive])
def test_both_kinds_and_all_compressions(
    store: ImageStore, kind: Callable[..., bytes], compress: str
) -> None:
    if compress == "zstd":
        need("zstd")
    made = image("one", "two", names=["a:v1", "localhost/b:v2"], compress=compress)
    assert loaded(store, kind(made)) == ["a:v1", "localhost/b:v2"]
    assert store.resolve("a:v1").id == made.id
    assert content(store, "localhost/b:v2") == "two"


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_the_archive_itself_may_be_compressed(
    store: ImageStore, pack: Callable[[bytes], bytes]
) -> None:
    if pack is zstd:
        need("zstd")
    assert loaded(store, pack(docker_archive(image("one", names=["a"])))) == ["a:latest"]


def test_members_come_in_any_order_and_in_small_pieces(store: ImageStore) -> None:
    made = image("one", "two", "three", names=["a:v1"], compress="gzip")
    members = docker_members(made)
    random.Random(7).shuffle(members)
    stream = io.BytesIO(tar_of(members))
    told: list[object] = []
    archive.load(store, lambda size: stream.read(min(size, 777)), told.append)
    assert content(store, "a:v1") == "three"
    assert told[-1] == {"stream": "Loaded image: a:v1\n"}


def test_an_image_without_a_name_is_told_by_its_id(store: ImageStore) -> None:
    made = image("one")
    told: list[object] = []
    assert archive.load(store, io.BytesIO(docker_archive(made)).read, told.append) == [made.id]
    assert told[-1] == {"stream": f"Loaded image ID: {made.id}\n"}
    assert store.resolve(made.id).repo_tags == ()


def test_a_name_that_is_taken_moves_and_that_is_told(store: ImageStore, load: Load) -> None:
    old, new = image("old", names=["a:v1"]), image("new", names=["a:v1"])
    load(docker_archive(old))
    told: list[object] = []
    archive.load(store, io.BytesIO(docker_archive(new)).read, told.append)
    assert {
        "stream": f"The image a:v1 already exists, renaming the old one with ID {old.id} to empty string\n"
    } in told
    assert store.resolve("a:v1").id == new.id
    assert store.resolve(old.id).repo_tags == ()


def test_loading_twice_changes_nothing(store: ImageStore, load: Load) -> None:
    data = docker_archive(image("one", names=["a:v1"]))
    load(data)
    before = sorted(store.content.digests())
    load(data)
    assert sorted(store.content.digests()) == before
    assert len(store.list()) == 1


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_layers_of_old_docker_are_links_to_each_other(store: ImageStore, kind: str) -> None:
    made = image("same", names=["a:v1"])
    config = json.loads(made.config)
    config["rootfs"]["diff_ids"] *= 2
    link = "../first/layer.tar" if kind == "symlink" else "first/layer.tar"
    manifest = [
        {
            "Config": "c.json",
            "RepoTags": ["a:v1"],
            "Layers": ["first/layer.tar", "second/layer.tar"],
        }
    ]
    members = [
        ("second/layer.tar", (kind, link)),
        ("c.json", json.dumps(config).encode()),
        ("./first/layer.tar", made.layers[0]),
        ("manifest.json", json.dumps(manifest).encode()),
    ]
    loaded(store, tar_of(members))
    assert len(store.resolve("a:v1").chain_ids) == 2


def test_an_index_in_an_index_gives_this_hosts_image_or_the_one_asked_for(
    store: ImageStore,
) -> None:
    other = "arm64" if MACHINE == "amd64" else "amd64"
    ours, theirs = image("ours"), image("theirs", architecture=other)
    layout = Layout()
    entries = [
        layout.manifest(theirs, platform={"os": "linux", "architecture": other}),
        layout.manifest(ours, platform={"os": "linux", "architecture": MACHINE}),
        layout.manifest(
            image("attestation"), platform={"os": "unknown", "architecture": "unknown"}
        ),
    ]
    layout.name(layout.index([layout.index(entries)]), "docker.io/library/both:v1")
    loaded(store, layout.archive())
    assert content(store, "both:v1") == "ours"
    loaded(store, layout.archive(), f"linux/{other}")
    assert store.resolve("both:v1").config.platform.architecture == other
    with pytest.raises(NotFound, match="linux/s390x"):
        loaded(store, layout.archive(), "linux/s390x")


def test_a_short_ref_name_is_no_name(store: ImageStore) -> None:
    layout = Layout()
    one, two = image("one"), image("two")
    layout.name(layout.manifest(one), short="latest")
    layout.name(layout.manifest(two), short="localhost/two:v2")
    assert loaded(store, layout.archive()) == [one.id, "localhost/two:v2"]


def test_the_manifests_digest_survives_an_oci_archive(store: ImageStore) -> None:
    layout = Layout()
    entry = layout.manifest(image("one"))
    layout.name(entry, "docker.io/library/a:v1")
    loaded(store, layout.archive())
    assert store.resolve("a:v1").descriptor.digest == entry["digest"]


# Saving


@pytest.mark.parametrize("compress", ["", "gzip"])
def test_save_and_load_keep_ids_names_and_manifests(
    tmp_path: Path, open_store: Open, compress: str
) -> None:
    first, second = open_store(tmp_path / "first"), open_store(tmp_path / "second")
    one = image("base", "one", names=["a:v1", "a:v2", "b:v1"], compress=compress)
    two = image("base", "two", names=["c:v1"], compress=compress)
    loaded(first, docker_archive(one, two))
    data = saved(first, "a:v1", "c:v1", "a:v1")
    assert loaded(second, data) == ["a:v1", "c:v1"]
    for name in ("a:v1", "c:v1"):
        assert second.resolve(name).id == first.resolve(name).id
        assert second.resolve(name).descriptor == first.resolve(name).descriptor
    assert second.resolve("a:v1").repo_tags == ("a:v1",)


def test_save_is_docker_readable_too(store: ImageStore, tmp_path: Path) -> None:
    one = image("base", "one", names=["a:v1"])
    loaded(store, docker_archive(one, image("base", "two", names=["a:v2"])))
    with tarfile.open(fileobj=io.BytesIO(saved(store, "a"))) as opened:
        names = opened.getnames()
        assert len(names) == len(set(names))
        items = json.load(opened.extractfile("manifest.json"))  # type: ignore[arg-type]  # is there
        assert sorted(tag for item in items for tag in item["RepoTags"]) == ["a:v1", "a:v2"]
        for item in items:
            config = json.load(opened.extractfile(item["Config"]))  # type: ignore[arg-type]
            for path, diff_id in zip(item["Layers"], config["rootfs"]["diff_ids"]):
                layer = opened.extractfile(path).read()  # type: ignore[union-attr]
                assert sha256(layer) == diff_id
        repositories = json.load(opened.extractfile("repositories"))  # type: ignore[arg-type]
        assert set(repositories["a"]) == {"v1", "v2"}


def test_save_by_id_brings_no_name(store: ImageStore, tmp_path: Path, open_store: Open) -> None:
    made = image("one", names=["a:v1"])
    loaded(store, docker_archive(made))
    other = open_store(tmp_path / "other")
    assert loaded(other, saved(store, made.id[7:19])) == [made.id]


def test_save_of_a_missing_image_writes_nothing(store: ImageStore, load: Load) -> None:
    load(docker_archive(image("one", names=["a:v1"])))
    written: list[bytes] = []
    with pytest.raises(NotFound, match="No such image: b:v1"):
        archive.save(store, ["a:v1", "b:v1"], written.append)
    assert written == []


def test_skopeo_reads_what_we_save_and_writes_what_we_load(
    store: ImageStore, tmp_path: Path, open_store: Open
) -> None:
    skopeo = need("skopeo")
    made = image("one", "two", names=["localhost/a:v1"])
    loaded(store, docker_archive(made))
    ours = tmp_path / "ours.tar"
    ours.write_bytes(saved(store, "localhost/a:v1"))
    for number, target in enumerate(("docker-archive", "oci-archive")):
        theirs = tmp_path / f"theirs{number}.tar"
        for source in (f"docker-archive:{ours}:localhost/a:v1", f"oci-archive:{ours}:v1"):
            theirs.unlink(missing_ok=True)
            command = [skopeo, "copy", "-q", source, f"{target}:{theirs}:localhost/c:v1"]
            subprocess.run(command, check=True, capture_output=True)
            again = open_store(tmp_path / f"{target}-{source[:3]}")
            assert loaded(again, theirs.read_bytes()) == ["localhost/c:v1"]
            assert content(again, "localhost/c:v1") == "two"
            if target == "docker-archive":
                assert again.resolve("localhost/c:v1").config.diff_ids == tuple(
                    map(sha256, made.layers)
                )


def test_podman_reads_what_we_save(store: ImageStore, tmp_path: Path) -> None:
    podman = need("podman")
    if os.getuid() != 0:
        pytest.skip("podman keeps a store of its own for other users than root")
    loaded(store, docker_archive(image("one", names=["localhost/a:v1"])))
    (tmp_path / "a.tar").write_bytes(saved(store, "localhost/a:v1"))
    with tempfile.TemporaryDirectory(
        dir="/tmp"
    ) as short:  # podman wants no more than 50 characters
        place = ["--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
        command = [podman, *place, "load", "-q", "-i", str(tmp_path / "a.tar")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "localhost/a:v1" in done.stdout, done.stderr


# Hostile and broken archives


def of_members(*members: tuple[str, object]) -> bytes:
    return tar_of(members)


def wrong_blob() -> bytes:
    layout = Layout()
    layout.name(layout.manifest(image("one")), "a:v1")
    name = next(n for n, data in layout.members.items() if data == image("one").layers[0])
    layout.members[name] = layout.members[name].replace(b"one", b"eno")
    return layout.archive()


def wrong_large_blob() -> bytes:
    layout = Layout()
    layout.name(layout.manifest(image("x" * (2 << 20))), "a:v1")
    name = next(n for n, data in layout.members.items() if len(data) > 2 << 20)
    layout.members[name] = layout.members[name].replace(b"xx", b"xy")
    return layout.archive()


def wrong_size() -> bytes:
    layout = Layout()
    entry = layout.manifest(image("one"))
    layout.name({**entry, "size": entry["size"] + 1}, "a:v1")
    return layout.archive()


def missing_layer() -> bytes:
    return tar_of(
        m for m in docker_members(image("one", "two", names=["a"])) if "layer" not in m[0]
    )


def manifest_of(document: object, *members: tuple[str, object]) -> bytes:
    return of_members(("manifest.json", json.dumps(document).encode()), *members)


def with_header(**fields: bytes) -> bytes:
    """A docker archive whose first header has other bytes in some fields, and a right check sum."""
    places = {"size": (124, 12), "mode": (100, 8)}
    data = bytearray(docker_archive(image("one", names=["a"])))
    for field, value in fields.items():
        start, length = places[field]
        data[start : start + length] = value.ljust(length, b"\0")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def loop_of_links() -> bytes:
    item = {"Config": "c.json", "RepoTags": ["a"], "Layers": ["x/layer.tar"]}
    return manifest_of(
        [item],
        ("c.json", image("one").config),
        ("x/layer.tar", ("symlink", "../y/layer.tar")),
        ("y/layer.tar", ("symlink", "../x/layer.tar")),
    )


def link_out() -> bytes:
    item = {"Config": "c.json", "RepoTags": ["a"], "Layers": ["x/layer.tar"]}
    return manifest_of(
        [item], ("c.json", image("one").config), ("x/layer.tar", ("symlink", "/etc/passwd"))
    )


def deep_indexes() -> bytes:
    layout = Layout()
    entry = layout.manifest(image("one"))
    for _ in range(20):
        entry = layout.index([entry])
    layout.name(entry, "a:v1")
    return layout.archive()


def ambiguous() -> bytes:
    layout = Layout()
    document = {"schemaVersion": 2, "manifests": [layout.manifest(image("one"))], "layers": []}
    media = "application/vnd.oci.image.index.v1+json"
    layout.name(layout.blob(json.dumps(document).encode(), media), "a:v1")
    return layout.archive()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "not a tar": lambda: b"not a tar at all",
    "long rubbish": lambda: os.urandom(100_000),
    "zeros": lambda: bytes(20_000),
    "gzip of nothing": lambda: b"\x1f\x8bjunk",
    "gzip cut short": lambda: gzip.compress(docker_archive(image("one", names=["a"])))[:-20],
    "gzip that lies": lambda: (
        gzip.compress(docker_archive(image("one", names=["a"])))[:-8] + bytes(8)
    ),
    "zstd of nothing": lambda: b"\x28\xb5\x2f\xfd" + b"junk" * 9,
    "cut in a member": lambda: docker_archive(image("one" * 9999, names=["a"]))[:20_000],
    "no manifest": lambda: of_members(("etc/passwd", b"root")),
    "old repositories": lambda: of_members(("repositories", b"{}")),
    "manifest no JSON": lambda: of_members(("manifest.json", b"{{{{")),
    "manifest bomb": lambda: of_members(("manifest.json", b"[" * 500_000)),
    "manifest empty": lambda: manifest_of([]),
    "manifest of numbers": lambda: manifest_of([1, 2]),
    "config no string": lambda: manifest_of([{"Config": 7}]),
    "config missing": lambda: manifest_of([{"Config": "c.json", "Layers": []}]),
    "config outside": lambda: manifest_of([{"Config": "../../etc/passwd", "Layers": []}]),
    "config no image": lambda: manifest_of([{"Config": "c", "Layers": []}], ("c", b"[]")),
    "bad name": lambda: docker_archive(image("one", names=["UPPER CASE"])),
    "layer missing": missing_layer,
    "layers too few": lambda: docker_archive(image("one", diff_ids=["sha256:" + "0" * 64] * 2)),
    "diff id wrong": lambda: docker_archive(
        image("one", names=["a"], diff_ids=["sha256:" + "0" * 64])
    ),
    "diff id wrong, gzip": lambda: docker_archive(
        image("one", compress="gzip", diff_ids=["sha256:" + "0" * 64])
    ),
    "second diff id wrong": lambda: docker_archive(
        image("a", "b", diff_ids=[sha256(image("a").layers[0]), "sha256:" + "1" * 64])
    ),
    "diff id no digest": lambda: docker_archive(image("one", diff_ids=["../../x"])),
    "blob wrong": wrong_blob,
    "large blob wrong": wrong_large_blob,
    "descriptor's size wrong": wrong_size,
    "size of 8 EiB": lambda: with_header(size=b"\x80\0\0\0\x7f" + b"\xff" * 7),
    "size negative": lambda: with_header(size=b"\xff" * 11 + b"\0"),
    "size no number": lambda: with_header(size=b"9z9"),
    "size of 8 GiB and no data": lambda: with_header(size=b"77777777777"),
    "links in a circle": loop_of_links,
    "link out": link_out,
    "indexes in indexes": deep_indexes,
    "index and manifest at once": ambiguous,
    "too many layers": lambda: docker_archive(image(*map(str, range(128)))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_in_a_sentence_and_leaves_nothing(
    store: ImageStore, kind: str
) -> None:
    with pytest.raises(DockpyError) as caught:
        loaded(store, HOSTILE[kind]())
    assert "\n" not in str(caught.value) and 5 < len(str(caught.value)) < 400
    assert is_empty(store)


def test_a_bad_image_beside_good_ones_leaves_those_that_came_before(store: ImageStore) -> None:
    good = image("good", names=["good:v1"])
    bad = image("bad", names=["bad:v1"], diff_ids=["sha256:" + "0" * 64])
    with pytest.raises(InvalidParameter):
        loaded(store, docker_archive(good, bad))
    assert [found.repo_tags for found in store.list()] == [("good:v1",)]
    assert len(store.snapshots.chains()) == 1


def test_a_reader_that_fails_leaves_nothing(store: ImageStore) -> None:
    data = io.BytesIO(docker_archive(image("one" * 999_999, names=["a"])))

    def read(size: int) -> bytes:
        if data.tell() > 1_000_000:
            raise ConnectionResetError("the client went away")
        return data.read(size)

    with pytest.raises(ConnectionResetError):
        archive.load(store, read, lambda message: None)
    assert is_empty(store)


def test_the_last_of_two_members_of_a_name_counts(store: ImageStore) -> None:
    made = image("right", names=["a:v1"])
    members = docker_members(made)
    layer = next(name for name, _ in members if name.endswith("layer.tar"))
    loaded(store, tar_of([(layer, b"x" * (2 << 20)), ("manifest.json", b"[]"), *members]))
    assert content(store, "a:v1") == "right"


def test_thousands_of_members_take_bounded_memory(store: ImageStore) -> None:
    made = image("one", names=["a:v1"])
    junk = [(f"junk/{number}", b"j" * 20_000) for number in range(4000)]
    data = tar_of([*junk, *docker_members(made)])
    source = io.BytesIO(data)
    tracemalloc.start()
    try:
        archive.load(store, source.read, lambda message: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20
    left = {hashlib.sha256(b"j" * 20_000).hexdigest()}
    assert not left & {digest[7:] for digest in store.content.digests()}


def test_a_large_layer_is_never_held_in_memory(store: ImageStore) -> None:
    made = image("x" * (48 << 20), names=["a:v1"])
    data = docker_archive(made)
    del made
    source = io.BytesIO(data)
    tracemalloc.start()
    try:
        archive.load(store, source.read, lambda message: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20
