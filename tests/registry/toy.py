"""A registry of ours in a thread, over a real socket: honest by default, and able to lie in each known way.

`lies` maps a piece of a request's path to a function that answers in its place (`answer`, `cut`, …).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


Lie = Callable[["Handler"], None]


@dataclass
class Toy:
    """`token_realm` / `basic` switch authorization on; `user` is who may come in."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    lies: dict[str, Lie] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    token_realm: str = ""
    basic: bool = False
    user: str = "me:secret"
    tags_a_page: int = 2
    port: int = 0
    scheme: str = "http"
    ranges: bool = True

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def put_blob(self, data: bytes) -> str:
        name = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[name] = data
        return name

    def put_manifest(self, raw: object, *references: str, media_type: str = OCI_MANIFEST) -> str:
        data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
        name = "sha256:" + hashlib.sha256(data).hexdigest()
        for reference in (name, *references):
            self.manifests[reference] = (media_type, data)
        return name

    def put_image(
        self, layers: list[bytes], diff_ids: list[str], *references: str, config: object = None
    ) -> str:
        raw = config or {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        data = json.dumps(raw).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.put_blob(data),
                "size": len(data),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+"
                    + ("zstd" if layer[:4] == b"\x28\xb5\x2f\xfd" else "gzip"),
                    "digest": self.put_blob(layer),
                    "size": len(layer),
                }
                for layer in layers
            ],
        }
        return self.put_manifest(manifest, *references)

    def asked(self, piece: str, method: str = "") -> list[Seen]:
        return [one for one in self.seen if piece in one.path and method in ("", one.method)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    toy: Toy

    def log_message(self, format: str, *args: object) -> None: ...

    def answer(
        self, status: int, body: bytes = b"", kind: str = "application/json", **headers: str
    ) -> None:
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(len(body))}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        for name, value in fields.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, code: str, message: str, **headers: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.answer(status, body, **headers)

    def hang_up(self) -> None:
        self.close_connection = True

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", "0") or 0)
        body = self.rfile.read(length)
        toy = self.toy
        toy.seen.append(Seen(self.command, self.path, dict(self.headers.items()), body))
        for piece, lie in list(toy.lies.items()):
            if piece in self.path:
                lie(self)
                return
        path = urlsplit(self.path).path
        if path == "/token":
            self._token()
        elif self._let_in():
            self._registry(path)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_CONNECT = _serve  # noqa: N815  # the base class's names

    def _let_in(self) -> bool:
        toy, given = self.toy, self.headers.get("Authorization", "")
        if toy.token_realm and given != "Bearer good":
            challenge = f'Bearer realm="{toy.token_realm}",service="toy",scope="evil:*:*"'
            self.fail(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)
            return False
        wanted = "Basic " + base64.b64encode(toy.user.encode()).decode()
        if toy.basic and given != wanted:
            self.fail(
                401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="toy"'
            )
            return False
        return True

    def _token(self) -> None:
        wanted = "Basic " + base64.b64encode(self.toy.user.encode()).decode()
        given = self.headers.get("Authorization", "")
        if self.command == "POST" or given in ("", wanted):
            self.answer(200, b'{"token": "good", "expires_in": 300, "refresh_token": "again"}')
        else:
            self.answer(401, b'{"details": "incorrect username or password"}')

    def _registry(self, path: str) -> None:
        toy = self.toy
        if path == "/v2/":
            self.answer(200, b"{}")
        elif match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            found = toy.manifests.get(match[2])
            if found is None:
                self.fail(404, "MANIFEST_UNKNOWN", "manifest unknown")
            else:
                name = "sha256:" + hashlib.sha256(found[1]).hexdigest()
                self.answer(200, found[1], found[0], Docker_Content_Digest=name)
        elif match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:.+)", path):
            self._blob(match[2])
        elif path.endswith("/tags/list"):
            self._tags(path)
        else:
            self.fail(404, "NAME_UNKNOWN", "repository name not known to registry")

    def _blob(self, name: str) -> None:
        data = self.toy.blobs.get(name)
        if data is None:
            self.fail(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and self.toy.ranges:
            start = int(match[1])
            place = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[start:], "application/octet-stream", Content_Range=place)
        else:
            self.answer(200, data, "application/octet-stream")

    def _tags(self, path: str) -> None:
        last = parse_qs(urlsplit(self.path).query).get("last", [""])[0]
        tags = sorted(tag for tag in self.toy.manifests if ":" not in tag and tag > last)
        page = tags[: self.toy.tags_a_page]
        more = f'<{path}?last={page[-1]}&n=2>; rel="next"' if len(page) < len(tags) else ""
        self.answer(200, json.dumps({"name": "x", "tags": page}).encode(), Link=more)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None: ...


@contextmanager
def serving(toy: Toy, certificate: str = "", key: str = "", client_ca: str = "") -> Iterator[Toy]:
    handler = type("OneHandler", (Handler,), {"toy": toy})
    server = _Server(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        toy.scheme = "https"
    toy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield toy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# Lies


def cut_after(sent: int, times: int = 1, seconds: float = 0.0) -> Lie:
    """The connection ends after so many bytes of a blob (and so long); honest after `times` cuts."""
    left = [times]

    def lie(handler: Handler) -> None:
        if left[0] <= 0:
            handler._registry(urlsplit(handler.path).path)
            return
        left[0] -= 1
        data = handler.toy.blobs[urlsplit(handler.path).path.rpartition("/")[2]]
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        handler.send_response(206 if match else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        if match:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start : start + sent])
        time.sleep(seconds)
        handler.hang_up()

    return lie


def endless(handler: Handler) -> None:
    """A body in chunks that never ends."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    while True:
        handler.wfile.write(chunk)


def always(status: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> Lie:
    return lambda handler: handler.answer(status, body, kind, **headers)


def first(times: int, lie: Lie) -> Lie:
    """`lie` so often, then the truth."""
    left = [times]

    def answer(handler: Handler) -> None:
        left[0] -= 1
        if left[0] >= 0:
            lie(handler)
        else:
            handler._registry(urlsplit(handler.path).path)

    return answer


def redirect_loop(handler: Handler) -> None:
    handler.answer(307, Location=handler.path)


def elsewhere(url: str) -> Lie:
    return lambda handler: handler.answer(307, Location=url)
