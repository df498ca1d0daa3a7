"""Image archives for tests, written the way docker, old dockers and the OCI's tools write them,
and wrongly.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
Member = tuple[str, Any]


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(members: Iterable[Member]) -> bytes:
    """name → bytes, or ("symlink"|"hardlink", target), or None for a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, tuple):
                info.type = tarfile.SYMTYPE if content[0] == "symlink" else tarfile.LNKTYPE
                info.linkname = content[1]
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


@dataclass(frozen=True)
class Made:
    """An image to be archived. `stored` are its layers as the archive has them."""

    config: bytes
    layers: tuple[bytes, ...]
    stored: tuple[bytes, ...]
    names: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return sha256(self.config)


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


def image(
    *contents: str,
    names: Sequence[str] = (),
    compress: str = "",
    architecture: str = MACHINE,
    diff_ids: Sequence[str] | None = None,
    **config: object,
) -> Made:
    """One layer for each of `contents`, holding the file `file` with it."""
    layers = tuple(tar_of([("etc", None), ("etc/file", text.encode())]) for text in contents)
    packs: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gzip.compress, "zstd": zstd}
    pack = packs[compress]
    document = {
        "architecture": architecture,
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["sh"], **config},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids or map(sha256, layers))},
        "history": [
            {"created": "2026-01-01T00:00:00Z", "created_by": f"made {text}"[:80]}
            for text in contents
        ],
    }
    return Made(json.dumps(document).encode(), layers, tuple(map(pack, layers)), tuple(names))


def docker_members(*images: Made) -> list[Member]:
    """As `docker save` before 25 writes it."""
    members: dict[str, Any] = {}
    manifest = []
    for made in images:
        name = made.id[7:] + ".json"
        members[name] = made.config
        paths = []
        for layer, stored in zip(made.layers, made.stored):
            folder = sha256(layer)[7:]
            members[f"{folder}/"] = None
            members[f"{folder}/VERSION"] = b"1.0"
            members[f"{folder}/json"] = b"{}"
            members[f"{folder}/layer.tar"] = stored
            paths.append(f"{folder}/layer.tar")
        manifest.append({"Config": name, "RepoTags": list(made.names) or None, "Layers": paths})
    members["manifest.json"] = json.dumps(manifest).encode()
    return list(members.items())


def docker_archive(*images: Made) -> bytes:
    return tar_of(docker_members(*images))


LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Layout:
    """An OCI layout being put together."""

    members: dict[str, Any] = field(
        default_factory=lambda: {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    )
    entries: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes, media_type: str, **more: object) -> dict[str, Any]:
        digest = sha256(data)
        self.members[f"blobs/sha256/{digest[7:]}"] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def manifest(self, made: Made, **more: object) -> dict[str, Any]:
        kinds = {b"\x1f\x8b": LAYER + "+gzip", b"\x28\xb5": LAYER + "+zstd"}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(made.config, "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(stored, kinds.get(stored[:2], LAYER)) for stored in made.stored],
        }
        return self.blob(json.dumps(document).encode(), MANIFEST, **more)

    def index(self, entries: Sequence[Mapping[str, Any]], **more: object) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}
        return self.blob(json.dumps(document).encode(), INDEX, **more)

    def name(self, entry: dict[str, Any], name: str = "", short: str = "") -> None:
        annotations = {}
        if name:
            annotations["io.containerd.image.name"] = name
        if short:
            annotations["org.opencontainers.image.ref.name"] = short
        self.entries.append({**entry, "annotations": annotations} if annotations else entry)

    def all_members(self) -> list[Member]:
        document = {"schemaVersion": 2, "manifests": self.entries}
        return [*self.members.items(), ("index.json", json.dumps(document).encode())]

    def archive(self) -> bytes:
        return tar_of(self.all_members())


def oci_archive(*images: Made) -> bytes:
    layout = Layout()
    for made in images:
        entry = layout.manifest(made)
        for name in made.names or ("",):
            layout.name(entry, name)
    return layout.archive()
