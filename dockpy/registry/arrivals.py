"""Blobs on their way from an upstream registry: each comes once, into an upload, and every client follows the file.

A client that hangs up stops nothing, and one that dawdles holds up nobody. Nobody is shown the last byte
before the digest of the whole was found right: a blob that is not what it should be reaches a client torn.
"""

from __future__ import annotations

import logging
import os

import trio

from dockpy.errors import DockpyError
from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import Digest
from dockpy.registry.blobs import Upload
from dockpy.registry.cleanup import WITHIN, to_the_end
from dockpy.registry.client import Repository
from dockpy.registry.errors import Cut
from dockpy.registry.refusals import Refusal
from dockpy.registry.repositories import Repositories
from dockpy.registry.sources import Disk, OpenBlob
from dockpy.transport.client import TransportError
from dockpy.transport.server import PeerGone

log = logging.getLogger(__name__)

AT_ONCE = 8  # downloads
ATTEMPTS = 5  # in a row that brought nothing
BLOCK = 1 << 20


class Arrival:
    """One blob that is being fetched."""

    def __init__(self, name: str, blob: Digest, size: int) -> None:
        self.name = name
        self.blob = blob
        self.size = size
        self.have = 0
        self.fd = -1  # of the upload's file
        self.over = False
        self.failure: Exception | None = None
        self._changed = trio.Event()

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_begun(self) -> None:
        """Until its file is there, or it is over."""
        while self.fd < 0 and not self.over:
            await self._changed.wait()

    async def wait_behind(self, offset: int) -> int:
        """The end of what may be shown, as soon as it lies behind `offset`; PeerGone when it has failed."""
        while True:
            shown = self.size if self.over else min(self.have, self.size - 1)
            if self.failure is not None:
                raise PeerGone
            if shown > offset or self.over:
                return shown
            await self._changed.wait()


class ArrivingBlob(OpenBlob):
    def __init__(self, arrival: Arrival) -> None:
        super().__init__(os.dup(arrival.fd), arrival.size)
        self._arrival = arrival

    async def available(self, offset: int) -> int:
        return await self._arrival.wait_behind(offset)


class Arrivals:
    """Downloads in tasks of `nursery`, which outlive the requests that began them."""

    def __init__(
        self, nursery: trio.Nursery, repositories: Repositories, disk: Disk, limit: int = 0
    ) -> None:
        """`limit`: bytes that all blobs may take; what came last may be more, while it is read. 0: no limit."""
        self._limit = limit
        self._nursery = nursery
        self._repositories = repositories
        self._disk = disk
        self._at_once = trio.CapacityLimiter(AT_ONCE)
        self._arriving: dict[tuple[str, Digest], Arrival] = {}

    async def follow(self, far: Repository, name: str, blob: Digest, size: int) -> OpenBlob:
        """The blob as it comes; the error that kept it from beginning."""
        arrival = self._arriving.get((name, blob))
        if arrival is None:
            arrival = self._arriving[name, blob] = Arrival(name, blob, size)
            self._nursery.start_soon(self._fetch, far, arrival)
        await arrival.wait_begun()
        if arrival.failure is not None:
            raise arrival.failure
        if arrival.over:
            return OpenBlob(*await self._disk.run(self._repositories.open_blob, name, blob))
        return ArrivingBlob(arrival)

    async def _fetch(self, far: Repository, arrival: Arrival) -> None:
        try:
            async with self._at_once:
                await self._take(far, arrival)
        except (DockpyError, Refusal, OSError) as error:
            log.error("%s of %s did not come: %s", arrival.blob, arrival.name, error)
            arrival.failure = error
        except Exception as error:
            log.exception("%s of %s did not come", arrival.blob, arrival.name)
            arrival.failure = error
        finally:
            del self._arriving[arrival.name, arrival.blob]
            arrival.over = True
            arrival.changed()
            if arrival.fd >= 0:
                os.close(arrival.fd)

    async def _take(self, far: Repository, arrival: Arrival) -> None:
        blobs = self._repositories.blobs
        upload = await self._disk.run(blobs.begin, arrival.name)
        try:
            failures = 0
            while upload.size < arrival.size:
                before = upload.size
                try:
                    await self._some(far, arrival, upload)
                except (Cut, TransportError) as error:
                    failures = 1 if upload.size > before else failures + 1
                    if failures >= ATTEMPTS:
                        raise
                    log.warning("%s: %s; going on at %d", arrival.blob, error, upload.size)
                    await trio.sleep(0.25 * 2**failures)
            await self._disk.run(self._repositories.finish, upload, arrival.blob)
            if self._limit:
                await self._disk.run(self._repositories.fit, self._limit, arrival.blob)
        except BaseException:
            await to_the_end(blobs.abort, upload)
            raise

    async def _some(self, far: Repository, arrival: Arrival, upload: Upload) -> None:
        """As much as one answer brings, from where the upload stands."""
        wanted = Descriptor("", arrival.blob, arrival.size)
        async with await far.blob(wanted, upload.size) as coming:
            skip = upload.size - coming.offset
            block = bytearray()
            if arrival.fd < 0:
                arrival.fd = await self._disk.run(upload.open)
                arrival.changed()
            try:
                async for chunk in coming.chunks():
                    block += chunk[skip:]
                    skip = max(skip - len(chunk), 0)
                    if len(block) >= BLOCK:
                        await self._append(arrival, upload, block)
            finally:
                with trio.move_on_after(WITHIN, shield=True):
                    await self._append(arrival, upload, block)

    async def _append(self, arrival: Arrival, upload: Upload, block: bytearray) -> None:
        data = bytes(block)
        block.clear()
        if data:
            await self._disk.run(upload.append, data)
            arrival.have = upload.size
            arrival.changed()
