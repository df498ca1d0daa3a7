"""Container logs: the `local` and `json-file` formats, their writers (shim) and readers (daemon).

local, ours: `<folder>/<serial>.data` holds raw bytes, `<serial>.index` one record a chunk as it
came from the container: offset, length, stream (1 stdout, 2 stderr), flags (bit 0: no newline at
the end), time in ns. A record is written after its bytes, so what the index speaks of is there; a
torn tail is cut at open. The highest serial is being written; rotation opens the next and deletes
the oldest, so no file ever changes its name under a reader. Lines are split at read time.

json-file is docker's, byte for byte: one object a line, lines cut at 16 KiB without a newline.

Everything here blocks on nothing but the disk. A reader's `position()` equals the writer's when it
has read all there is; a daemon that follows asks the shim to tell when the two differ
(ShimLink.grown).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from dockpy.shim.logwriter import FOREVER as FOREVER
from dockpy.shim.logwriter import LONGEST_LINE, NO_NEWLINE, RECORD, serials
from dockpy.shim.logwriter import json_path as json_path
from dockpy.shim.logwriter import rfc3339_nano as rfc3339_nano

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class LogReader(Protocol):
        """Entries from where it stands to the present end; again later for what has come since."""

        def entries(self) -> Iterator[Entry]: ...
        def finish(self) -> Iterator[Entry]: ...
        def position(self) -> tuple[int, int]: ...
        def close(self) -> None: ...


STREAM_COLUMN = 12  # of a record, its stream
BOTH = frozenset((1, 2))


@dataclass(frozen=True)
class Run:
    """Consecutive bytes of one stream in an open log file: ready for sendfile(fd, offset, length).

    `fd` is the reader's and stays open until the reader's next call.
    """

    fd: int
    offset: int
    length: int
    stream: int
    time: int  # of its first record

    def read(self) -> bytes:
        return os.pread(self.fd, self.length, self.offset)


@dataclass(frozen=True)
class Entry:
    """A line with its newline; or a piece of one: the end of a stream, 16 KiB of a long line."""

    stream: int
    time: int
    data: bytes


class LocalReader:
    """Reads a folder of `local` logs from the oldest on, or from the last `tail` lines on."""

    def __init__(
        self,
        folder: str,
        *,
        tail: int | None = None,
        since: int = 0,
        until: int = FOREVER,
        streams: frozenset[int] = BOTH,
    ) -> None:
        self._folder = folder
        self._since = since
        self._until = until
        self._streams = streams
        self._pending: dict[int, tuple[int, bytes]] = {}
        self._data = self._index = -1
        self._rewind()
        if tail is not None:
            self._seek_tail(tail)

    def position(self) -> tuple[int, int]:
        return max(self._serial, 0), self._record

    def close(self) -> None:
        for fd in (self._data, self._index):
            if fd >= 0:
                os.close(fd)
        self._data = self._index = -1

    def runs(self, *, longest: int = 8 << 20) -> list[Run]:
        """The next ranges, all of one file; empty when there is nothing more (yet)."""
        while True:
            block = self._block()
            if not block:
                return []
            found = self._ranges(block, self._window(block), longest)
            if found:
                return found

    def entries(self) -> Iterator[Entry]:
        """Lines, each with the time of its first byte. An unfinished line waits for its rest."""
        while True:
            block = self._block()
            if not block:
                return
            ahead, ahead_at = b"", 0
            for at in self._window(block):
                offset, size, stream, _, when = RECORD.unpack_from(block, at * RECORD.size)
                if stream not in self._streams or offset + size <= self._skip:
                    continue
                if self._skip > offset:
                    offset, size = self._skip, offset + size - self._skip
                if not ahead_at <= offset <= offset + size <= ahead_at + len(ahead):
                    ahead_at, ahead = offset, os.pread(self._data, max(size, 1 << 18), offset)
                begin = offset - ahead_at
                yield from self._lines(stream, when, ahead[begin : begin + size])

    def finish(self) -> Iterator[Entry]:
        """What was left unfinished, when nothing more will come."""
        for stream, (when, data) in sorted(self._pending.items()):
            yield Entry(stream, when, data)
        self._pending.clear()

    def _lines(self, stream: int, when: int, data: bytes) -> Iterator[Entry]:
        if stream in self._pending:
            first, rest = self._pending.pop(stream)
            data = rest + data
        else:
            first = when
        start = 0
        while start < len(data):
            end = data.find(b"\n", start, start + LONGEST_LINE) + 1
            if not end:
                end = start + LONGEST_LINE
                if end > len(data):
                    self._pending[stream] = (first, data[start:])
                    return
            yield Entry(stream, first, data[start:end])
            first = when
            start = end

    def _rewind(self) -> None:
        self.close()
        self._serial = -1
        self._record = 0
        self._skip = 0  # data offset to begin at, inside the first record

    def _enter(self, serial: int) -> bool:
        """Opens that file; False when rotation has deleted it meanwhile."""
        self._rewind()
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._index = os.open(f"{self._folder}/{serial}.index", flags)
            self._data = os.open(f"{self._folder}/{serial}.data", flags)
        except FileNotFoundError:
            self.close()
            return False
        finally:
            self._serial = serial
        return True

    def _block(self) -> bytes:
        """The next records, all of one file; empty when there are no more (yet)."""
        while True:
            block = self._read_block()
            if block:
                return block
            later = [serial for serial in serials(self._folder) if serial > self._serial]
            # The writer's last record in this file came before the next file did: look once more.
            block = self._read_block() if later else b""
            if block or not any(self._enter(serial) for serial in later):
                return block

    def _read_block(self) -> bytes:
        if self._index < 0:
            return b""
        block = os.pread(self._index, 4096 * RECORD.size, self._record * RECORD.size)
        count = len(block) // RECORD.size
        self._record += count
        return block[: count * RECORD.size]

    def _window(self, block: bytes) -> range:
        """Which records of a block are between since and until. In a log, time goes forward."""

        def when(at: int) -> int:
            time_of: int = RECORD.unpack_from(block, at * RECORD.size)[4]
            return time_of

        count = len(block) // RECORD.size
        first, last = 0, count
        if when(0) < self._since:
            first = _bisect(count, lambda at: when(at) >= self._since)
        if when(count - 1) > self._until:
            last = _bisect(count, lambda at: when(at) > self._until)
        return range(first, last)

    def _ranges(self, block: bytes, window: range, longest: int) -> list[Run]:
        """Neighbours of one stream become one range: the search for its end is a C loop."""
        column = block[STREAM_COLUMN :: RECORD.size]
        found: list[Run] = []
        at, last = window.start, window.stop
        while at < last:
            stream = column[at]
            change = column.find(3 - stream, at, last)
            end = last if change < 0 else change
            if stream in self._streams:
                offset, _, _, _, when = RECORD.unpack_from(block, at * RECORD.size)
                begin, size, _, _, _ = RECORD.unpack_from(block, (end - 1) * RECORD.size)
                offset = max(offset, self._skip)
                while offset < begin + size:
                    length = min(longest, begin + size - offset)
                    found.append(Run(self._data, offset, length, stream, when))
                    offset += length
            at = end
        return found

    def _seek_tail(self, tail: int) -> None:
        """Stands where `tail` lines are left; an end without a newline counts as a line."""
        present = serials(self._folder)
        lines = self._open_ends(present) if tail else 0
        for serial in reversed(present):
            if not self._enter(serial):
                break
            index = self._whole_index()
            count = len(index) // RECORD.size
            if not tail:
                self._record = count
                return
            for run in reversed(self._ranges(index, range(count), 1 << 18)):
                data = run.read()
                newlines = data.count(b"\n")
                if newlines <= tail - lines:
                    lines += newlines
                    continue
                at = len(data)
                for _ in range(tail - lines + 1):
                    at = data.rfind(b"\n", 0, at)
                self._skip = run.offset + at + 1
                self._record = _record_at(index, count, self._skip)
                return
        self._rewind()

    def _open_ends(self, present: list[int]) -> int:
        """How many of the wanted streams end without a newline."""
        ends = 0
        missing = set(self._streams)
        for serial in reversed(present):
            if not missing or not self._enter(serial):
                break
            index = self._whole_index()
            column = index[STREAM_COLUMN :: RECORD.size]
            for stream in tuple(missing):
                last = column.rfind(stream)
                if last >= 0:
                    missing.discard(stream)
                    ends += index[last * RECORD.size + STREAM_COLUMN + 1] & NO_NEWLINE
        return ends

    def _whole_index(self) -> bytes:
        size = os.fstat(self._index).st_size
        index = os.pread(self._index, size, 0)
        return index[: len(index) // RECORD.size * RECORD.size]


def _record_at(index: bytes, count: int, position: int) -> int:
    """The record that holds the byte at `position`."""

    def ends_after(at: int) -> bool:
        offset, size, _, _, _ = RECORD.unpack_from(index, at * RECORD.size)
        return bool(offset + size > position)

    return _bisect(count, ends_after)


def _bisect(count: int, reached: Callable[[int], bool]) -> int:
    """The first of `count` numbers from which on `reached` is true."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if reached(middle):
            high = middle
        else:
            low = middle + 1
    return low


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
    ) -> None:
        self._path = path
        self._since = since
        self._until = until
        self._streams = streams
        self._files = self._open_all()
        self._at = 0
        self._rest = b""
        if tail is not None:
            self._seek_tail(tail)

    def _open_all(self) -> list[int]:
        """Descriptors of all files, oldest first."""
        files: list[int] = []
        number = 0
        while True:
            try:
                name = f"{self._path}.{number}" if number else self._path
                files.insert(0, os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
            except FileNotFoundError:
                if number:
                    return files
            number += 1

    def _seek_tail(self, tail: int) -> None:
        lines = 0
        for place in reversed(range(len(self._files))):
            at = os.fstat(self._files[place]).st_size
            while at > 0:
                begin = max(at - (1 << 18), 0)
                block = os.pread(self._files[place], at - begin, begin)
                here = block.count(b"\n")
                if lines + here > tail:
                    end = len(block)
                    for _ in range(tail - lines + 1):
                        end = block.rfind(b"\n", 0, end)
                    for old in self._files[:place]:
                        os.close(old)
                    del self._files[:place]
                    self._at = begin + end + 1
                    return
                lines += here
                at = begin

    def position(self) -> tuple[int, int]:
        if not self._files:
            return 0, 0
        return os.fstat(self._files[0]).st_ino, self._at

    def close(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files.clear()

    def entries(self) -> Iterator[Entry]:
        while True:
            if not self._files:
                self._files = self._open_all()
                if not self._files:
                    return
            block = os.pread(self._files[0], 1 << 18, self._at)
            if not block:
                if not self._go_on():
                    return
                continue
            self._at += len(block)
            lines = (self._rest + block).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                entry = self._entry(line)
                if entry is not None:
                    yield entry

    def _go_on(self) -> bool:
        """To the next file; False when this one is the newest and read to its end."""
        if len(self._files) > 1:
            os.close(self._files.pop(0))
            self._at = 0
            self._rest = b""
            return True
        here = os.fstat(self._files[0])
        if here.st_size < self._at:  # emptied by a rotation with one file only
            self._at = 0
            self._rest = b""
            return True
        try:
            newest = os.stat(self._path)
        except FileNotFoundError:
            return False
        if newest.st_ino == here.st_ino or here.st_size > self._at:
            return here.st_size > self._at
        later = self._open_all()
        for place, fd in enumerate(later):
            if os.fstat(fd).st_ino == here.st_ino:
                for old in later[: place + 1]:
                    os.close(old)
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
        return Entry(stream, when, data)

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
