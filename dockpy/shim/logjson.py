"""Reads docker's json-file, the rotated and compressed ones too. The format is in shim.log."""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from itertools import groupby
from operator import itemgetter

from dockpy.shim.log import BOTH, FOREVER, Entry
from dockpy.shim.packed import origin, unpacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 18


class _File:
    """One of the files, open; a compressed one is unpacked when it is first read."""

    def __init__(self, fd: int, packed: bool) -> None:
        self._fd = fd
        self._packed = packed
        # Compression gives the bytes another file: the head of that tells which it was.
        self.inode = origin(fd) if packed else os.fstat(fd).st_ino

    @property
    def fd(self) -> int:
        if self._packed:
            self._fd, self._packed = unpacked(self._fd), False
        return self._fd

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def key(self) -> str:
        """Which file it is, whatever its name; an inode alone may be used again. "" while empty."""
        line, end, _ = os.pread(self.fd, BLOCK, 0).partition(b"\n")
        return f"{self.inode}-{zlib.crc32(line)}" if end else ""

    def close(self) -> None:
        os.close(self._fd)


class JsonFileReader:
    """Reads docker's json-file and its rotated predecessors, oldest first or the last `tail` lines."""

    def __init__(
        self,
        path: str,
        *,
        tail: int | None = None,
        since: int = 0,
        until: int = FOREVER,
        streams: frozenset[int] = BOTH,
        start: str = "",
    ) -> None:
        """`start` is a `mark` of another reader, to go on there."""
        self._path = path
        self._since = since
        self._until = until
        self._streams = streams
        self._files = self._open_all()
        self._at = 0
        self._rest = b""
        if start:
            self._seek_mark(start)
        elif tail is not None:
            self._seek_tail(tail)

    def _open_all(self) -> list[_File]:
        """All files, oldest first. While they are opened none may change its name: that would hide
        or double one; so the writer's rotation waits, and who compresses.
        """
        files: list[_File] = []
        try:
            lock = os.open(self._path.rpartition("/")[0], os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return files
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            number = 0
            while True:
                found = self._open(f"{self._path}.{number}" if number else self._path)
                if found is not None:
                    files.insert(0, found)
                elif number:
                    return files
                number += 1
        finally:
            os.close(lock)

    def _open(self, name: str) -> _File | None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        for path, packed in ((name, False), (f"{name}.gz", True)):
            try:
                return _File(os.open(path, flags), packed)
            except FileNotFoundError:
                continue
        return None

    def _inode(self) -> int | None:
        """Of the file being written."""
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return None

    def mark(self) -> str:
        """Where it stands, for `start`; "" while there is nothing to stand on."""
        key = self._files[0].key() if self._files else ""
        return f"{key}.{self._at - len(self._rest)}" if key else ""

    def _seek_mark(self, mark: str) -> None:
        key, _, at = mark.rpartition(".")
        for place, file in enumerate(self._files):
            if at.isdigit() and file.key() == key and int(at) <= file.size:
                self._drop(place)
                self._at = int(at)
                return

    def _drop(self, count: int) -> None:
        for old in self._files[:count]:
            old.close()
        del self._files[:count]

    def _seek_tail(self, tail: int) -> None:
        lines = 0
        for place in reversed(range(len(self._files))):
            at = self._files[place].size
            while at > 0:
                begin = max(at - BLOCK, 0)
                block = os.pread(self._files[place].fd, at - begin, begin)
                here = block.count(b"\n")
                if lines + here > tail:
                    end = len(block)
                    for _ in range(tail - lines + 1):
                        end = block.rfind(b"\n", 0, end)
                    self._drop(place)
                    self._at = begin + end + 1
                    return
                lines += here
                at = begin

    def position(self) -> tuple[int, int]:
        if not self._files:
            return 0, 0
        return self._files[0].inode, self._at

    def close(self) -> None:
        self._drop(len(self._files))

    def entries(self) -> Iterator[Entry]:
        while True:
            lines = self._lines()
            if not lines:
                return
            for line in lines:
                entry = self._entry(line)
                if entry is not None:
                    yield entry

    def texts(self) -> list[tuple[int, bytes]]:
        """The next lines without their times, neighbours of one stream as one text; empty at the end.

        A block is read as one array: a fifth of the time of its lines one by one.
        """
        while True:
            lines = self._lines()
            if not lines:
                return []
            timeless = self._since <= 0 and self._until == FOREVER
            try:
                if not timeless:
                    raise ValueError
                rows = json.loads(b"[%b]" % b",".join(lines))
                pairs = [(2 if row["stream"] == "stderr" else 1, row["log"]) for row in rows]
                found = [
                    (stream, "".join([text for _, text in group]).encode("utf-8", "surrogatepass"))
                    for stream, group in groupby(pairs, key=itemgetter(0))
                    if stream in self._streams
                ]
            except (ValueError, KeyError, TypeError):  # a torn line among them, or times matter
                entries = [entry for entry in map(self._entry, lines) if entry is not None]
                found = [(entry.stream, entry.data) for entry in entries]
            if found:
                return found

    def _lines(self) -> list[bytes]:
        """The next whole lines, all of one file; empty when there are no more (yet)."""
        while True:
            if not self._files:
                self._files = self._open_all()
                if not self._files:
                    return []
            block = os.pread(self._files[0].fd, BLOCK, self._at)
            if not block:
                if not self._go_on():
                    return []
                continue
            self._at += len(block)
            lines = (self._rest + block).split(b"\n")
            self._rest = lines.pop()
            if lines:
                return lines

    def _go_on(self) -> bool:
        """To the next file; False when this one is the newest and read to its end."""
        if len(self._files) > 1:
            self._drop(1)
            self._at = 0
            self._rest = b""
            return True
        here = self._files[0]
        if here.size < self._at:  # somebody has emptied it
            self._at = 0
            self._rest = b""
            return True
        newest = self._inode()
        # Its last record came before the next file did: so look at its size after that.
        if newest is None or newest == here.inode or here.size > self._at:
            return here.size > self._at
        key = here.key()
        later = self._open_all()
        for place, file in enumerate(later):
            if file.inode == here.inode and file.key() == key:
                for old in later[: place + 1]:
                    old.close()
                del later[: place + 1]
                break
        self._files += later
        return bool(later) and self._go_on()

    def _entry(self, line: bytes) -> Entry | None:
        try:
            fields = json.loads(line)
            stream = 2 if fields["stream"] == "stderr" else 1
            when = parse_rfc3339(fields["time"])
            data = str(fields["log"]).encode("utf-8", "surrogatepass")
        except (ValueError, KeyError, TypeError):
            return None  # a torn line: its writer was killed
        if stream not in self._streams or not self._since <= when <= self._until:
            return None
        attrs = fields.get("attrs")
        return Entry(stream, when, data, attrs if isinstance(attrs, dict) else None)

    def finish(self) -> Iterator[Entry]:
        return iter(())


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch of a UTC time as rfc3339_nano writes it; ValueError otherwise."""
    head, _, fraction = text.rstrip("Z").partition(".")
    seconds = _calendar_seconds(head)
    return seconds * 1_000_000_000 + int(f"{fraction:0<9.9}")


def _calendar_seconds(text: str) -> int:
    date, _, clock = text.partition("T")
    year, month, day = (int(part) for part in date.split("-"))
    hour, minute, second = (int(part) for part in clock.split(":"))
    # Days since 1970-01-01 in the proleptic Gregorian calendar, years beginning in March.
    year -= month <= 2
    days = year * 365 + year // 4 - year // 100 + year // 400
    days += (153 * ((month + 9) % 12) + 2) // 5 + day - 1 - 719468
    return ((days * 24 + hour) * 60 + minute) * 60 + second
