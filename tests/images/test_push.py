"""Pushes from a real store into registries over real sockets: lines, manifests, neighbours, failures, and back again."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import trio

from dockpy.errors import DockpyError, InvalidParameter, NotFound
from dockpy.images import archive
from dockpy.images.pull import Pulls
from dockpy.images.pull import Wanted as Pulled
from dockpy.images.push import AT_ONCE, Pushes, Wanted
from dockpy.images.store import ImageStore
from dockpy.oci.platform import parse_platform
from dockpy.oci.reference import parse_reference
from dockpy.registry.auth import ANONYMOUS, Credentials
from dockpy.registry.errors import Denied, NeedsLogin, RegistryError
from dockpy.registry.session import Retries
from tests.images.archives import MACHINE, Made, docker_archive, image, oci_archive, sha256
from tests.images.conftest import Open
from tests.registry.taker import Taker, taking

QUICK = Retries(attempts=3, first=0.01, longest=2.0)
Line = Mapping[str, object]


@pytest.fixture
def taker() -> Iterator[Taker]:
    with taking(Taker()) as served:
        yield served


def push(
    store: ImageStore, name: str, credentials: Credentials = ANONYMOUS, platform: str = ""
) -> list[Line]:
    lines: list[Line] = []

    async def tell(line: Line) -> None:
        lines.append(line)

    async def run() -> None:
        reference = parse_reference(name)
        wanted = Wanted(reference, parse_platform(platform) if platform else None, credentials)
        pushes = Pushes(store, retries=QUICK, pushed=lambda one: lines.append({"pushed": one}))
        with trio.fail_after(20):
            await pushes.push(wanted, tell)
        assert lines.pop() == {"pushed": reference}

    trio.run(run)
    return lines


def pull(store: ImageStore, name: str) -> None:
    async def tell(line: Line) -> None: ...

    async def run() -> None:
        with trio.fail_after(20):
            await Pulls(store, retries=QUICK).pull(Pulled(parse_reference(name)), tell)

    trio.run(run)


def told(lines: list[Line]) -> list[str]:
    return [
        f"{line['id']}: {line['status']}" if "id" in line else str(line["status"])
        for line in lines
        if not line.get("progressDetail") and "aux" not in line
    ]


def load(store: ImageStore, made: Made, kind: Callable[[Made], bytes] = docker_archive) -> None:
    archive.load(store, io.BytesIO(kind(made)).read, lambda line: None)


def blobs(store: ImageStore) -> set[str]:
    return set(store.content.digests())


def test_a_loaded_image_is_compressed_once_and_told_in_dockers_words(
    store: ImageStore, open_store: Open, taker: Taker, tmp_path: Path
) -> None:
    name = f"{taker.host}/team/app:v1"
    made = image("one", "two", names=[name, "other:v2"])
    load(store, made)
    lines = push(store, name)
    short = [sha256(one)[7:19] for one in made.layers]
    kind, data = taker.manifests["team/app"]["v1"]
    digest = sha256(data)
    words = told(lines)
    assert words[:3] == [
        f"The push refers to repository [{taker.host}/team/app]",
        f"{short[1]}: Preparing",
        f"{short[0]}: Preparing",
    ]
    assert sorted(words[3:5]) == sorted(f"{one}: Pushed" for one in short)
    assert words[5:] == [f"v1: digest: {digest} size: {len(data)}"]
    result = {"Tag": "v1", "Digest": digest, "Size": len(data)}
    assert lines[-1] == {"progressDetail": {}, "aux": result}

    manifest = json.loads(data)
    assert kind == manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert [one["mediaType"][-8:] for one in manifest["layers"]] == ["tar+gzip"] * 2
    sent = [taker.blobs["team/app"][one["digest"]] for one in manifest["layers"]]
    assert [gzip.decompress(one) for one in sent] == list(made.layers)
    assert taker.blobs["team/app"][manifest["config"]["digest"]] == made.config

    # The store has what the registry has, and no layer twice.
    found = store.resolve("other:v2")
    assert found.id == made.id and found.descriptor.digest == digest
    assert found.repo_digests == (f"{taker.host}/team/app@{digest}",)
    assert blobs(store) == {digest, made.id, *(sha256(one) for one in sent)}
    again = told(push(store, name))[3:5]
    assert sorted(again) == sorted(f"{one}: Layer already exists" for one in short)

    other = open_store(tmp_path / "other")
    made_again = image("one", "two", names=[f"{taker.host}/other/app:v1"])
    load(other, made_again)
    push(other, f"{taker.host}/other/app:v1")
    assert taker.manifests["other/app"]["v1"] == (kind, data)  # deterministic


def test_a_manifest_that_came_with_its_image_goes_as_it_is(
    store: ImageStore, open_store: Open, taker: Taker, tmp_path: Path
) -> None:
    name = f"{taker.host}/a/b:v1"
    load(store, image("x", names=[name], compress="gzip"), oci_archive)
    before = store.resolve(name).descriptor.digest
    push(store, name)
    assert sha256(taker.manifests["a/b"]["v1"][1]) == before
    other = open_store(tmp_path / "other")
    pull(other, name)
    assert other.resolve(name).descriptor == store.resolve(name).descriptor
    assert other.resolve(name).repo_digests == store.resolve(name).repo_digests


def test_a_pulled_image_of_plain_tars_keeps_its_digest(store: ImageStore, taker: Taker) -> None:
    name = f"{taker.host}/a/b:v1"
    made = image("x")
    data = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": made.id, "size": len(made.config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(made.layers[0]), "size": len(made.layers[0])}],
        }
    ).encode()  # fmt: skip
    taker.blobs["a/b"] = {made.id: made.config, sha256(made.layers[0]): made.layers[0]}
    taker.manifests["a/b"] = {"v1": ("application/vnd.oci.image.manifest.v1+json", data)}
    pull(store, name)
    store.tag(name, f"{taker.host}/a/c:v1")
    words = told(push(store, f"{taker.host}/a/c:v1"))
    assert words[2].endswith(": Mounted from a/b")
    assert taker.manifests["a/c"]["v1"][1] == data


def test_a_neighbours_layers_are_taken_over(store: ImageStore, taker: Taker) -> None:
    first, second = f"{taker.host}/a/one:v1", f"{taker.host}/a/two:v1"
    load(store, image("x", "y", names=[first, second]))
    push(store, first)
    taker.seen.clear()
    words = told(push(store, second))
    assert [word.partition(": ")[2] for word in words[3:5]] == ["Mounted from a/one"] * 2
    assert len(taker.asked("PUT", "/blobs/")) == 1  # the config

    taker.blobs["a/one"].clear()  # what the store knows is not so any more
    third = f"{taker.host}/a/three:v1"
    store.tag(first, third)
    taker.blobs["a/two"].clear()
    assert [one.partition(": ")[2] for one in told(push(store, third))[3:5]] == ["Pushed"] * 2
    assert not taker.uploads  # none is left open


def test_two_pushes_at_once_are_both_known(store: ImageStore, taker: Taker) -> None:
    names = [f"{taker.host}/a/b:v1", f"{taker.host}/c/d:v1"]
    load(store, image("x", names=names))
    pushes = Pushes(store, retries=QUICK)

    async def tell(line: Line) -> None: ...

    async def run() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(pushes.push, Wanted(parse_reference(name)), tell)

    trio.run(run)
    digest = store.resolve(names[0]).descriptor.digest
    repositories = (f"{taker.host}/a/b@{digest}", f"{taker.host}/c/d@{digest}")
    assert store.resolve(names[1]).repo_digests == repositories
    assert taker.manifests["a/b"]["v1"] == taker.manifests["c/d"]["v1"]


def test_all_tags_and_no_others(store: ImageStore, taker: Taker) -> None:
    name = f"{taker.host}/a/b"
    load(store, image("x", names=[f"{name}:v1", f"{name}:v3", f"{taker.host}/a/bc:v1"]))
    load(store, image("x", "y", names=[f"{name}:v2"]))
    words = [word for word in told(push(store, name)) if "digest" in word]
    assert [word.partition(":")[0] for word in words] == ["v1", "v2", "v3"]
    assert words[0].partition(":")[2] == words[2].partition(":")[2]
    assert {tag for tag in taker.manifests["a/b"] if ":" not in tag} == {"v1", "v2", "v3"}
    assert list(taker.manifests) == ["a/b"]
    assert len(store.resolve(f"{name}:v2").repo_digests) == 1


def test_many_layers_wait_their_turn(store: ImageStore, taker: Taker) -> None:
    name = f"{taker.host}/a/b:v1"
    count = AT_ONCE + 4
    load(store, image(*(f"{n}" for n in range(count)), names=[name]))
    words = [word.partition(": ")[2] for word in told(push(store, name))]
    assert words.count("Preparing") == words.count("Pushed") == count
    assert words.count("Waiting") == count - AT_ONCE
    assert len(json.loads(taker.manifests["a/b"]["v1"][1])["layers"]) == count


@pytest.mark.parametrize(
    ("name", "platform", "kind", "text"),
    [
        ("/no/such:v1", "", NotFound, "An image does not exist locally with the tag: {host}/no/such"),
        ("/a/b:v2", "", NotFound, "tag does not exist: {host}/a/b:v2"),
        ("/a/b@sha256:" + "0" * 64, "", InvalidParameter, "cannot push a digest reference"),
        ("/a/b:v1", "linux/s390x", NotFound, "does not provide the specified platform (linux/s390x)"),
    ],
)  # fmt: skip
def test_what_cannot_be_pushed_is_told(
    store: ImageStore, taker: Taker, name: str, platform: str, kind: type[DockpyError], text: str
) -> None:
    load(store, image("x", names=[f"{taker.host}/a/b:v1"]))
    with pytest.raises(kind) as raised:
        push(store, taker.host + name, platform=platform)
    assert text.format(host=taker.host) in str(raised.value)
    assert not taker.seen
    push(store, f"{taker.host}/a/b:v1", platform=f"linux/{MACHINE}")


def test_who_may_push_is_the_registrys_to_say(store: ImageStore, taker: Taker) -> None:
    taker.tokens, taker.his = True, "mine/"
    mine, theirs = f"{taker.host}/mine/app:v1", f"{taker.host}/theirs/app:v1"
    load(store, image("x", names=[mine, theirs]))
    with pytest.raises(Denied, match="^denied: requested access to the resource is denied$"):
        push(store, mine)
    with pytest.raises(NeedsLogin, match="incorrect username or password"):
        push(store, mine, Credentials("me", "wrong"))
    push(store, mine, Credentials("me", "secret"))
    assert "repository:mine/app:pull,push" in taker.scopes
    with pytest.raises(Denied, match="^denied: "):
        push(store, theirs, Credentials("me", "secret"))
    assert list(taker.manifests) == ["mine/app"]
    assert len(store.resolve(mine).repo_digests) == 1


def test_a_registry_that_goes_away_leaves_the_store_as_it_was(
    store: ImageStore, taker: Taker
) -> None:
    name = f"{taker.host}/a/b:v1"
    load(store, image(os.urandom(40_000).hex(), "y", names=[name]))
    before, held = store.resolve(name), blobs(store)
    taker.cuts = [10_000] * 100
    taker.forgets = True
    with pytest.raises((RegistryError, DockpyError), match="cut|closed"):
        push(store, name)
    assert store.resolve(name) == before and blobs(store) == held
    taker.cuts = []
    assert told(push(store, name))[-1].startswith("v1: digest: ")


def test_an_old_registry_gets_dockers_schema_2(store: ImageStore, taker: Taker) -> None:
    plain, packed = f"{taker.host}/a/plain:v1", f"{taker.host}/a/packed:v1"
    load(store, image("x", names=[plain]))
    load(store, image("y", names=[packed, "other:v1"], compress="gzip"), oci_archive)
    push(store, packed)
    first = store.resolve(packed)
    taker.old = True
    store.tag(packed, f"{taker.host}/b/packed:v1")
    for name in (plain, f"{taker.host}/b/packed:v1"):
        lines = push(store, name)
        kind, data = taker.manifests[parse_reference(name).path]["v1"]
        assert kind == "application/vnd.docker.distribution.manifest.v2+json"
        assert {one["mediaType"] for one in json.loads(data)["layers"]} == {
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        }
        assert told(lines)[-1] == f"v1: digest: {sha256(data)} size: {len(data)}"
        assert f"{parse_reference(name).name}@{sha256(data)}" in store.resolve(name).repo_digests
    # A digest that is known elsewhere stays what it was.
    assert store.resolve(first.repo_digests[0]).id == first.id
    assert store.content.has(first.descriptor.digest)
    taker.old = False
    assert "Layer already exists" in told(push(store, packed))[2]


def test_an_image_removed_meanwhile_is_still_sent(store: ImageStore, taker: Taker) -> None:
    name = f"{taker.host}/a/b:v1"
    load(store, image("x", names=[name]))

    async def tell(line: Line) -> None:
        if line.get("status") == "Preparing":
            store.remove(name, True, lambda _: ())

    async def run() -> None:
        with trio.fail_after(20):
            await Pushes(store, retries=QUICK).push(Wanted(parse_reference(name)), tell)

    trio.run(run)
    assert "v1" in taker.manifests["a/b"]
    assert not store.list() and not blobs(store)


def test_a_push_that_is_given_up_ends_at_once(store: ImageStore, taker: Taker) -> None:
    name = f"{taker.host}/a/b:v1"
    load(store, image(os.urandom(2 << 20).hex(), names=[name]))
    held = blobs(store)

    async def run() -> None:
        with trio.fail_after(20), trio.CancelScope() as scope:

            async def tell(line: Line) -> None:
                if line.get("status") == "Preparing":
                    scope.cancel()

            await Pushes(store, retries=QUICK).push(Wanted(parse_reference(name)), tell)

    trio.run(run)
    assert blobs(store) == held and not taker.manifests
