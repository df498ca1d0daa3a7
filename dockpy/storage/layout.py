"""The blobs of an OCI image layout as files: `oci-layout`, `blobs/<algorithm>/<hex>`. For the store, and for the registry.

Who writes there says so in its own module; nothing here does but for the frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from dockpy import files
from dockpy.errors import InvalidParameter, NotFound
from dockpy.oci.digest import Digest, algorithm_of, digest, digest_of, hasher, hex_of

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
WRITTEN_EARLY = 8 << 20  # the disk works while more arrives: else the sync of 128 MB takes 0.3 s
_ALGORITHMS = ("sha256", "sha512")


def make(root: str) -> None:
    """An empty layout, where there is none yet."""
    for algorithm in _ALGORITHMS:
        os.makedirs(f"{root}/blobs/{algorithm}", mode=0o700, exist_ok=True)
    if not os.path.exists(f"{root}/oci-layout"):
        files.write_atomic(f"{root}/oci-layout", LAYOUT, 0o644)


def place(root: str, blob: Digest) -> str:
    return f"{root}/blobs/{algorithm_of(blob)}/{hex_of(blob)}"


def size_at(path: str, blob: Digest) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        raise _missing(blob) from None


def open_at(path: str, blob: Digest) -> int:
    """A descriptor; the caller closes it. The bytes are not verified again."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _missing(blob) from None


def read_at(path: str, blob: Digest, limit: int, remedy: str) -> bytes:
    """The whole of a small blob, verified: a disk may have lost what it was told to keep."""
    try:
        data = files.read_bytes(path, limit)
    except FileNotFoundError:
        raise _missing(blob) from None
    except ValueError:
        raise InvalidParameter(f"blob {blob} is longer than {limit} bytes") from None
    state = hasher(blob)
    state.update(data)
    if digest_of(state) != blob:
        raise InvalidParameter(f"blob {blob} on disk does not have this digest: {remedy}")
    return data


def digests(root: str) -> Iterator[Digest]:
    for algorithm in _ALGORITHMS:
        for name in os.listdir(f"{root}/blobs/{algorithm}"):
            try:
                yield digest(f"{algorithm}:{name}")
            except InvalidParameter:
                continue  # somebody else's file; a layout may hold any


def _missing(blob: Digest) -> NotFound:
    return NotFound(f"content {blob} is not in the store")
