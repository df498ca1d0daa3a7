"""One layer of one pull: from the registry into its partial file, and from there to the extractor.

Several pulls may want a blob: each has a `Layer` of its own on the one `Partial`, and the first to hold
that blob's lock transfers it. When it fails or is given up, the next goes on where it stopped, with its own
connection. A layer's stage is read by whoever shows progress; numbers may be changed by the extractor's
thread meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from dockpy.images.unpack import Arrival
from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import Digest
from dockpy.registry.cleanup import WITHIN
from dockpy.registry.client import Repository
from dockpy.registry.errors import Cut, RegistryError
from dockpy.storage.partial import Partial, Partials, Read

BATCH = 512 << 10  # bytes that are hashed and written in one go

PULLING, WAITING, DOWNLOADING, VERIFYING, DOWNLOADED, EXTRACTING, DONE, EXISTS = range(8)


class Layer(Arrival):
    """Made before the pull's tasks are; `close` when they are over. `here`: there is nothing to bring."""

    def __init__(self, descriptor: Descriptor, partials: Partials, *, here: bool) -> None:
        self.descriptor = descriptor
        self.stage = PULLING
        self.extracted = 0  # compressed bytes that the extractor has read
        self.retry_in = 0  # seconds, while it waits to ask again
        self._stopped = False
        self._partial: Partial | None = None
        self._partials = partials
        if here:
            self.stage = EXISTS
        else:
            self._partial = partials.take(descriptor.digest, descriptor.size)

    @property
    def partial(self) -> Partial:
        assert self._partial is not None  # asked of layers that arrive only
        return self._partial

    @property
    def arrives(self) -> bool:
        return self._partial is not None

    @property
    def current(self) -> int:
        return self.partial.written

    # The extractor's thread

    def __call__(self) -> Read:
        self.stage = max(self.stage, EXTRACTING) if self.partial.whole else self.stage
        return self.partial.reader(self._is_stopped, self._tell)

    def _tell(self, position: int) -> None:
        self.extracted = position
        if self.partial.whole and self.stage < EXTRACTING:
            self.stage = EXTRACTING

    def verify(self) -> None:
        self.partial.wait(self._is_stopped)
        self.stage = DONE

    def finish(self) -> None:
        self.verify()
        self.partial.keep()

    def _is_stopped(self) -> bool:
        return self._stopped

    # The pull's tasks

    def stop(self) -> None:
        """Ends the extractor's waiting."""
        self._stopped = True
        if self._partial is not None:
            self._partial.wake()

    def close(self) -> None:
        if self._partial is not None:
            self._partials.release(self._partial)
            self._partial = None


class Transfers:
    """Locks by blob: who holds one may write its partial file."""

    def __init__(self) -> None:
        self._locks: dict[tuple[Digest, int], trio.Lock] = {}
        self._threads = trio.CapacityLimiter(8)

    async def fetch(
        self,
        layers: Sequence[Layer],
        repository: Repository,
        at_once: int,
        news: Callable[[], None],
    ) -> None:
        """All that arrive, in order, so many at once; returns when they are whole and verified, whoever
        has transferred them. The first failure ends all.
        """
        slots = trio.Semaphore(at_once)
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def one(layer: Layer) -> None:
                try:
                    await self._fetch(layer, repository, news)
                except Exception as error:  # raised again outside, where it is not in a group
                    failures.append(error)
                    nursery.cancel_scope.cancel()
                finally:
                    slots.release()

            coming = [layer for layer in layers if layer.arrives]
            for number, layer in enumerate(coming):
                if number == at_once:
                    for later in coming[number:]:
                        later.stage = WAITING
                    news()
                await slots.acquire()
                nursery.start_soon(one, layer)
        if failures:
            raise failures[0]

    async def _fetch(self, layer: Layer, repository: Repository, news: Callable[[], None]) -> None:
        blob = (layer.descriptor.digest, layer.descriptor.size)
        lock = self._locks.setdefault(blob, trio.Lock())
        try:
            async with lock:
                if not layer.partial.whole:
                    layer.stage = DOWNLOADING
                    await self._transfer(layer, repository, news)
        finally:
            held = lock.statistics()
            if not held.locked and not held.tasks_waiting:
                self._locks.pop(blob, None)
        layer.stage = max(layer.stage, DOWNLOADED)
        news()

    async def _transfer(
        self, layer: Layer, repository: Repository, news: Callable[[], None]
    ) -> None:
        partial, attempt = layer.partial, 1
        await self._do(partial.begin)
        while partial.written < partial.size:
            before = partial.written
            try:
                await self._receive(layer, repository)
            except RegistryError as error:
                if partial.written > before:
                    attempt = 1  # it goes on, only not in one go
                pause = repository.registry.retries.pause(attempt, error.retry_after)
                if not error.temporary or pause is None:
                    raise
                attempt += 1
                await _wait(layer, pause, news)
        layer.stage = VERIFYING
        await self._do(partial.verify)

    async def _receive(self, layer: Layer, repository: Repository) -> None:
        partial = layer.partial
        async with await repository.blob(layer.descriptor, partial.written) as blob:
            skip = partial.written - blob.offset  # where the registry knows no ranges
            batch: list[bytes] = []
            size = 0
            try:
                async for chunk in blob.chunks():
                    if skip:
                        kept = chunk[skip:]
                        skip -= len(chunk) - len(kept)
                        chunk = kept
                    batch.append(chunk)
                    size += len(chunk)
                    if size >= BATCH:
                        whole, batch, size = b"".join(batch), [], 0
                        await self._do(partial.write, whole)
            except (Cut, trio.Cancelled):
                # What has come before need not come again: one short write, once a thread is free.
                with trio.move_on_after(WITHIN, shield=True):
                    await self._do(partial.write, b"".join(batch))
                raise
            await self._do(partial.write, b"".join(batch))

    async def _do(self, work: Callable[..., object], *arguments: object) -> None:
        await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)


async def _wait(layer: Layer, pause: float, news: Callable[[], None]) -> None:
    until = trio.current_time() + pause
    while (left := until - trio.current_time()) > 0:
        layer.retry_in = max(int(left + 0.5), 1)
        news()
        await trio.sleep(min(left, 1.0))
    layer.retry_in = 0
