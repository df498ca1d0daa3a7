"""An image as a value: what the store answers and everybody else in this room takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import ChainID, Digest
from dockpy.oci.image import ImageConfig
from dockpy.oci.manifest import Manifest


@dataclass(frozen=True)
class Image:
    """One image with its present names. `descriptor` is its manifest's; `size` what its layers
    take unpacked.
    """

    id: Digest
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    chain_ids: tuple[ChainID, ...]
    size: int
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    tagged: str = ""

    @property
    def created(self) -> str:
        return self.config.created

    @property
    def short_id(self) -> str:
        return short(self.id)


def short(identifier: str) -> str:
    """The first twelve hex digits of an id, as docker shows it."""
    return identifier.partition(":")[2][:12] or identifier[:12]


def timestamp(nanoseconds: int | None = None) -> str:
    """Now, or a moment since the epoch, as RFC 3339 with nanoseconds."""
    moment = time.time_ns() if nanoseconds is None else nanoseconds
    seconds, rest = divmod(moment, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
