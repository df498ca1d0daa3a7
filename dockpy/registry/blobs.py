"""The contract between the registry server and whatever keeps its bytes.

`BlobStore` knows blobs by digest and uploads by id, and nothing of repositories. A blob that it has is
whole, verified and durable. All calls block and may come from several worker threads; one upload is
only ever in one caller's hands. Unknown blobs and uploads are NotFound, digests that differ are
InvalidParameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from dockpy.oci.digest import Digest


class Upload(Protocol):
    """A blob that is arriving. What has been appended survives the death of the process."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str:
        """The repository for which it was begun."""
        ...

    @property
    def size(self) -> int: ...

    def open(self) -> int:
        """A descriptor to read what has been appended; the caller closes it."""
        ...

    def append(self, data: bytes) -> None:
        """All of `data` or, with an OSError, nothing of it."""
        ...


class BlobStore(Protocol):
    def has(self, blob: Digest) -> bool: ...

    def size(self, blob: Digest) -> int: ...

    def open(self, blob: Digest) -> int:
        """A descriptor; the caller closes it."""
        ...

    def read(self, blob: Digest, limit: int) -> bytes:
        """The whole of a small blob, verified."""
        ...

    def put(self, data: bytes, blob: Digest) -> None:
        """Keeps `data`, whose digest the caller has found to be `blob`."""
        ...

    def remove(self, blob: Digest) -> None: ...

    def digests(self) -> Iterator[Digest]: ...

    def begin(self, name: str, algorithm: str = ...) -> Upload:
        """A new one. `algorithm`: the digest's that will be asked for, if known; any other will do, too."""
        ...

    def upload(self, id: str) -> Upload: ...

    def seal(self, upload: Upload, expected: Digest) -> None:
        """Its bytes are durable; where their digest is another one, the upload is dropped."""
        ...

    def commit(self, upload: Upload, expected: Digest) -> None:
        """Makes a sealed upload the blob `expected`."""
        ...

    def abort(self, upload: Upload) -> None: ...

    def expire(self, seconds: float) -> int:
        """Drops uploads to which nothing was added for so long; how many."""
        ...
