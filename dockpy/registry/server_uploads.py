"""Blobs on their way in: POST, PATCH, PUT, GET and DELETE of uploads (distribution-spec, "Pushing blobs").

        POST …/uploads/                  202 Location           a session
        POST …/uploads/?digest=D         201                    the whole blob is the body
        POST …/uploads/?mount=D&from=R   201, or 202 as above   nothing is sent where D is here
        PATCH Location  [Content-Range]  202 Range              in order, or 416 and where it stands
        PUT Location?digest=D            201                    with the last bytes, or none

What has arrived is on disk when a connection breaks off, and GET says how much it was.
"""

from __future__ import annotations

import errno

import trio

from dockpy.errors import NotFound
from dockpy.http.codec import BadRequest
from dockpy.oci.digest import Digest, algorithm_of
from dockpy.registry.blobs import Upload
from dockpy.registry.cleanup import to_the_end
from dockpy.registry.ranges import chunk_range
from dockpy.registry.refusals import Refusal
from dockpy.registry.repositories import Repositories
from dockpy.registry.routes import Route, checked_digest, checked_upload
from dockpy.registry.sources import Disk
from dockpy.transport.server import Exchange, PeerGone

ALGORITHMS = ("sha256", "sha512")


class UploadHandlers:
    def __init__(self, repositories: Repositories, disk: Disk) -> None:
        self._repositories = repositories
        self._disk = disk
        self._busy: set[str] = set()

    async def begin(self, exchange: Exchange, asked: Route) -> None:
        query = exchange.request.query
        if "mount" in query:
            blob = checked_digest(query["mount"])
            if await self._disk.run(self._repositories.mount, asked.name, blob):
                await _created(exchange, asked.name, blob)
                return
        expected = checked_digest(query["digest"]) if "digest" in query else None
        algorithm = algorithm_of(expected) if expected else query.get("digest-algorithm", "sha256")
        if algorithm not in ALGORITHMS:
            raise Refusal("DIGEST_INVALID", f"unsupported digest algorithm: {algorithm[:40]!r}")
        upload = await self._disk.run(self._repositories.blobs.begin, asked.name, algorithm)
        if expected is None:
            await exchange.reply(202, _where(upload))
            return
        with _alone(self._busy, upload.id):
            try:
                await self._take(exchange, upload)
                await self._disk.run(self._repositories.finish, upload, expected)
            except BaseException:
                # Nobody knows its id.
                await to_the_end(self._repositories.blobs.abort, upload)
                raise
        await _created(exchange, asked.name, expected)

    async def go_on(self, exchange: Exchange, asked: Route) -> None:
        id = checked_upload(asked.reference)
        try:
            upload = await self._disk.run(self._repositories.blobs.upload, id)
        except NotFound:
            raise _unknown() from None
        if upload.name != asked.name:
            raise _unknown()
        method = exchange.request.method
        if method == "GET":
            await exchange.reply(204, _where(upload))
            return
        expected = None
        if method == "PUT":
            expected = checked_digest(exchange.request.query.get("digest", ""))
        with _alone(self._busy, id):
            if method == "DELETE":
                await self._disk.run(self._repositories.blobs.abort, upload)
                await exchange.reply(204)
                return
            length = _announced(exchange, upload)
            before = upload.size
            await self._take(exchange, upload)
            if length is not None and upload.size - before != length:
                raise Refusal(
                    "SIZE_INVALID",
                    f"Content-Range announces {length} bytes, {upload.size - before} came",
                    headers=_where(upload),
                )
            if expected is None:
                await exchange.reply(202, _where(upload))
                return
            try:
                await self._disk.run(self._repositories.finish, upload, expected)
            except NotFound:  # another request has ended it
                raise _unknown() from None
        await _created(exchange, asked.name, expected)

    async def _take(self, exchange: Exchange, upload: Upload) -> None:
        """The body, onto the disk; one block is written while the next arrives."""
        try:
            data = await exchange.read()
            while data:
                data = await self._append_and_read(exchange, upload, data)
        except NotFound:
            raise _unknown() from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                # A session that holds the last free bytes helps nobody.
                await self._disk.run(self._repositories.blobs.abort, upload)
            raise

    async def _append_and_read(self, exchange: Exchange, upload: Upload, data: bytes) -> bytes:
        failures: list[Exception] = []

        async def append() -> None:
            try:
                await self._disk.run(upload.append, data)
            except Exception as error:  # raised again outside, where it is not in a group
                failures.append(error)

        following = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(append)
            try:
                following = await exchange.read()
            except (PeerGone, BadRequest) as error:
                failures.append(error)
        if failures:
            raise failures[-1]
        return following


class _alone:
    """One request at a time goes on with an upload."""

    def __init__(self, busy: set[str], id: str) -> None:
        self._busy = busy
        self._id = id

    def __enter__(self) -> None:
        if self._id in self._busy:
            raise Refusal(
                "BLOB_UPLOAD_INVALID", "another request is sending to this upload", status=409
            )
        self._busy.add(self._id)

    def __exit__(self, *_: object) -> None:
        self._busy.discard(self._id)


def _announced(exchange: Exchange, upload: Upload) -> int | None:
    """How many bytes a chunk's Content-Range promises; Refusal (416) when it does not go on where the
    upload stands.
    """
    text = exchange.request.headers.get("content-range")
    if text is None:
        return None
    try:
        offset, length = chunk_range(text)
    except ValueError:
        raise Refusal(
            "BLOB_UPLOAD_INVALID", f"Content-Range {text!r:.80} is not of the form START-END"
        ) from None
    if offset != upload.size:
        raise Refusal(
            "BLOB_UPLOAD_INVALID",
            f"the chunk begins at {offset}, the upload is at {upload.size}",
            status=416,
            headers=_where(upload),
        )
    said = exchange.request.headers.get("content-length")
    if said is not None and int(said) != length:
        raise Refusal("SIZE_INVALID", f"Content-Range and Content-Length ({said}) differ")
    return length


def _where(upload: Upload) -> list[tuple[str, str]]:
    return [
        ("Location", f"/v2/{upload.name}/blobs/uploads/{upload.id}"),
        # 0-0 is one byte, and none too: docker's registry says so, and clients know it.
        ("Range", f"0-{max(upload.size - 1, 0)}"),
        ("Docker-Upload-UUID", upload.id),
    ]


async def _created(exchange: Exchange, name: str, blob: Digest) -> None:
    headers = [("Location", f"/v2/{name}/blobs/{blob}"), ("Docker-Content-Digest", blob)]
    await exchange.reply(201, headers)


def _unknown() -> Refusal:
    return Refusal("BLOB_UPLOAD_UNKNOWN", "no upload has this id")
