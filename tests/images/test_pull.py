"""Pulls into a real store from a registry of ours, honest and lying, over real sockets."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import trio

from dockpy.errors import DockpyError, InvalidParameter, NotFound, Unauthorized
from dockpy.images.pull import Pulls, Wanted
from dockpy.images.store import ImageStore
from dockpy.oci.platform import parse_platform
from dockpy.oci.reference import parse_reference
from dockpy.registry.session import Retries
from tests.house.sources import TOP
from tests.images.archives import MACHINE, sha256, tar_of, zstd
from tests.registry.toy import Handler, Toy, always, cut_after, endless, first, serving

QUICK = Retries(attempts=3, first=0.01, longest=2.0)
INDEX = "application/vnd.oci.image.index.v1+json"
Line = Mapping[str, object]


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving(Toy()) as served:
        yield served


def layer(name: str, data: bytes) -> bytes:
    return tar_of([("etc", None), (f"etc/{name}", data)])


def put(toy: Toy, *plain: bytes, tag: str = "latest", architecture: str = MACHINE) -> list[bytes]:
    packed = [gzip.compress(one, 1, mtime=0) for one in plain]
    diff_ids = [sha256(one) for one in plain]
    config = {
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    toy.put_image(packed, diff_ids, tag, config=config)
    return packed


def pulling(store: ImageStore, retries: Retries = QUICK) -> Pulls:
    return Pulls(store, retries=retries)


def pull(
    store: ImageStore, name: str, platform: str = "", pulls: Pulls | None = None
) -> list[Line]:
    lines: list[Line] = []

    async def tell(line: Line) -> None:
        lines.append(line)

    async def run() -> None:
        reference = parse_reference(name)
        wanted = Wanted(
            reference,
            parse_platform(platform) if platform else None,
            all_tags=not reference.tag and not reference.digest,
        )
        with trio.fail_after(20):
            await (pulls or pulling(store)).pull(wanted, tell)

    try:
        trio.run(run)
    except DockpyError:
        assert not store.list()  # nothing partial is visible
        raise
    return lines


def told(lines: list[Line]) -> list[str]:
    return [
        f"{line['id']}: {line['status']}" if "id" in line else str(line["status"])
        for line in lines
        if not line.get("progressDetail")
    ]


def partials(store: ImageStore) -> list[str]:
    return os.listdir(f"{store.content.root}/partial")


def test_a_pull_is_told_in_dockers_words_and_leaves_an_image(store: ImageStore, toy: Toy) -> None:
    packed = put(toy, layer("a", os.urandom(300_000)), layer("b", b"b"))
    name = f"{toy.host}/x/y"
    lines = told(pull(store, f"{name}:latest"))
    short = [sha256(one)[7:19] for one in packed]
    digest = sha256(toy.manifests["latest"][1])
    assert lines[:3] == [
        "latest: Pulling from x/y",
        *(f"{one}: Pulling fs layer" for one in short),
    ]
    assert lines[-2:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}:latest"]
    for one in short:
        mine = [line.partition(": ")[2] for line in lines if line.startswith(one)]
        assert mine == [
            "Pulling fs layer",
            "Verifying Checksum",
            "Download complete",
            "Pull complete",
        ]
    image = store.resolve(f"{name}:latest")
    assert image.repo_digests == (f"{name}@{digest}",)
    assert all(store.content.has(one.digest) for one in image.manifest.layers)
    assert all(store.snapshots.has(chain) for chain in image.chain_ids)
    assert not partials(store)


def test_a_pull_with_nothing_new_is_one_head(store: ImageStore, toy: Toy) -> None:
    put(toy, layer("a", b"a"))
    name = f"{toy.host}/y:latest"
    pull(store, name)
    toy.seen.clear()
    lines = told(pull(store, name))
    assert [(one.method, one.path) for one in toy.seen] == [("HEAD", "/v2/y/manifests/latest")]
    assert lines[-1] == f"Status: Image is up to date for {name}"
    put(toy, layer("a", b"changed"))
    assert told(pull(store, name))[-1] == f"Status: Downloaded newer image for {name}"


def test_a_registry_without_head_is_asked_by_get(store: ImageStore, toy: Toy) -> None:
    put(toy, layer("a", b"a"))
    name = f"{toy.host}/y:latest"
    pull(store, name)

    def only_get(handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.answer(405)
        else:
            handler._registry("/v2/y/manifests/latest")

    toy.lies["/manifests/"] = only_get
    assert told(pull(store, name))[-1] == f"Status: Image is up to date for {name}"


def test_by_digest_and_all_tags(store: ImageStore, toy: Toy) -> None:
    [packed] = put(toy, layer("a", b"a"), tag="one")
    put(toy, layer("a", b"a"), layer("b", b"b"), tag="two")
    digest = sha256(toy.manifests["one"][1])
    pull(store, f"{toy.host}/y@{digest}")
    assert store.resolve(f"{toy.host}/y@{digest}").repo_tags == ()
    lines = told(pull(store, f"{toy.host}/y"))
    assert sorted(tag for image in store.list() for tag in image.repo_tags) == [
        f"{toy.host}/y:one",
        f"{toy.host}/y:two",
    ]
    assert f"{sha256(packed)[7:19]}: Already exists" in lines
    assert lines[-1] == f"Status: Downloaded newer image for {toy.host}/y"


def test_an_index_is_searched_for_the_platform(store: ImageStore, toy: Toy) -> None:
    entries = []
    for architecture in ("amd64", "arm64"):
        put(toy, layer("arch", architecture.encode()), tag=architecture, architecture=architecture)
        data = toy.manifests[architecture][1]
        entries.append(
            {
                "mediaType": toy.manifests[architecture][0],
                "digest": sha256(data),
                "size": len(data),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = toy.put_manifest({"schemaVersion": 2, "manifests": entries}, "latest", media_type=INDEX)
    name = f"{toy.host}/y:latest"
    pull(store, name)
    assert store.resolve(name).config.platform.architecture == MACHINE
    assert store.resolve(name).repo_digests == (f"{toy.host}/y@{index}",)
    other = "arm64" if MACHINE == "amd64" else "amd64"
    pull(store, name, f"linux/{other}")
    assert store.resolve(name).config.platform.architecture == other
    assert told(pull(store, name, f"linux/{other}"))[-1].startswith("Status: Image is up to date")
    for image in store.list():
        store.delete(image)
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list"):
        pull(store, name, "linux/s390x")


def test_a_cut_layer_is_resumed_where_it_stopped(store: ImageStore, toy: Toy) -> None:
    [packed] = put(toy, layer("a", os.urandom(2_000_000)))
    toy.lies["/blobs/" + sha256(packed)] = cut_after(600_000, times=2)
    pull(store, f"{toy.host}/y:latest")
    ranges = [one.headers.get("Range") for one in toy.asked(sha256(packed))]
    assert ranges == [None, "bytes=600000-", "bytes=1200000-"]


def test_a_cut_pull_leaves_no_image_and_goes_on_in_the_next(
    store: ImageStore, toy: Toy, tmp_path: Path, open_store: Callable[[Path], ImageStore]
) -> None:
    one, two = put(toy, layer("a", os.urandom(900_000)), layer("b", os.urandom(900_000)))
    toy.lies["/blobs/" + sha256(two)] = cut_after(500_000, times=99, seconds=0.2)
    only = Retries(attempts=1)
    with pytest.raises(DockpyError, match="cut|closed"):
        pull(store, f"{toy.host}/y:latest", pulls=pulling(store, only))
    assert len(partials(store)) == 2
    assert not store.snapshots.chains()
    again = open_store(tmp_path / "store")  # the next daemon
    toy.lies.clear()
    toy.seen.clear()
    pull(again, f"{toy.host}/y:latest")
    assert not toy.asked(sha256(one))
    assert [seen.headers.get("Range") for seen in toy.asked(sha256(two))] == ["bytes=500000-"]
    assert not partials(again)


def test_two_pulls_share_what_is_transferred(store: ImageStore, toy: Toy) -> None:
    packed = put(toy, layer("a", os.urandom(3_000_000)), layer("b", b"b"))
    pulls = pulling(store)
    ends: list[str] = []

    async def one(tag: str) -> None:
        async def tell(line: Line) -> None:
            if "id" not in line:
                ends.append(str(line["status"]))

        await pulls.pull(Wanted(parse_reference(f"{toy.host}/y:{tag}")), tell)

    async def run() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, "latest")
                nursery.start_soon(one, "other")

    toy.manifests["other"] = toy.manifests["latest"]
    trio.run(run)
    assert [len(toy.asked(sha256(blob))) for blob in packed] == [1, 1]
    assert sum(line.startswith("Status: Downloaded newer") for line in ends) == 2
    assert len(store.list()) == 1


def test_a_cancelled_pull_lets_the_other_go_on(store: ImageStore, toy: Toy) -> None:
    [packed] = put(toy, layer("a", os.urandom(3_000_000)))
    gate = trio.Event()
    pulls = pulling(store)
    toy.lies["/blobs/" + sha256(packed)] = first(1, lambda handler: _stall(handler, packed))

    async def pulled(tell: Callable[[Line], object]) -> None:
        async def telling(line: Line) -> None:
            tell(line)

        await pulls.pull(Wanted(parse_reference(f"{toy.host}/y:latest")), telling)

    async def run() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(_until, gate, scope)

                    def began(line: Line) -> None:
                        if line.get("status") == "Downloading":
                            nursery.start_soon(pulled, lambda _: None)
                            gate.set()

                    await pulled(began)

    trio.run(run)
    assert store.resolve(f"{toy.host}/y:latest")
    ranges = [one.headers.get("Range", "") for one in toy.asked(sha256(packed))]
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=1")


async def _until(gate: trio.Event, scope: trio.CancelScope) -> None:
    await gate.wait()
    await trio.sleep(0.2)
    scope.cancel()


def _stall(handler: Handler, packed: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(packed)))
    handler.end_headers()
    handler.wfile.write(packed[:1_500_000])
    handler.wfile.flush()
    handler.rfile.read(1)  # until the other side hangs up
    handler.hang_up()


# What is refused


def test_names_that_are_not_there(store: ImageStore, toy: Toy) -> None:
    name = f"{toy.host}/y"
    with pytest.raises(NotFound, match=f"manifest for {name}:no not found: manifest unknown"):
        pull(store, f"{name}:no")
    toy.lies["/manifests/"] = lambda handler: handler.fail(403, "DENIED", "requested access")
    with pytest.raises(NotFound, match=f"pull access denied for {name}, repository does not exist"):
        pull(store, f"{name}:no")
    toy.lies.clear()
    toy.basic = True
    with pytest.raises(Unauthorized, match="may require 'docker login': unauthorized"):
        pull(store, f"{name}:no")


def test_a_blob_with_another_digest_leaves_nothing(store: ImageStore, toy: Toy) -> None:
    [packed] = put(toy, layer("a", b"a" * 5000))
    wrong = bytes(reversed(packed))
    toy.blobs[sha256(packed)] = wrong
    with pytest.raises(InvalidParameter, match=f"verification failed for digest {sha256(packed)}"):
        pull(store, f"{toy.host}/y:latest")
    assert not partials(store)
    toy.blobs[sha256(packed)] = packed + b"\0"
    with pytest.raises(DockpyError, match=f"has {len(packed) + 1} bytes, not the {len(packed)}"):
        pull(store, f"{toy.host}/y:latest")


def test_good_bytes_with_another_diff_id_leave_no_tree(store: ImageStore, toy: Toy) -> None:
    plain = layer("a", b"a")
    toy.put_image([gzip.compress(plain)], [sha256(b"other")], "latest")
    with pytest.raises(InvalidParameter, match="failed to register layer: .* has the diff id"):
        pull(store, f"{toy.host}/y:latest")
    assert not store.snapshots.chains()


def test_an_endless_blob_costs_no_more_than_its_size(store: ImageStore, toy: Toy) -> None:
    [packed] = put(toy, layer("a", os.urandom(50_000)))
    toy.lies["/blobs/" + sha256(packed)] = endless
    with pytest.raises(DockpyError, match="has more bytes"):
        pull(store, f"{toy.host}/y:latest")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}, "foreign"),
        ({"urls": ["https://else.example/"]}, "foreign"),
        ({"mediaType": "text/x-script"}, "unsupported media type text/x-script"),
        ({"size": 1 << 60}, "no space left|bytes, not the"),
    ],
)
def test_layers_that_cannot_be_had(
    store: ImageStore, toy: Toy, change: dict[str, object], words: str
) -> None:
    put(toy, layer("a", b"a"))
    raw = json.loads(toy.manifests["latest"][1])
    raw["layers"][0].update(change)
    toy.put_manifest(raw, "latest")
    with pytest.raises(DockpyError, match=words):
        pull(store, f"{toy.host}/y:latest")
    assert not toy.asked("/blobs/" + raw["layers"][0]["digest"]) or "size" in change


def test_artifacts_and_broken_blobs_are_refused_by_name(store: ImageStore, toy: Toy) -> None:
    put(toy, layer("a", b"a"))
    raw = json.loads(toy.manifests["latest"][1])
    raw["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    toy.put_manifest(raw, "chart")
    with pytest.raises(InvalidParameter, match="unsupported media type application/vnd.cncf.helm"):
        pull(store, f"{toy.host}/y:chart")
    toy.lies["/blobs/"] = always(500)
    with pytest.raises(DockpyError, match="500 Internal Server Error"):
        pull(store, f"{toy.host}/y:latest")


PULL = """
import sys
from pathlib import Path
from dockpy.storage import compression
from tests.images.conftest import opened
from tests.images.test_pull import pull
store = opened(Path(sys.argv[2]))
pull(store, sys.argv[1])
print(compression._zstd_of_python() is not None, compression._zstd_of_system() is not None)
print(Path(store.snapshots.chain_tree(store.resolve(sys.argv[1]).chain_ids[-1]).path, "etc/b").read_text())
"""


@pytest.mark.parametrize("tier", ["library", "program", "none"])
def test_zstd_layers_are_pulled_by_whatever_the_host_has(
    toy: Toy, tmp_path: Path, tier: str
) -> None:
    """In a process of its own, which finds no library where a file of that name is none."""
    if shutil.which("zstd") is None:
        pytest.skip("the zstd program, which makes the test's data, is not installed")
    plain = [layer("a", os.urandom(3 << 20)), layer("b", b"it is there")]
    diff_ids = [sha256(one) for one in plain]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = {"architecture": MACHINE, "os": "linux", "rootfs": rootfs}
    toy.put_image([zstd(one) for one in plain], diff_ids, "latest", config=config)
    environ = dict(os.environ)
    if tier != "library":
        (tmp_path / "libzstd.so.1").write_text("no library")
        environ["LD_LIBRARY_PATH"] = str(tmp_path)
    if tier == "none":
        environ["PATH"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PULL, f"{toy.host}/x/y:latest", str(tmp_path / "store")],
        cwd=TOP, env=environ, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    if sys.version_info >= (3, 14):
        tier = "python"
    if tier == "none":
        assert "has neither Python 3.14, libzstd nor zstd" in done.stderr
        assert done.stderr.rstrip().splitlines()[-1].startswith("dockpy.errors.Unavailable: ")
        return
    assert not done.returncode, done.stderr
    which, text = done.stdout.splitlines()
    assert text == "it is there"
    if tier == "program":
        assert which == "False False"
