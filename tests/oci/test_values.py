from __future__ import annotations

import hashlib
import json

import pytest

from dockpy.errors import InvalidParameter
from dockpy.oci.descriptor import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    descriptor_from_json,
)
from dockpy.oci.digest import DiffID, chain_ids, digest, digest_bytes, hasher
from dockpy.oci.image import image_config
from dockpy.oci.manifest import Index, Manifest, manifest_or_index
from dockpy.oci.platform import Platform, host_platform, parse_platform

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64


@pytest.mark.parametrize("text", ["", "sha256", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32,
                                  "sha256:" + "../" * 21 + "a", "sha512:" + "a" * 64])  # fmt: skip
def test_bad_digests_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        digest(text)


def test_sha512_is_known_when_given() -> None:
    assert hasher(digest("sha512:" + "0" * 128)).name == "sha512"
    assert hasher().name == "sha256"


def test_chain_ids_are_the_specifications() -> None:
    first, second = chain_ids((DiffID(digest(A)), DiffID(digest(B))))
    assert first == A
    assert second == "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()


def test_descriptor_goes_to_json_and_back() -> None:
    one = Descriptor(OCI_LAYER, digest(A), 3, {"k": "v"}, Platform("linux", "arm", "v7"))
    assert descriptor_from_json(json.loads(json.dumps(one.to_json()))) == one
    bads: list[object] = [
        None,
        [],
        {"digest": A},
        {"digest": A, "size": -1},
        {"digest": A, "size": True},
        {"size": 1, "digest": 3},
    ]
    for bad in bads:
        with pytest.raises(InvalidParameter):
            descriptor_from_json(bad)


def test_manifest_and_index_are_told_apart() -> None:
    manifest = Manifest(
        Descriptor(OCI_CONFIG, digest(A), 2), (Descriptor(OCI_LAYER, digest(B), 3),)
    )
    index = Index(
        (Descriptor(OCI_MANIFEST, digest_bytes(manifest.to_bytes()), 5, platform=host_platform()),)
    )
    assert manifest_or_index(manifest.to_bytes()) == manifest
    assert manifest_or_index(index.to_bytes()) == index
    both = json.dumps({**manifest.to_json(), "manifests": []}).encode()
    for bad in (
        both,
        b"{",
        b"[]",
        b'{"schemaVersion":1}',
        b"[" * 100000,
        b'{"schemaVersion":2}',
        b"\xff",
    ):
        with pytest.raises(InvalidParameter):
            manifest_or_index(bad)
    with pytest.raises(InvalidParameter, match="differs"):
        manifest_or_index(manifest.to_bytes(), index.media_type)


def test_index_chooses_the_platform() -> None:
    def entry(os: str, arch: str, variant: str = "") -> Descriptor:
        return Descriptor(
            OCI_MANIFEST,
            digest_bytes(f"{os}{arch}{variant}".encode()),
            1,
            platform=Platform(os, arch, variant),
        )

    index = Index(
        (
            entry("unknown", "unknown"),
            entry("linux", "arm", "v5"),
            entry("linux", "arm64"),
            entry("linux", "arm", "v6"),
            entry("linux", "amd64"),
        )
    )
    assert index.choose(Platform("linux", "amd64")) == index.manifests[4]
    assert index.choose(Platform("linux", "arm64", "v8")) == index.manifests[2]
    assert index.choose(Platform("linux", "arm", "v7")) == index.manifests[3]
    assert index.choose(Platform("linux", "s390x")) is None
    bare = Descriptor(OCI_MANIFEST, digest(A), 1)
    assert Index((bare,)).choose(Platform("linux", "s390x")) == bare


def test_platforms_parse_in_every_spelling() -> None:
    assert parse_platform("linux/aarch64") == Platform("linux", "arm64")
    assert parse_platform("linux/arm64/v8") == Platform("linux", "arm64")
    assert parse_platform("arm64") == Platform("linux", "arm64")
    assert parse_platform("linux/armhf") == Platform("linux", "arm", "v7")
    assert str(parse_platform("linux/arm/v6")) == "linux/arm/v6"
    assert parse_platform("linux").architecture == host_platform().architecture
    for bad in ("", "a/b/c/d", "linux/", "/", "nonsense", "linux/../x y"):
        with pytest.raises(InvalidParameter):
            parse_platform(bad)


def test_image_config_reads_nulls_and_writes_itself() -> None:
    settings: dict[str, object] = {
        "Cmd": ["sh"],
        "Entrypoint": None,
        "Env": None,
        "Volumes": {"/v": {}},
        "Healthcheck": {"Test": ["NONE"]},
        "StopTimeout": 3,
    }
    raw: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [A, B]},
        "history": [{"created_by": "x", "empty_layer": True}],
    }
    config = image_config(json.dumps(raw).encode())
    assert config.config.cmd == ("sh",)
    assert config.config.entrypoint is None
    assert config.config.volumes == ("/v",)
    assert len(config.chain_ids) == 2
    assert image_config(config.to_bytes()) == config


@pytest.mark.parametrize("change", [{"rootfs": None}, {"rootfs": {"diff_ids": "x"}}, {"rootfs": {"diff_ids": [A] * 128}}, {"config": []},
                                    {"config": {"Cmd": [1]}}, {"config": {"Env": "A=b"}}, {"os": 3}, {"history": {}}])  # fmt: skip
def test_bad_image_configs_are_refused(change: dict[str, object]) -> None:
    raw: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [A]},
    }
    with pytest.raises(InvalidParameter):
        image_config(json.dumps({**raw, **change}).encode())
