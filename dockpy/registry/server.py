"""The server's side of the OCI distribution specification 1.1, over `Repositories`.

From an exchange to a reply; what the disk has to do happens in worker threads. Errors are Refusals with the
specification's codes; whatever else goes wrong is told as UNKNOWN and goes to the log with its traceback.
Uploads, which take several requests, are in `server_uploads`.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Callable, TypeVar
from urllib.parse import quote

import trio

from dockpy.errors import DockpyError, InvalidParameter
from dockpy.http.codec import BadRequest
from dockpy.oci.descriptor import OCI_INDEX
from dockpy.oci.digest import Digest
from dockpy.registry.htpasswd import Accounts
from dockpy.registry.manifests import LIMIT, Record
from dockpy.registry.ranges import Unsatisfiable, wanted_range
from dockpy.registry.refusals import Refusal
from dockpy.registry.repositories import Repositories, tag_order
from dockpy.registry.routes import (
    WRITES,
    Route,
    checked_digest,
    checked_reference,
    checked_tag,
    page_of,
    route,
)
from dockpy.registry.server_uploads import UploadHandlers
from dockpy.registry.sources import Disk, OpenBlob, Source
from dockpy.transport.server import Exchange, PeerGone

log = logging.getLogger(__name__)

T = TypeVar("T")

HEADERS = (
    ("Docker-Distribution-API-Version", "registry/2.0"),
    ("X-Content-Type-Options", "nosniff"),
)
JSON = ("Content-Type", "application/json")
PAGE = 10_000  # entries of a listing at most; the rest is behind its Link
TAGS = 100  # with one manifest
FULL = (errno.ENOSPC, errno.EDQUOT)


class RegistryServer:
    def __init__(
        self,
        repositories: Repositories,
        source: Source,
        disk: Disk,
        *,
        accounts: Accounts | None = None,
        read_only: str = "",
    ) -> None:
        """`read_only`: why nothing can be pushed or deleted."""
        self._repositories = repositories
        self._source = source
        self._disk = disk
        self._accounts = accounts
        self._read_only = read_only
        uploads = UploadHandlers(repositories, disk)
        self._handlers: Mapping[str, Callable[[Exchange, Route], Awaitable[None]]] = {
            "base": self._base,
            "catalog": self._catalog,
            "tags": self._tags,
            "referrers": self._referrers,
            "manifests": self._manifests,
            "blobs": self._blobs,
            "uploads": uploads.begin,
            "upload": uploads.go_on,
        }

    async def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        try:
            if self._accounts is not None:
                await self._accounts.check(request.headers.get("authorization", ""))
            found = route(request.method, request.path)
            if self._read_only and request.method in WRITES:
                raise Refusal("UNSUPPORTED", self._read_only)
            await self._handlers[found.kind](exchange, found)
        except Refusal as error:
            await _refuse(exchange, error)
        except (BadRequest, PeerGone, ConnectionError, trio.BrokenResourceError):
            raise
        except DockpyError as error:
            await _refuse(exchange, Refusal("UNKNOWN", str(error)))
        except OSError as error:
            if error.errno in FULL:
                log.error("%s %s: the disk is full", request.method, request.path)
                full = "no space is left on the registry's disk"
                await _refuse(exchange, Refusal("UNKNOWN", full, status=507))
                return
            log.exception("%s %s failed", request.method, request.path)
            await _refuse(exchange, Refusal("UNKNOWN", (error.strerror or "error").lower()))
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            await _refuse(exchange, Refusal("UNKNOWN", "internal error"))

    # ----------------------------------------------------------------------------- listings

    async def _base(self, exchange: Exchange, _: Route) -> None:
        await exchange.reply(200, [JSON], b"{}")

    async def _catalog(self, exchange: Exchange, _: Route) -> None:
        number, last = page_of(exchange.request.query)
        names = await self._source.names()
        behind = [name for name in names if name > last]
        await _list(exchange, {}, "repositories", behind, number)

    async def _tags(self, exchange: Exchange, asked: Route) -> None:
        number, last = page_of(exchange.request.query)
        tags = await self._source.tags(asked.name)
        if last:
            tags = [tag for tag in tags if tag_order(tag) > tag_order(last)]
        await _list(exchange, {"name": asked.name}, "tags", tags, number)

    async def _referrers(self, exchange: Exchange, asked: Route) -> None:
        subject = checked_digest(asked.reference)
        wanted = exchange.request.query.get("artifactType", "")
        last = exchange.request.query.get("last", "")
        found = await self._source.referrers(asked.name, subject)
        entries, more = _page_of_referrers(found, wanted, last)
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        headers = [("Content-Type", OCI_INDEX)]
        if wanted:
            headers.append(("OCI-Filters-Applied", "artifactType"))
        if more:
            query = {**exchange.request.query, "last": str(entries[-1]["digest"])}
            headers.append(_next_page(exchange, query))
        await exchange.reply(200, headers, json.dumps(body, separators=(",", ":")).encode())

    # ---------------------------------------------------------------------------- manifests

    async def _manifests(self, exchange: Exchange, asked: Route) -> None:
        tag, value = checked_reference(asked.reference)
        method = exchange.request.method
        if method == "PUT":
            await self._put_manifest(exchange, asked.name, tag, value)
        elif method == "DELETE":
            if value is None:
                await self._disk.run(self._repositories.remove_tag, asked.name, tag)
            else:
                await self._disk.run(self._repositories.remove_manifest, asked.name, value)
            await exchange.reply(202)
        else:
            await self._get_manifest(exchange, asked.name, tag, value)

    async def _get_manifest(
        self, exchange: Exchange, name: str, tag: str, value: Digest | None
    ) -> None:
        found, record = await self._source.resolve(name, tag, value)
        headers = [
            ("Content-Type", record.media_type),
            ("Docker-Content-Digest", found),
            ("ETag", f'"{found}"'),
        ]
        if _fresh(exchange, found):
            await exchange.reply(304, headers[1:])
        elif exchange.request.method == "HEAD":
            await exchange.reply(200, [*headers, ("Content-Length", str(record.size))])
        else:
            data = await self._source.manifest(name, found)
            await exchange.reply(200, headers, data)

    async def _put_manifest(
        self, exchange: Exchange, name: str, tag: str, value: Digest | None
    ) -> None:
        tags = [tag] if tag else []
        if value is not None:
            tags = [checked_tag(text) for text in exchange.request.query_lists.get("tag", ())]
        if len(tags) > TAGS:
            raise Refusal("TAG_INVALID", f"at most {TAGS} tags at once", status=414)
        try:
            data = await exchange.body(LIMIT)
        except InvalidParameter:
            raise Refusal(
                "SIZE_INVALID", f"manifests have at most {LIMIT} bytes here", status=413
            ) from None
        kind = exchange.request.headers.get("content-type", "")
        found, record = await self._disk.run(
            self._repositories.put_manifest, name, tags, value, data, kind
        )
        headers = [
            ("Location", f"/v2/{name}/manifests/{found}"),
            ("Docker-Content-Digest", found),
        ]
        if value is not None and tags:
            headers.append(("OCI-Tag", ", ".join(tags)))
        if record.subject is not None:
            headers.append(("OCI-Subject", record.subject))
        await exchange.reply(201, headers)

    # -------------------------------------------------------------------------------- blobs

    async def _blobs(self, exchange: Exchange, asked: Route) -> None:
        blob = checked_digest(asked.reference)
        if exchange.request.method == "DELETE":
            await self._disk.run(self._repositories.remove_blob, asked.name, blob)
            await exchange.reply(202)
            return
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", blob),
            ("ETag", f'"{blob}"'),
            ("Accept-Ranges", "bytes"),
            ("Cache-Control", "max-age=31536000"),
        ]
        if exchange.request.method == "HEAD":
            size = await self._source.blob_size(asked.name, blob)
            await exchange.reply(200, [*headers, ("Content-Length", str(size))])
            return
        opened = await self._source.open_blob(asked.name, blob)
        try:
            await _send_blob(exchange, headers, blob, opened)
        finally:
            opened.close()


async def _send_blob(
    exchange: Exchange, headers: Sequence[tuple[str, str]], blob: Digest, opened: OpenBlob
) -> None:
    if _fresh(exchange, blob):
        await exchange.reply(304, headers[1:])
        return
    asked = exchange.request.headers
    part = None
    if asked.get("if-range", f'"{blob}"') == f'"{blob}"':
        try:
            part = wanted_range(asked.get("range", ""), opened.size)
        except Unsatisfiable:
            await exchange.reply(416, [("Content-Range", f"bytes */{opened.size}")])
            return
    status, offset, length = 200, 0, opened.size
    if part is not None:
        status, (offset, length) = 206, part
        where = f"bytes {offset}-{offset + length - 1}/{opened.size}"
        headers = [*headers, ("Content-Range", where)]
    await exchange.reply_file(status, headers, opened.fd, offset, length, opened.available)


def _page_of_referrers(
    found: Sequence[tuple[Digest, Record]], wanted: str, last: str
) -> tuple[list[dict[str, object]], bool]:
    """Entries behind `last`, and whether more follow: an answer is a manifest, and no longer than one."""
    entries: list[dict[str, object]] = []
    room = LIMIT - 1024
    for value, record in found:
        if value <= last or (wanted and record.artifact_type != wanted):
            continue
        entry = record.referrer(value)
        room -= len(json.dumps(entry)) + 1
        if entries and room < 0:
            return entries, True
        entries.append(entry)
    return entries, False


def _fresh(exchange: Exchange, value: Digest) -> bool:
    """Whether the client has what it asks for."""
    return f'"{value}"' in exchange.request.headers.get("if-none-match", "")


async def _list(
    exchange: Exchange,
    body: Mapping[str, object],
    key: str,
    entries: Sequence[str],
    number: int | None,
) -> None:
    limit = PAGE if number is None else min(number, PAGE)
    page = entries[:limit]
    headers = [JSON]
    if page and len(entries) > limit:
        headers.append(_next_page(exchange, {"n": str(limit), "last": page[-1]}))
    await exchange.reply(200, headers, json.dumps({**body, key: page}).encode())


def _next_page(exchange: Exchange, query: Mapping[str, str]) -> tuple[str, str]:
    text = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    return "Link", f'<{exchange.request.path}?{text}>; rel="next"'


async def _refuse(exchange: Exchange, error: Refusal) -> None:
    if exchange.begun:
        # The status has gone: what is left is to stop, so that the client sees a torn body.
        exchange.broken = True
        raise PeerGone
    await exchange.reply(error.status, [JSON, *error.headers], error.body())
