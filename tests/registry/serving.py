"""A registry of ours as a process of its own, and a client of raw requests for it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.house.sources import TOP

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]  # by lower-case name
    body: bytes

    def json(self) -> dict[str, object]:
        raw = json.loads(self.body)
        assert isinstance(raw, dict)
        return raw

    @property
    def code(self) -> str:
        errors = self.json()["errors"]
        assert isinstance(errors, list)
        return str(errors[0]["code"])


class Serving:
    def __init__(self, store: Path, *flags: str, **environ: str) -> None:
        self.store = store
        self._environ = environ
        self._flags = flags
        self.port = 0
        self.start()

    def start(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dockpy",
                "registry",
                "serve",
                f"--listen=127.0.0.1:{port}",
                f"--store={self.store}",
                *self._flags,
            ],
            cwd=TOP,
            env={**os.environ, **self._environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Serving http"), self.process.communicate()
        self.port = int(line.split()[1].rpartition(":")[2])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        self.errors = self.process.communicate(timeout=15)[1]
        return self.process.returncode

    def connect(self, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        if context is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        context: ssl.SSLContext | None = None,
    ) -> Answer:
        connection = self.connect(context)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()

    # ------------------------------------------------------------------- whole operations

    def begin(self, name: str) -> str:
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert answer.status == 202, answer
        return answer.headers["location"]

    def push_blob(self, name: str, data: bytes) -> str:
        digest = digest_of(data)
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def push_manifest(
        self, name: str, reference: str, document: Mapping[str, object]
    ) -> tuple[str, Answer]:
        data = json.dumps(document).encode()
        kind = {"Content-Type": str(document["mediaType"])}
        return digest_of(data), self.ask(
            "PUT", f"/v2/{name}/manifests/{reference or digest_of(data)}", data, kind
        )

    def push_image(self, name: str, tag: str, layer: bytes = b"layer") -> str:
        digest, answer = self.push_manifest(name, tag, self.image(name, layer))
        assert answer.status == 201, answer
        return digest

    def image(self, name: str, layer: bytes = b"layer") -> dict[str, object]:
        """A manifest whose blobs are there."""
        for data in (b"{}", layer):
            self.push_blob(name, data)
        return manifest(layer)


def manifest(layer: bytes = b"layer", config: bytes = b"{}") -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER, layer)],
    }


def descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
