"""Keys and cosign-style signatures, made by openssl and put into a registry by hand."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.registry.serving import OCI_CONFIG, OCI_MANIFEST, Serving, descriptor

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
KINDS = {
    "ecdsa": ("EC", "ec_paramgen_curve:P-256"),
    "rsa": ("RSA", "rsa_keygen_bits:2048"),
    "ed25519": ("ED25519", ""),
}


class Key:
    """A pair in `folder`; `public` is its cosign.pub."""

    def __init__(self, folder: Path, name: str, kind: str = "ecdsa") -> None:
        self._folder, self._kind = folder, kind
        self._secret = f"{folder}/{name}.key"
        self.path = folder / f"{name}.pub"
        algorithm, option = KINDS[kind]
        options = ["-pkeyopt", option] if option else []
        _openssl("genpkey", "-algorithm", algorithm, *options, "-out", self._secret)
        _openssl("pkey", "-in", self._secret, "-pubout", "-out", str(self.path))

    @property
    def public(self) -> str:
        return self.path.read_text()

    def sign(self, payload: bytes) -> str:
        data, signature = self._folder / "payload", self._folder / "signature"
        data.write_bytes(payload)
        if self._kind == "ed25519":
            words = ["pkeyutl", "-sign", "-inkey", self._secret, "-rawin", "-in", str(data)]
        else:
            words = ["dgst", "-sha256", "-sign", self._secret, str(data)]
        _openssl(words[0], "-out", str(signature), *words[1:])
        return base64.b64encode(signature.read_bytes()).decode()


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30)


def payload(reference: str, digest: str, kind: str = "cosign container image signature") -> bytes:
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": kind,
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


def put(
    serving: Serving, name: str, digest: str, *signed: tuple[bytes, str], referrer: bool = False
) -> str:
    """A manifest of signatures of `digest`, by its tag or as a referrer; its own digest."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(ARTIFACT if referrer else OCI_CONFIG, b"{}"),
        "layers": [_layer(data, signature) for data, signature in signed],
    }
    for data in {b"{}", *(data for data, _ in signed)}:
        serving.push_blob(name, data)
    if referrer:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}
    tag = "" if referrer else digest.replace(":", "-") + ".sig"
    own, answer = serving.push_manifest(name, tag, document)
    assert answer.status == 201, answer
    return own


def _layer(data: bytes, signature: str) -> Mapping[str, object]:
    annotations = {"dev.cosignproject.cosign/signature": signature} if signature else {}
    return {**descriptor(SIMPLE_SIGNING, data), "annotations": annotations}
