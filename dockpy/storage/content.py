"""Blobs by digest, in an OCI image layout: `oci-layout`, `blobs/<algorithm>/<hex>`; arriving ones in `ingest/`,
those that may take several attempts in `partial/` (partial.py).

A blob under its name is whole, verified and durable: bytes are hashed on their way in, synced, then
renamed. Whatever lies in `ingest/` when the daemon starts is half done; `recover()` removes it.
Other layouts (`lent`: their roots) are read where a blob is not here; they may change at any time.
`index.json`, which says what the blobs mean, is the images room's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from dockpy import files
from dockpy.errors import InvalidParameter
from dockpy.linux.disk import start_writing
from dockpy.oci.digest import Digest, algorithm_of, digest_bytes, digest_of, hasher
from dockpy.storage import layout, remove
from dockpy.storage.layout import WRITTEN_EARLY

Read = Callable[[int], bytes]


class ContentStore:
    def __init__(self, root: str, lent: Sequence[str] = ()) -> None:
        self.root = root
        self.lent = tuple(lent)
        self._ingest = f"{root}/ingest"
        layout.make(root)
        os.makedirs(self._ingest, mode=0o700, exist_ok=True)

    def path(self, blob: Digest) -> str:
        """Where `blob` is, or would be, in this very layout."""
        return layout.place(self.root, blob)

    def _found(self, blob: Digest) -> str:
        """Where `blob` can be read."""
        own = self.path(blob)
        if self.lent and not os.path.exists(own):
            return next(
                (path for root in self.lent if os.path.exists(path := layout.place(root, blob))),
                own,
            )
        return own

    def is_lent(self, blob: Digest) -> bool:
        """Whether `blob` is another layout's: nobody here has verified it."""
        return bool(self.lent) and not os.path.exists(self.path(blob))

    def has(self, blob: Digest) -> bool:
        return os.path.exists(self._found(blob))

    def size(self, blob: Digest) -> int:
        return layout.size_at(self._found(blob), blob)

    def open(self, blob: Digest) -> int:
        """A descriptor to read `blob` from; the caller closes it. Its bytes are not verified again."""
        return layout.open_at(self._found(blob), blob)

    def read(self, blob: Digest, limit: int = 8 << 20) -> bytes:
        """The whole of a small blob, verified."""
        return layout.read_at(self._found(blob), blob, limit, "remove the image and get it again")

    def put(self, data: bytes) -> Digest:
        """Keeps a small blob here, also where another layout has it."""
        blob = digest_bytes(data)
        if not os.path.exists(self.path(blob)):
            with self.writer() as writer:
                writer.write(data)
                writer.commit(blob)
        return blob

    def writer(self) -> BlobWriter:
        return BlobWriter(self, self._ingest)

    def remove(self, blob: Digest) -> None:
        """Removes `blob`; one that is not there is no error."""
        files.unlink_if_exists(self.path(blob))

    def digests(self) -> Iterator[Digest]:
        return layout.digests(self.root)

    def recover(self) -> None:
        for entry in list(os.scandir(self._ingest)):
            remove.remove_path(entry.path)


class BlobWriter:
    """One arriving blob. As a context manager it is given up when the block ends without a commit."""

    def __init__(self, store: ContentStore, folder: str) -> None:
        self._store = store
        self._path = f"{folder}/{os.getpid()}.{os.urandom(8).hex()}"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._hash = hasher()
        self._begun = 0
        self.size = 0

    def write(self, chunk: bytes | memoryview) -> None:
        self._hash.update(chunk)
        view = memoryview(chunk)
        self.size += len(view)
        while view:
            view = view[os.write(self._fd, view) :]
        if self.size - self._begun >= WRITTEN_EARLY:
            start_writing(self._fd, self._begun, self.size - self._begun)
            self._begun = self.size

    def copying(self, read: Read) -> Read:
        """`read`, with all that it answers written here, too."""

        def reading(size: int) -> bytes:
            chunk = read(size)
            if chunk:
                self.write(chunk)
            return chunk

        return reading

    def check(self, expected: Digest | None = None, size: int | None = None) -> Digest:
        """The digest of what was written; InvalidParameter when it is not what it should be."""
        blob = digest_of(self._hash)
        if expected is not None and algorithm_of(expected) != algorithm_of(blob):
            blob = self._hash_again(expected)
        if size is not None and size != self.size:
            raise InvalidParameter(f"blob {expected or blob} has {self.size} bytes, not {size}")
        if expected is not None and blob != expected:
            raise InvalidParameter(f"blob has digest {blob}, not {expected}")
        return blob

    def commit(self, expected: Digest | None = None, size: int | None = None) -> tuple[Digest, int]:
        """Names the blob; InvalidParameter (and nothing kept) when it is not the expected one."""
        try:
            blob = self.check(expected, size)
            path = self._store.path(blob)
            if not os.path.exists(path):
                os.fdatasync(self._fd)
                os.rename(self._path, path)
                files.sync_folder(os.path.dirname(path))
        finally:
            self.abort()
        return blob, self.size

    def _hash_again(self, expected: Digest) -> Digest:
        state = hasher(expected)
        position = 0
        while True:
            chunk = os.pread(self._fd, 1 << 20, position)
            if not chunk:
                return digest_of(state)
            position += len(chunk)
            state.update(chunk)

    def abort(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            files.unlink_if_exists(self._path)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
