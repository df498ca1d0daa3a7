"""One blob into a repository, whatever happens on the way: whole, in chunks, resumed, begun again.

First in one request. A registry (or what stands before it) that finds that too large gets chunks, smaller
ones at each refusal and never smaller than it says it takes. After a cut it is asked what it has, and the
rest follows; one that has forgotten gets all of it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from dockpy.errors import DockpyError
from dockpy.oci.digest import Digest
from dockpy.registry.errors import RegistryError
from dockpy.registry.upload import Upload, Uploads
from dockpy.transport.client import Body, TransportError

CHUNKS = (16 << 20, 4 << 20, 1 << 20)  # nginx's limit, where nobody has raised it, is the last
PROGRESS = 256 << 10  # bytes that an attempt must have brought not to count
_GONE = frozenset(("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"))


@dataclass(frozen=True)
class Source:
    """`pieces(offset, length)` reads that part of the blob, again for each attempt."""

    digest: Digest
    size: int
    pieces: Callable[[int, int], AsyncIterator[bytes]]


class Listener(Protocol):
    def sent(self, count: int) -> None:
        """So many bytes of the blob are on their way, or with the registry."""

    def retrying(self, seconds: int) -> None:
        """The next attempt begins in so many seconds; 0 when it does."""


class Sending:
    """`upload`: one that was begun already (a mount that was none)."""

    def __init__(
        self, uploads: Uploads, source: Source, listener: Listener, upload: Upload | None = None
    ) -> None:
        self._uploads = uploads
        self._source = source
        self._listener = listener
        self._upload = upload
        self._chunks = iter(CHUNKS)
        self._chunk = 0  # bytes; 0 is all at once
        self._in_doubt = False  # whether the registry has to be asked what it has
        self._resumed = False

    async def run(self) -> None:
        """Returns when the registry has the blob; RegistryError or TransportError when it cannot be."""
        attempt, best = 1, 0
        while True:
            try:
                await self._try()
                return
            except (TransportError, RegistryError) as error:
                if self._goes_on_otherwise(error):
                    continue
                if self._upload is not None and self._upload.received >= best + PROGRESS:
                    best, attempt = self._upload.received, 1  # it goes on, only not in one go
                pause = self._pause(error, attempt)
                if pause is None:
                    raise
                attempt += 1
                await self._wait(pause)

    async def _try(self) -> None:
        if self._in_doubt and await self._is_there():
            return
        if self._upload is None:
            self._upload = await self._uploads.start()
        self._in_doubt = True
        source, upload = self._source, self._upload
        if not self._chunk and not upload.received:
            await self._uploads.put(upload, source.digest, self._body(0, source.size))
            return
        while upload.received < source.size:
            rest = source.size - upload.received
            length = min(max(self._chunk, upload.least) if self._chunk else rest, rest)
            upload = await self._uploads.patch(upload, self._body(upload.received, length))
            self._upload = upload
        await self._uploads.put(upload, source.digest)

    async def _is_there(self) -> bool:
        """Whether only the answer was lost. What the registry has of the upload is known then."""
        source = self._source
        if await self._uploads.repository.has_blob(source.digest) is not None:
            return True
        if self._upload is not None:
            try:
                upload = await self._uploads.ask(self._upload)
            except RegistryError as error:
                if error.temporary:
                    raise
                self._upload = None
            else:
                self._resumed = 0 < upload.received <= source.size
                self._upload = upload if self._resumed else None
        self._in_doubt = False
        return False

    def _body(self, offset: int, length: int) -> Body:
        async def pieces() -> AsyncIterator[bytes]:
            done = offset
            async for piece in self._source.pieces(offset, length):
                yield piece
                done += len(piece)
                self._listener.sent(done)

        return Body(pieces, length)

    def _goes_on_otherwise(self, error: DockpyError) -> bool:
        """Whether another way is tried at once: smaller pieces; all of it, where a resumed one came out wrong."""
        status, code = getattr(error, "status", 0), getattr(error, "code", "")
        if status == 413:
            chunk = next(self._chunks, 0)
            if not chunk:
                return False
            self._chunk = chunk
        elif code == "DIGEST_INVALID" and self._resumed:
            self._resumed = False
        else:
            return False
        self._upload, self._in_doubt = None, False
        return True

    def _pause(self, error: DockpyError, attempt: int) -> float | None:
        retries = self._uploads.repository.registry.retries
        if isinstance(error, RegistryError):
            if error.code in _GONE:
                self._upload = None
            elif not error.temporary and error.status != 416:
                return None
            return retries.pause(attempt, error.retry_after)
        return retries.pause(attempt, None)

    async def _wait(self, pause: float) -> None:
        until = trio.current_time() + pause
        while (left := until - trio.current_time()) > 0:
            self._listener.retrying(max(int(left + 0.5), 1))
            await trio.sleep(min(left, 1.0))
        self._listener.retrying(0)
