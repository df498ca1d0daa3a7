"""Rotated log files, compressed: made aside, put in the place of the plain one, unpacked to read.

Neither is the shim's work, which never waits for it. docker's own format for json-file: `.N.gz`, its
header's extra field an object of JSON, to which ours adds the inode that the bytes had.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import time
import zlib

from dockpy.shim.logwriter import serials
from dockpy.shim.recycled import open_shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 1 << 20
GZIP = 31  # zlib's window bits for a gzip header and trailer
LEVEL = 1  # text shrinks to a tenth; a higher level costs three times as much for a little more
_HEAD = struct.Struct("<4BIBB")
FEXTRA = 4


def unpacked(fd: int) -> int:
    """A descriptor of the bytes of a compressed file, in a file without a name; closes `fd`."""
    try:
        plain = _nameless()
        inflate = zlib.decompressobj(GZIP)
        at = 0
        while True:
            block = os.pread(fd, BLOCK, at)
            if not block:
                return plain
            at += len(block)
            try:
                _write_all(plain, inflate.decompress(block))
            except zlib.error:
                return plain  # damaged: what came before is there, and the reader misses the rest
    finally:
        os.close(fd)


def _nameless() -> int:
    try:
        return os.open("/var/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system that cannot
        return os.memfd_create("dockpy-log", os.MFD_CLOEXEC)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def origin(fd: int) -> int:
    """The inode of the file that was compressed; 0 for docker's own, which do not tell."""
    head = os.pread(fd, 4096, 0)
    try:
        first, second, _, flags, _, _, _ = _HEAD.unpack_from(head)
        if (first, second) != (0x1F, 0x8B) or not flags & FEXTRA:
            return 0
        (size,) = struct.unpack_from("<H", head, _HEAD.size)
        extra = json.loads(head[_HEAD.size + 2 : _HEAD.size + 2 + size])
        return int(extra["inode"])
    except (struct.error, ValueError, KeyError, TypeError):
        return 0


def compress(source: int, target: str, last: str) -> None:
    """Writes the bytes of `source` to a new file; `last` is the time of their last record."""
    extra = json.dumps({"lastTime": last, "inode": os.fstat(source).st_ino}).encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    out = os.open(target, flags, 0o640)
    try:
        head = _HEAD.pack(0x1F, 0x8B, 8, FEXTRA, 0, 0, 255)
        _write_all(out, head + struct.pack("<H", len(extra)) + extra)
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
        at = crc = 0
        while True:
            block = os.pread(source, BLOCK, at)
            if not block:
                break
            at += len(block)
            crc = zlib.crc32(block, crc)
            _write_all(out, deflate.compress(block))
        _write_all(out, deflate.flush() + struct.pack("<II", crc, at & 0xFFFFFFFF))
    except BaseException:
        os.unlink(target)
        raise
    finally:
        os.close(out)


def pack_local(folder: str, old_enough: Callable[[os.stat_result], bool]) -> None:
    """Compresses what the local driver does not write any more."""
    for serial in serials(folder)[:-1]:
        plain = f"{folder}/{serial}.data"
        try:
            source = open_shared(plain)
        except FileNotFoundError:
            continue  # compressed, or rotated away
        try:
            if not old_enough(os.fstat(source)):
                continue
            compress(source, f"{plain}.gz.tmp", _time_of(source))
            os.rename(f"{plain}.gz.tmp", f"{plain}.gz")
            os.unlink(plain)
        except FileNotFoundError:
            pass  # rotated away meanwhile
        finally:
            os.close(source)
        if not os.path.exists(f"{folder}/{serial}.index"):
            os.unlink(f"{plain}.gz")


def pack_json(path: str, old_enough: Callable[[os.stat_result], bool]) -> None:
    """Compresses docker's rotated files; they change their names under us, so the last step is made
    under a lock that the writer's rotation respects.
    """
    folder, _, name = path.rpartition("/")
    wanted = re.compile(re.escape(name) + r"\.[0-9]+")
    for entry in os.listdir(folder):
        if wanted.fullmatch(entry) is None:
            continue
        try:
            source = os.open(f"{folder}/{entry}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        target = f"{path}.{os.fstat(source).st_ino}.gz.tmp"
        try:
            if old_enough(os.fstat(source)):
                compress(source, target, _time_of(source))
                _put_in_place(source, target, folder, wanted)
        finally:
            os.close(source)


def _put_in_place(source: int, target: str, folder: str, wanted: re.Pattern[str]) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for entry in os.listdir(folder):
            plain = f"{folder}/{entry}"
            if wanted.fullmatch(entry) and os.stat(plain).st_ino == os.fstat(source).st_ino:
                os.rename(target, f"{plain}.gz")
                os.unlink(plain)
                return
        os.unlink(target)  # rotated away meanwhile
    finally:
        os.close(lock)


def _time_of(source: int) -> str:
    """docker notes the time of the last record; a file's last change is that."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.fstat(source).st_mtime))
