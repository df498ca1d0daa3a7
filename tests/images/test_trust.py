"""Images pushed into a registry of ours, signed there, and verified from the store that has them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from dockpy.config import RegistrySettings
from dockpy.errors import InvalidParameter, NotFound
from dockpy.images import archive
from dockpy.images.push import Pushes, Wanted
from dockpy.images.signing import public_key
from dockpy.images.store import ImageStore
from dockpy.images.trust import PAYLOAD_LIMIT, NotTrusted, Verified, verify
from dockpy.oci.descriptor import ANNOTATION_IMAGE_NAME
from dockpy.oci.reference import parse_reference
from dockpy.registry.session import Retries
from dockpy.transport.client import TooLong
from tests.images.archives import docker_archive, image
from tests.images.signatures import Key, payload, put
from tests.registry.serving import EMPTY, OCI_INDEX, OCI_MANIFEST, Serving, descriptor
from tests.registry.toy import Toy, endless
from tests.registry.toy import serving as serving_toy

QUICK = Retries(attempts=3, first=0.01, longest=2.0)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    served = Serving(tmp_path_factory.mktemp("registry") / "store")
    yield served
    assert served.stop() == 0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, Key]:
    folder = tmp_path_factory.mktemp("keys")
    return Key(folder, "cosign"), Key(folder, "other")


@pytest.fixture
def key(keys: tuple[Key, Key]) -> Key:
    return keys[0]


class App:
    """An image of the store, pushed into a repository of the test's own."""

    def __init__(self, serving: Serving, store: ImageStore, path: str) -> None:
        self.path, self.store, self.serving = path, store, serving
        self.repository = f"{serving.address}/{path}"
        self.name = f"{self.repository}:v1"
        made = image(path, names=[self.name])
        archive.load(store, io.BytesIO(docker_archive(made)).read, lambda line: None)
        trio.run(Pushes(store, retries=QUICK).push, Wanted(parse_reference(self.name)), _silent)
        self.digest = str(store.resolve(self.name).descriptor.digest)

    def payload(self) -> bytes:
        return payload(self.repository, self.digest)

    def sign(self, key: Key, *payloads: bytes, referrer: bool = False) -> str:
        signed = [(one, key.sign(one)) for one in payloads or (self.payload(),)]
        return put(self.serving, self.path, self.digest, *signed, referrer=referrer)

    def verify(self, key: Key, name: str = "", *, local: bool = True) -> Verified:
        reference = parse_reference(name or self.name)
        found = self.store.resolve(str(reference)) if local else None
        parsed = public_key(key.public)

        async def run() -> Verified:
            with trio.fail_after(20):
                return await verify(reference, found, parsed, RegistrySettings(), retries=QUICK)

        return trio.run(run)

    def refused(self, key: Key, name: str = "", *, local: bool = True) -> str:
        with pytest.raises(NotTrusted) as raised:
            self.verify(key, name, local=local)
        return str(raised.value)


async def _silent(line: object) -> None: ...


@pytest.fixture
def app(serving: Serving, store: ImageStore, request: pytest.FixtureRequest) -> App:
    return App(serving, store, "tests/" + request.node.name.replace("_", "-")[:60].strip("-"))


@pytest.mark.parametrize("referrer", [False, True], ids=["tag", "referrer"])
def test_a_good_signature(serving: Serving, store: ImageStore, key: Key, referrer: bool) -> None:
    app = App(serving, store, f"good/{referrer}".lower())
    app.sign(key, referrer=referrer)
    by_digest = f"{app.repository}@{app.digest}"
    verified = app.verify(key)
    assert (verified.reference.familiar(), verified.signatures) == (by_digest, 1)
    assert app.verify(key, by_digest) == app.verify(key, by_digest, local=False) == verified


def test_one_good_signature_among_bad_ones_is_enough(app: App, keys: tuple[Key, Key]) -> None:
    mine, other = keys
    elsewhere = payload("example.com/else", app.digest)
    app.sign(other)
    assert "another key" in app.refused(mine)
    app.sign(mine, app.payload(), elsewhere, b"\xff{", app.payload() + b" ", referrer=True)
    assert app.verify(mine).signatures == 2
    assert app.verify(other).signatures == 1


def test_no_signature(app: App, key: Key) -> None:
    with pytest.raises(NotFound, match="is not signed: no cosign signature was found"):
        app.verify(key)
    artifact = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "config": descriptor(EMPTY, b"{}"),
        "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": app.digest, "size": 1},
    }
    app.serving.push_blob(app.path, b"{}")
    assert app.serving.push_manifest(app.path, "", artifact)[1].status == 201
    assert "bundle format, which is not served" in app.refused(key)


def test_what_is_wrong_is_named(app: App, keys: tuple[Key, Key]) -> None:
    mine, other = keys
    zeros = "sha256:" + "0" * 64
    for data, words in (
        (payload(app.repository, zeros), f"made for another image: {zeros}, not {app.digest}"),
        (payload("example.com/x", app.digest), "made for another repository: example.com/x, not"),
        (payload("", app.digest), "made for another repository: none, not"),
        (payload(app.repository, app.digest, "\x1b[2J"), "of another type:  [2J"),
        (b"[]", "its payload must be a JSON object"),
        (b"{", "its payload is not valid JSON"),
    ):
        app.sign(mine, data)
        assert words in app.refused(mine)
    app.sign(mine)
    assert "made by another key, or its payload was changed" in app.refused(other)
    # The signature of one payload with another.
    put(app.serving, app.path, app.digest, (app.payload() + b"\n", mine.sign(app.payload())))
    assert "made by another key, or its payload was changed" in app.refused(mine)
    for signature, words in (
        ("", "has no signature"),
        ("x" * 9, "is no base64"),
        ("A" * 9000, "64"),
    ):
        put(app.serving, app.path, app.digest, (app.payload(), signature))
        assert words in app.refused(mine)


def test_a_payload_changed_in_the_registry_is_told_from_a_wrong_key(app: App, key: Key) -> None:
    app.sign(key)
    digest = descriptor("", app.payload())["digest"]
    [blob] = [
        path
        for path in app.serving.store.rglob(str(digest).partition(":")[2])
        if path.is_file() and path.read_bytes() == app.payload()
    ]
    changed = app.payload().replace(b"cosign", b"c0sign", 1)
    blob.write_bytes(changed)
    assert f"tampered with: blob verification failed for digest {digest}" in app.refused(key)
    blob.write_bytes(changed[:-5])
    assert "tampered with: blob" in app.refused(key)


def test_what_is_too_large_is_not_read(app: App, key: Key) -> None:
    app.sign(key, app.payload() + b" " * PAYLOAD_LIMIT)
    assert f"more than {PAYLOAD_LIMIT}" in app.refused(key)
    put(app.serving, app.path, app.digest, *((app.payload(), f"{n:04}") for n in range(101)))
    assert "more than 100 signatures" in app.refused(key)


def test_a_signature_without_an_end_is_cut(key: Key) -> None:
    with serving_toy(Toy()) as toy:
        toy.lies[".sig"] = endless
        name = parse_reference(f"{toy.host}/x@sha256:" + "0" * 64)
        parsed = public_key(key.public)
        with pytest.raises(TooLong, match="longer than 4194304 bytes"):
            trio.run(verify, name, None, parsed, RegistrySettings())


def test_the_digest_must_be_the_local_images(app: App, key: Key) -> None:
    """Names with a digest come with archives, too: they are held against the image."""
    app.sign(key)
    made = image("evil")
    archive.load(app.store, io.BytesIO(docker_archive(made)).read, lambda line: None)
    by_digest = f"{app.repository}@{app.digest}"
    index = Path(app.store.content.root, "index.json")
    raw = json.loads(index.read_text())
    evil = app.store.resolve(made.id).descriptor.digest
    for entry in raw["manifests"]:
        if entry.get("annotations", {}).get(ANNOTATION_IMAGE_NAME, "").startswith(app.repository):
            entry["digest"] = evil
            entry["size"] = app.store.content.size(evil)
    index.write_text(json.dumps(raw))
    assert app.store.resolve(by_digest).id == made.id
    for name in (app.name, by_digest):
        assert f"the local image is not what {app.digest} names" in app.refused(key, name)
    assert app.verify(key, by_digest, local=False).signatures == 1


def test_an_index_is_verified_for_the_image_in_it(app: App, key: Key) -> None:
    size = app.store.resolve(app.name).descriptor.size
    entry = {"mediaType": OCI_MANIFEST, "digest": app.digest, "size": size}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    index, answer = app.serving.push_manifest(app.path, "all", document)
    assert answer.status == 201
    data = payload(app.repository, index)
    put(app.serving, app.path, index, (data, key.sign(data)))
    by_digest = parse_reference(f"{app.repository}@{index}")
    found = app.store.resolve(app.name)
    parsed = public_key(key.public)
    verified = trio.run(verify, by_digest, found, parsed, RegistrySettings())
    assert verified == Verified(by_digest, 1)


def test_an_image_that_was_never_there_has_nothing_to_verify(app: App, key: Key) -> None:
    name = f"{app.serving.address}/never/there:v1"
    app.store.tag(app.name, name)
    with pytest.raises(NotFound, match="has no digest in .*: it was not pulled from there"):
        app.verify(key, name)
    with pytest.raises(InvalidParameter):
        parse_reference(app.digest[7:])
