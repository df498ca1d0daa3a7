"""What the images of a store may take on disk: of those that nobody has used for longest the blobs go first (they are
made again from the trees: remaking), then they themselves.

An image is used when a container is made from it, and when it comes or gets a name; the time is that of
its config's blob. What a container stands on, running or not, what another store lends, and what was
used within the last minute is never taken. Blocking.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from dockpy import files
from dockpy.errors import DockpyError
from dockpy.images.image import Image
from dockpy.images.store import ImageStore

# Seconds: who has just resolved an image is about to make a container of it.
YOUNG = 60.0


class Quota:
    """`path` holds the limit, a number of bytes; without it there is none."""

    def __init__(
        self,
        path: str,
        store: ImageStore,
        in_use: Callable[[str], bool],
        thin: Callable[[Image], int] = lambda _: 0,
    ) -> None:
        """`thin` drops the blobs of an image; the bytes freed."""
        self._path = path
        self._thin = thin
        self._store = store
        self._in_use = in_use
        self.limit = self._read()
        self.put_off = False  # whether `keep` has to be asked again: nothing could go

    def _read(self) -> int | None:
        try:
            return int(files.read_bytes(self._path, 64))
        except (FileNotFoundError, ValueError):
            return None

    def set(self, limit: int | None) -> None:
        """`limit` in bytes; None lifts it."""
        if limit is None:
            files.unlink_if_exists(self._path)
        else:
            files.write_atomic(self._path, b"%d\n" % limit)
        self.limit = limit

    def used(self) -> int:
        """Bytes of all blobs, of all layers' trees, and of what these are made archives by again."""
        content, snapshots = self._store.content, self._store.snapshots
        total = self._store.recipes.size()
        for blob in tuple(content.digests()):
            with suppress(DockpyError):  # removed meanwhile
                total += content.size(blob)
        for chain in snapshots.chains():
            with suppress(DockpyError):
                total += snapshots.chain_takes(chain)
        return total

    def keep(self) -> list[Image]:
        """Removes images until the rest is within the limit; those that were removed.

        It may stay above: what is in use is nobody's to take.
        """
        removed: list[Image] = []
        self.put_off = False
        if self.limit is None or self.used() <= self.limit:
            return removed
        oldest = self._oldest_first()
        for image in oldest:
            if self._thin(image) and self.used() <= self.limit:
                return removed
        for image in oldest:
            # While a pull is under way, say, images would be forgotten one after the other, and nothing be freed.
            self.put_off = not self._store.collects()
            if self.put_off:
                break
            if not self._in_use(image.id):
                self._store.delete(image)
                removed.append(image)
                if self.used() <= self.limit:
                    break
        return removed

    def _oldest_first(self) -> list[Image]:
        """Those that may go; nameless ones before all others."""
        now = time.time()
        found = []
        for image in self._store.list():
            try:
                used = os.stat(self._store.content.path(image.id)).st_mtime
            except FileNotFoundError:
                continue  # a lender's
            if now - used > YOUNG:
                found.append((bool(image.repo_tags), used, image.id, image))
        return [image for _, _, _, image in sorted(found, key=lambda row: row[:3])]


def touch(store: ImageStore, image: Image) -> None:
    """Says that the image is used now."""
    with suppress(FileNotFoundError):
        os.utime(store.content.path(image.id))
