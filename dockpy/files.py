"""State on disk changes here only: temporary file, fsync, rename, fsync of the folder.

A power cut leaves the old file or the new one, never half of one. Stdlib only, imports nothing
that is slow to import: the client and the keeper use it.
"""

from __future__ import annotations

import errno
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def write_atomic(path: str, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replaces `path` by `data` in one step.

    With `durable` the new content survives a power cut once this returns; without, it survives
    only the death of processes (right for what describes something running: exit files, pids).
    """
    temporary = write_temporary(path, data, mode, durable=durable)
    try:
        os.rename(temporary, path)
    except BaseException:
        unlink_if_exists(temporary)
        raise
    if durable:
        sync_folder(os.path.dirname(path) or ".")


def write_over(path: str, data: bytes) -> None:
    """Into the room that the file has already, where its disk has no other: less than a sector, so that a
    power cut leaves old or new. OSError where there is no such file, or it is shorter.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if len(data) > min(os.fstat(fd).st_size, 512):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.pwrite(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_temporary(path: str, data: bytes, mode: int = 0o600, *, durable: bool) -> str:
    """The name of a new file beside `path` with what is to stand there: renaming it is the caller's.

    For those who sync many things at once; of one that was left, `partial_files` knows.
    """
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    except BaseException:
        unlink_if_exists(temporary)
        raise
    finally:
        os.close(fd)
    return temporary


def sync_folder(path: str) -> None:
    """Makes names in `path` (created, renamed, removed) survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_bytes(path: str, limit: int = 64 << 20) -> bytes:
    """The whole of a file of ours; ValueError when it is longer than `limit` bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        total = 0
        while True:
            part = os.read(fd, 1 << 16)
            if not part:
                return b"".join(parts)
            total += len(part)
            if total > limit:
                raise ValueError(f"{path} is longer than {limit} bytes")
            parts.append(part)
    finally:
        os.close(fd)


def unlink_if_exists(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


class locked:  # used as a function; contextlib costs the client an import
    """`with locked(path):` holds an exclusive flock on `path`, created when missing (mode 0600)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


# ENOSYS: lustre without its mount option.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class try_locked:
    """`with try_locked(path) as got:` holds it, if nobody else holds it in any way; created when missing
    (mode 0644: others may hold it, too, by `shared_lock`). Where the file system has no locks nobody does.
    """

    def __init__(self, path: str) -> None:
        # To write: NFS gives exclusive locks to nobody else (flock(2)).
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def __enter__(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(self._fd)
                raise
        return True

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def shared_lock(path: str) -> int:
    """A descriptor that holds a shared flock on `path` until it is closed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError:
        os.close(fd)
        raise
    return fd


def partial_files(folder: str) -> Iterator[str]:
    """Left-overs of interrupted `write_atomic` calls in `folder` (to be removed at daemon start)."""
    for entry in os.scandir(folder):
        if entry.name.endswith(".tmp") and entry.is_file(follow_symlinks=False):
            yield entry.path
