"""A registry in a thread that takes pushes over real sockets, as choosy and as unlucky as a test wants it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Taker:
    """Knobs first. What it holds is by repository."""

    most: int = 1 << 40  # bytes of one request's body: more is answered with 413
    least: int = 0  # OCI-Chunk-Min-Length; smaller chunks but the last are refused
    cuts: list[int] = field(
        default_factory=list
    )  # hangs up after so many bytes of a body, once each
    mute: int = 0  # takes so many last PUTs and hangs up without an answer
    loses: int = 0  # bytes at the end of each longer chunk
    forgets: bool = False  # of an upload that was cut it knows nothing
    slow: float = 0.0  # seconds that each 64 KiB of a body take
    busy: int = 0  # answers so many uploads' beginnings with 503
    old: bool = False  # takes docker's schema 2 alone
    tokens: bool = False  # lets in by token; `user` may push, below `his` alone
    user: str = "me:secret"
    his: str = ""
    port: int = 0
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    manifests: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)  # method, path without query, length of the body
    scopes: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def asked(self, method: str, piece: str = "") -> list[str]:
        return [one for one in self.seen if one.startswith(f"{method} ") and piece in one]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    taker: Taker

    def log_message(self, format: str, *args: object) -> None: ...

    def _serve(self) -> None:
        self.length = int(self.headers.get("Content-Length", "0"))
        self.source: io.BufferedIOBase = self.rfile
        if self.headers.get("Transfer-Encoding") == "chunked":
            # docker's: nothing special happens to these.
            whole = b"".join(iter(self._chunk, b""))
            self.length, self.source = len(whole), io.BytesIO(whole)
        self.rest = self.length
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.taker.seen.append(f"{self.command} {parts.path} {self.length}")
        if parts.path == "/token":
            self._token(parse_qs(parts.query).get("scope", []))
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", parts.path):
            if self._let_in(match[1]):
                getattr(self, f"_{self.command.lower()}_upload")(match[1], match[2])
        elif match := re.fullmatch(r"/v2/(.+)/(blobs|manifests)/(.+)", parts.path):
            if self._let_in(match[1]):
                self._held(match[1], match[2], match[3])
        elif self._let_in(""):
            self._answer(200, b"{}")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815  # the base class's names

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        while self.rest > 0:
            self._read(1 << 20)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _fail(self, status: int, code: str, message: str, **headers: str) -> None:
        # docker says no more than the code where there is no detail, and asks again.
        errors = [{"code": code, "message": message, "detail": [{"Name": self.path}]}]
        self._answer(status, json.dumps({"errors": errors}).encode(), **headers)

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _read(self, size: int) -> bytes:
        data = self.source.read(min(size, self.rest))
        self.rest -= len(data)
        if not data:
            self.rest = 0
        return data

    # Who

    def _let_in(self, repository: str) -> bool:
        if not self.taker.tokens:
            return True
        given = self.headers.get("Authorization", "").partition(" ")[2]
        writes = self.command not in ("GET", "HEAD")
        wanted = f"repository:{repository}:{'push' if writes else 'pull'}"
        if not repository and given:
            return True
        if given and wanted in base64.b64decode(given).decode().split():
            return True
        realm = f'Bearer realm="http://{self.taker.host}/token",service="taker"'
        code, text = "UNAUTHORIZED", "authentication required"
        if given:
            code, text = "DENIED", "requested access to the resource is denied"
        self._fail(401, code, text, WWW_Authenticate=realm)
        return False

    def _token(self, scopes: list[str]) -> None:
        """What is granted is written on the token: everybody may read, the user may write what is his."""
        self.taker.scopes += scopes
        given = self.headers.get("Authorization", "").partition(" ")[2]
        user = base64.b64decode(given).decode()
        if user and user != self.taker.user:
            self._answer(401, b'{"details": "incorrect username or password"}')
            return
        granted = []
        for scope in scopes:
            _, name, actions = scope.split(":")
            for action in actions.split(","):
                if action == "pull" or (user and name.startswith(self.taker.his)):
                    granted.append(f"repository:{name}:{action}")
        token = base64.b64encode(" ".join(granted or ["nothing"]).encode()).decode()
        self._answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    # What is there

    def _held(self, name: str, kind: str, reference: str) -> None:
        taker = self.taker
        if kind == "manifests" and self.command == "PUT":
            data = self._read(self.length)
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            document = json.loads(data)
            if taker.old and "docker" not in self.headers.get("Content-Type", ""):
                self._fail(400, "MANIFEST_INVALID", "manifest invalid")
                return
            known = taker.blobs.get(name, {})
            for blob in (document["config"], *document["layers"]):
                if blob["digest"] not in known:
                    self._fail(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
                    return
            for key in (digest, reference):
                entry = (self.headers.get("Content-Type", ""), data)
                taker.manifests.setdefault(name, {})[key] = entry
            self._answer(201, Docker_Content_Digest=digest)
        elif kind == "manifests" and reference in taker.manifests.get(name, {}):
            media_type, data = taker.manifests[name][reference]
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            self._answer(200, data, Content_Type=media_type, Docker_Content_Digest=digest)
        elif kind == "blobs" and reference in taker.blobs.get(name, {}):
            self._answer(200, taker.blobs[name][reference])
        else:
            self._fail(404, "BLOB_UNKNOWN", "blob unknown to registry")

    # Uploads

    def _post_upload(self, name: str, _: str) -> None:
        taker, wanted = self.taker, self.query.get("mount", "")
        if taker.busy:
            taker.busy -= 1
            self._answer(503, b"too busy")
            return
        if wanted in taker.blobs.get(self.query.get("from", ""), {}):
            taker.blobs.setdefault(name, {})[wanted] = taker.blobs[self.query["from"]][wanted]
            self._answer(201, Location=f"/v2/{name}/blobs/{wanted}")
            return
        identity = os.urandom(8).hex()
        taker.uploads[identity] = bytearray()
        self._where(202, name, identity)

    def _where(self, status: int, name: str, identity: str) -> None:
        more: dict[str, str] = (
            {"OCI_Chunk_Min_Length": str(self.taker.least)} if self.taker.least else {}
        )
        last = max(len(self.taker.uploads[identity]) - 1, 0)
        place = f"/v2/{name}/blobs/uploads/{identity}"
        self._answer(status, b"", Location=place, Range=f"0-{last}", **more)

    def _get_upload(self, name: str, identity: str) -> None:
        if identity in self.taker.uploads and not self.taker.forgets:
            self._where(204, name, identity)
        else:
            self._fail(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")

    def _delete_upload(self, name: str, identity: str) -> None:
        self.taker.uploads.pop(identity, None)
        self._answer(204)

    def _take(self, identity: str) -> bool:
        """The body into an upload; whether it has all come."""
        taker = self.taker
        if self.length > taker.most:
            self._answer(413, b"<html>too large</html>")
            return False
        limit = taker.cuts.pop(0) if taker.cuts and self.length else self.length
        while self.rest > 0 and limit > 0:
            data = self._read(min(limit, 1 << 16))
            taker.uploads[identity] += data
            limit -= len(data)
            time.sleep(taker.slow)
        if self.rest:
            self.close_connection = True
            return False
        return True

    def _patch_upload(self, name: str, identity: str) -> None:
        start = self.headers.get("Content-Range", "").partition("-")[0]
        if start and int(start) != len(self.taker.uploads[identity]):
            self._fail(416, "BLOB_UPLOAD_INVALID", "out of order")
        elif self._take(identity):
            upload = self.taker.uploads[identity]
            if self.taker.loses < self.length:
                del upload[len(upload) - self.taker.loses :]
            self._where(202, name, identity)

    def _put_upload(self, name: str, identity: str) -> None:
        taker = self.taker
        if not self._take(identity):
            return
        data = bytes(taker.uploads.pop(identity))
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if digest != self.query["digest"]:
            self._fail(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            return
        taker.blobs.setdefault(name, {})[digest] = data
        if taker.mute:
            taker.mute -= 1
            self.close_connection = True
        else:
            self._answer(201, Docker_Content_Digest=digest)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None: ...


@contextmanager
def taking(taker: Taker) -> Iterator[Taker]:
    handler = type("OneHandler", (_Handler,), {"taker": taker})
    server = _Server(("127.0.0.1", taker.port), handler)
    taker.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield taker
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
