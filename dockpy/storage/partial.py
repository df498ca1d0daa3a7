"""Blobs that arrive by and by, perhaps in several attempts: written here, read there at the same time.

    partial/sha256-<hex>.<size>   the first bytes of a blob, as many as have come

A partial file is kept when its transfer is cut, and goes on in the next one, of this daemon or a later one.
Nothing in it counts before `verify` has seen digest and size; `keep` then gives it its name among the
blobs. After a power cut nobody knows what of it reached the disk, so one from before the last boot is begun
again; what nobody has touched for a day is removed when the daemon starts.

One `Partial` a digest, size (two registries may differ: one of them lies) and process, handed out by `Partials` to whoever wants that blob. One task writes at
a time (that is the callers' to see to); threads read as they like, and wait for bytes that are to come.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable

from dockpy import files
from dockpy.errors import InvalidParameter, Unavailable
from dockpy.linux.disk import start_writing
from dockpy.oci.digest import Digest, algorithm_of, digest_of, hasher, hex_of
from dockpy.storage.content import ContentStore
from dockpy.storage.layout import WRITTEN_EARLY

Read = Callable[[int], bytes]

KEPT = 24 * 3600.0  # seconds
_PIECE = 1 << 20


class Stopped(Exception):
    """The reader's own side has given up."""


class Partials:
    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._folder = f"{content.root}/partial"
        self._open: dict[tuple[Digest, int], Partial] = {}
        self._lock = threading.Lock()
        os.makedirs(self._folder, mode=0o700, exist_ok=True)

    def take(self, blob: Digest, size: int) -> Partial:
        """The partial file of `blob`; to be given back by `release`."""
        path = f"{self._folder}/{algorithm_of(blob)}-{hex_of(blob)}.{size}"
        with self._lock:
            one = self._open.get((blob, size))
            if one is None:
                one = self._open[blob, size] = Partial(self._content, path, blob, size)
            one.users += 1
            return one

    def release(self, one: Partial) -> None:
        with self._lock:
            one.users -= 1
            if not one.users:
                one.close()
                del self._open[one.blob, one.size]

    def clean(self, older: float = KEPT) -> int:
        """Removes what nobody wants now and nobody has touched for `older` seconds; the bytes freed."""
        freed = 0
        with self._lock:
            for entry in list(os.scandir(self._folder)):
                if any(one.path == entry.path for one in self._open.values()):
                    continue
                state = entry.stat(follow_symlinks=False)
                if time.time() - state.st_mtime >= older:
                    os.unlink(entry.path)
                    freed += state.st_blocks * 512
        return freed


class Partial:
    """The first `written` bytes of a blob of `size` bytes."""

    def __init__(self, content: ContentStore, path: str, blob: Digest, size: int) -> None:
        self.blob = blob
        self.size = size
        self.path = path
        self.users = 0
        self.whole = False  # verified
        self.written = 0
        self._content = content
        self._begun = 0
        self._hashed = False
        self._hash = hasher(blob)
        self._news = threading.Condition()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        state = os.fstat(self._fd)
        if state.st_size > size or state.st_mtime < _booted():
            os.ftruncate(self._fd, 0)
        else:
            self.written = state.st_size

    def begin(self) -> int:
        """To be called before the first write: reads what is there; how many bytes that is. Blocks."""
        if not self._hashed:
            room = os.fstatvfs(self._fd)
            if self.size - self.written > room.f_bavail * room.f_frsize:
                raise self._no_space()
            position = 0
            while position < self.written:
                piece = os.pread(self._fd, min(_PIECE, self.written - position), position)
                if not piece:
                    break
                self._hash.update(piece)
                position += len(piece)
            self._hashed = True
        return self.written

    def write(self, data: bytes) -> None:
        """The next bytes. Blocks."""
        if self.written + len(data) > self.size:
            raise InvalidParameter(f"blob {self.blob} has more than its {self.size} bytes")
        view, at = memoryview(data), self.written
        try:
            while view:
                done = os.pwrite(self._fd, view, at)
                view, at = view[done:], at + done
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_space() from None
            raise
        self._hash.update(data)
        if at - self._begun >= WRITTEN_EARLY:
            start_writing(self._fd, self._begun, at - self._begun)
            self._begun = at
        with self._news:
            self.written = at
            self._news.notify_all()

    def _no_space(self) -> Unavailable:
        return Unavailable(f"no space left on device for the {self.size} bytes of {self.blob}")

    def verify(self) -> None:
        """When all is written: whether it is what it should be. InvalidParameter, and nothing left, if not."""
        found = digest_of(self._hash)
        if self.written != self.size or found != self.blob:
            self.discard()
            raise InvalidParameter(
                f"filesystem layer verification failed for digest {self.blob}: it has {found}"
            )
        with self._news:
            self.whole = True
            self._news.notify_all()

    def discard(self) -> None:
        """Begins anew: what came is of no use."""
        with self._news:
            self.written = self._begun = 0
            self._hash = hasher(self.blob)
            os.ftruncate(self._fd, 0)

    def reader(self, stopped: Callable[[], bool], tell: Callable[[int], object]) -> Read:
        """Reads from the start, and waits for what is to come. `tell` gets the place after each piece.

        Stopped, when `stopped` says so (`wake` makes it be asked).
        """
        position = 0

        def read(count: int) -> bytes:
            nonlocal position
            with self._news:
                while position >= self.written and position < self.size and not stopped():
                    self._news.wait()
            if stopped():
                raise Stopped
            data = os.pread(self._fd, min(count, self.written - position), position)
            position += len(data)
            tell(position)
            return data

        return read

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Returns when the blob is whole and verified."""
        with self._news:
            while not self.whole and not stopped():
                self._news.wait()
        if not self.whole:
            raise Stopped

    def wake(self) -> None:
        with self._news:
            self._news.notify_all()

    def keep(self) -> None:
        """Gives the verified blob its name. Blocks; harmless when somebody else has done it."""
        with self._news:
            assert self.whole
            if self._content.has(self.blob):
                files.unlink_if_exists(self.path)
                return
            os.fdatasync(self._fd)
            os.fchmod(self._fd, 0o644)
            target = self._content.path(self.blob)
            os.rename(self.path, target)
            files.sync_folder(os.path.dirname(target))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if not self.written:
                files.unlink_if_exists(self.path)


def _booted() -> float:
    """When this kernel was started, seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
