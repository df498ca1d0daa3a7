"""Blobs of an image on their way to a registry: where they come from, and what is told of them in docker's words."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import trio

from dockpy.images.image import short
from dockpy.images.progress import Line, Tell, counting
from dockpy.images.store import LayerUse
from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import Digest
from dockpy.registry.sending import Source
from dockpy.storage.content import ContentStore

PIECE = 1 << 20
TICK = 0.1  # seconds between two counting lines of a layer


class Outgoing:
    """One layer, and what is told of it. `descriptor` changes when it is compressed on the way.

    `use` is what it is in its image; the config, which is sent like a layer, has none.
    """

    def __init__(
        self, descriptor: Descriptor, identity: str, tell: Tell, use: LayerUse | None = None
    ) -> None:
        self.descriptor = descriptor
        self.use = use
        self._id = short(identity)
        self._tell = tell
        self._word = ""
        self._count = 0
        self._told = 0
        self._retry = 0

    async def say(self, status: str) -> None:
        self._word = ""
        await self._tell({"status": status, "progressDetail": {}, "id": self._id})

    def counting(self, word: str) -> None:
        """From here on `count` is told as this."""
        self._word, self._count, self._told = word, 0, 0

    def sent(self, count: int) -> None:
        self._count = count

    def retrying(self, seconds: int) -> None:
        self._retry = seconds

    async def look(self) -> None:
        """Tells what has changed, if anything has."""
        line: Line | None = None
        if self._retry:
            plural = "" if self._retry == 1 else "s"
            status = f"Retrying in {self._retry} second{plural}"
            line = {"status": status, "progressDetail": {}, "id": self._id}
            self._retry = 0
        elif self._word and self._count != self._told:
            self._told = self._count
            line = counting(self._id, self._word, self._count, self.descriptor.size)
        if line is not None:
            await self._tell(line)


async def watch(rows: list[Outgoing]) -> None:
    """Tells how far all of them are, until it is cancelled."""
    while True:
        await trio.sleep(TICK)
        for row in rows:
            await row.look()


def stored(content: ContentStore, blob: Digest, size: int, threads: trio.CapacityLimiter) -> Source:
    """A blob of the content store. What its digest is now, the registry finds out."""

    async def pieces(offset: int, length: int) -> AsyncIterator[bytes]:
        fd = content.open(blob)
        try:
            end = offset + length
            while offset < end:
                data = await trio.to_thread.run_sync(
                    os.pread, fd, min(PIECE, end - offset), offset, limiter=threads
                )
                if not data:
                    raise OSError(f"blob {blob} is shorter than its {size} bytes")
                offset += len(data)
                yield data
        finally:
            os.close(fd)

    return Source(blob, size, pieces)
