"""Where the server's answers to reading come from: the repositories of its own folder, or something behind them.

`Source` is the contract; `Local` is the plain one, `proxy` and `layout` have the others. What is not
there is a Refusal (BLOB_UNKNOWN, MANIFEST_UNKNOWN, NAME_UNKNOWN).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Callable, Protocol, TypeVar

import trio

from dockpy.oci.digest import Digest
from dockpy.registry.manifests import Record
from dockpy.registry.repositories import Repositories

T = TypeVar("T")

WORKERS = 8  # threads at the disk at once


class Disk:
    """Runs what blocks in worker threads, so many at once."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._limiter = trio.CapacityLimiter(workers)

    async def run(self, call: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)


class OpenBlob:
    """A descriptor, and how much of what will be in it can be read. To be closed."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    async def available(self, offset: int) -> int:
        """The end of what is there, as soon as it lies behind `offset`."""
        return self.size

    def close(self) -> None:
        os.close(self.fd)


class Source(Protocol):
    async def names(self) -> list[str]: ...

    async def tags(self, name: str) -> list[str]: ...

    async def resolve(self, name: str, tag: str, value: Digest | None) -> tuple[Digest, Record]:
        """The manifest that `tag` or the digest `value` names."""
        ...

    async def manifest(self, name: str, value: Digest) -> bytes:
        """The bytes of one that was resolved."""
        ...

    async def blob_size(self, name: str, blob: Digest) -> int: ...

    async def open_blob(self, name: str, blob: Digest) -> OpenBlob: ...

    async def referrers(self, name: str, subject: Digest) -> Sequence[tuple[Digest, Record]]:
        """By digest; none for a subject that nobody knows."""
        ...


class Local:
    def __init__(self, repositories: Repositories, disk: Disk) -> None:
        self._repositories = repositories
        self._disk = disk

    async def names(self) -> list[str]:
        return await self._disk.run(self._repositories.names)

    async def tags(self, name: str) -> list[str]:
        return await self._disk.run(self._repositories.tags, name)

    async def resolve(self, name: str, tag: str, value: Digest | None) -> tuple[Digest, Record]:
        return await self._disk.run(self._repositories.resolve, name, tag, value)

    async def manifest(self, name: str, value: Digest) -> bytes:
        return await self._disk.run(self._repositories.manifest, name, value)

    async def blob_size(self, name: str, blob: Digest) -> int:
        return await self._disk.run(self._repositories.blob_size, name, blob)

    async def open_blob(self, name: str, blob: Digest) -> OpenBlob:
        return OpenBlob(*await self._disk.run(self._repositories.open_blob, name, blob))

    async def referrers(self, name: str, subject: Digest) -> Sequence[tuple[Digest, Record]]:
        return await self._disk.run(lambda: list(self._repositories.referrers(name, subject)))
