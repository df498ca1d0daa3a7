"""A layer's stream on its way to the extractor: decompressed, hashed, and read ahead by a thread.

zlib, hashlib and read(2) let go of the interpreter's lock, so the thread runs beside the one that makes
files. What `read` does besides reading (writing the blob) is done in that thread, too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dockpy.errors import InvalidParameter
from dockpy.oci.digest import DiffID, digest_of, hasher
from dockpy.storage.compression import CHUNK, Counter, decompressed

Read = Callable[[int], bytes]


@dataclass(frozen=True)
class Limits:
    """What no honest layer reaches. `ratio`: expanded to compressed, looked at beyond `ratio_from` bytes."""

    entries: int = 4_000_000
    ratio: int = 200
    ratio_from: int = 4 << 30
    replaced_directories: int = 10_000


HONEST = Limits()
AHEAD = 32  # chunks: 8 MiB


class Source:
    def __init__(self, read: Read, limits: Limits, *, hashed: bool) -> None:
        # Two C queues, the second full of permits: a bounded queue.Queue is Python under a lock, and
        # costs more than the hash.
        self._chunks: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(AHEAD):
            self._room.put(None)
        self._hash = hasher() if hashed else None
        self._stopped = False
        self._ended = False
        self._limits = limits
        self._thread = threading.Thread(target=self._run, args=(read,), name="layer", daemon=True)
        self._thread.start()

    def _run(self, read: Read) -> None:
        counter = Counter(read)
        expanded = 0
        try:
            plain = decompressed(counter.read)
            while not self._stopped:
                chunk = plain(CHUNK)
                self._room.get()
                self._chunks.put(chunk)
                if not chunk:
                    return
                if self._hash is not None:
                    self._hash.update(chunk)
                expanded += len(chunk)
                if (
                    expanded > self._limits.ratio_from
                    and expanded > self._limits.ratio * counter.total
                ):
                    raise InvalidParameter(
                        f"the archive expands to more than {self._limits.ratio} times its size"
                    )
        except BaseException as error:  # raised again where the chunks are read
            self._chunks.put(error)

    def read(self, size: int) -> bytes:
        """The next chunk, whatever `size` says: the tar reader asks for CHUNK."""
        if self._ended:
            return b""
        chunk = self._chunks.get()
        if isinstance(chunk, bytes):
            self._ended = not chunk
            self._room.put(None)
            return chunk
        self._ended = True
        raise chunk

    def finish(self) -> DiffID | None:
        self._thread.join()
        return None if self._hash is None else DiffID(digest_of(self._hash))

    def close(self) -> None:
        self._stopped = True
        self._room.put(None)  # what the thread may wait for
        self._thread.join()
