"""The folders of the registry server themselves: what is kept, what is forgotten, what a cut leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockpy.oci.digest import Digest, digest_bytes
from dockpy.registry.directory import DirectoryBlobs
from dockpy.registry.manifests import check
from dockpy.registry.refusals import Refusal
from dockpy.registry.repositories import Repositories
from tests.registry.serving import OCI_MANIFEST, manifest

DAY = 24 * 3600.0


def opened(root: Path) -> Repositories:
    return Repositories(str(root), DirectoryBlobs(str(root)))


def push(repositories: Repositories, name: str, data: bytes) -> Digest:
    upload = repositories.blobs.begin(name)
    upload.append(data)
    repositories.finish(upload, digest_bytes(data))
    return digest_bytes(data)


def image(repositories: Repositories, name: str, tag: str, layer: bytes) -> Digest:
    import json

    for data in (b"{}", layer):
        push(repositories, name, data)
    data = json.dumps(manifest(layer)).encode()
    return repositories.put_manifest(name, [tag], None, data, OCI_MANIFEST)[0]


def age(root: Path, name: str, blob: Digest, seconds: float = 2 * DAY) -> None:
    path = root / "repositories" / name / "_blobs" / blob.replace(":", "/")
    then = os.stat(path).st_mtime - seconds
    os.utime(path, (then, then))


def blobs_in(root: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (root / "blobs/sha256").iterdir()}


def test_a_blob_lives_as_long_as_one_repository_has_it(tmp_path: Path) -> None:
    repositories = opened(tmp_path)
    blob = push(repositories, "a", b"shared")
    assert repositories.mount("b", blob)
    repositories.remove_blob("a", blob)
    repositories = opened(tmp_path)
    assert blobs_in(tmp_path) == {blob}
    with pytest.raises(Refusal, match="not in this repository"):
        repositories.blob_size("a", blob)
    assert repositories.blob_size("b", blob) == 6
    repositories.remove_blob("b", blob)
    assert blobs_in(tmp_path) == set()


def test_sweep_takes_what_no_manifest_names_and_nobody_asked_for(tmp_path: Path) -> None:
    repositories = opened(tmp_path)
    kept = image(repositories, "a", "kept", b"kept")
    gone = image(repositories, "a", "gone", b"gone")
    young = push(repositories, "a", b"young")
    asked = push(repositories, "a", b"asked for")
    for data in (b"kept", b"gone", b"{}", b"asked for"):
        age(tmp_path, "a", digest_bytes(data))
    repositories.blob_size("a", asked)  # HEAD: who hears that it is there will not push it
    assert repositories.sweep(DAY) == 0
    repositories.remove_manifest("a", gone)
    assert repositories.sweep(DAY) == 1
    rest = {kept, digest_bytes(b"kept"), digest_bytes(b"{}"), young, asked}
    assert blobs_in(tmp_path) == rest
    assert repositories.tags("a") == ["kept"]


def test_what_a_cut_has_left_is_taken_away_at_the_start(tmp_path: Path) -> None:
    repositories = opened(tmp_path)
    image(repositories, "a", "x", b"layer")
    before = blobs_in(tmp_path)
    nameless = digest_bytes(b"cut before it had a name")
    repositories.blobs.put(b"cut before it had a name", nameless)
    (tmp_path / "tmp/new.1.abcd.tmp").write_bytes(b"half")
    os.mkdir(tmp_path / "uploads/half")
    repositories = opened(tmp_path)
    assert blobs_in(tmp_path) == before
    assert os.listdir(tmp_path / "tmp") == []
    assert repositories.blobs.expire(0.0) == 1
    # And a name whose blob is gone is as good as none: it can be pushed again.
    layer = digest_bytes(b"layer")
    repositories.blobs.remove(layer)
    with pytest.raises(Refusal, match="not in this repository"):
        repositories.open_blob("a", layer)
    push(repositories, "a", b"layer")
    assert repositories.blob_size("a", layer) == 5


def test_a_damaged_manifest_is_not_served_and_is_mended_by_a_push(tmp_path: Path) -> None:
    repositories = opened(tmp_path)
    found = image(repositories, "a", "x", b"layer")
    path = tmp_path / "blobs" / found.replace(":", "/")
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(Exception, match="does not have this digest"):
        repositories.manifest("a", found)
    assert image(repositories, "a", "x", b"layer") == found
    assert check(repositories.manifest("a", found), OCI_MANIFEST).record.size == path.stat().st_size


def test_an_upload_goes_on_in_another_life(tmp_path: Path) -> None:
    upload = opened(tmp_path).blobs.begin("a", "sha512")
    upload.append(b"one ")
    repositories = opened(tmp_path)
    again = repositories.blobs.upload(upload.id)
    assert (again.name, again.size) == ("a", 4)
    again.append(b"two")
    repositories.finish(again, digest_bytes(b"one two"))
    assert repositories.blobs.read(digest_bytes(b"one two"), 100) == b"one two"
