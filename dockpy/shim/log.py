"""Container logs: the `local` and `json-file` formats, and the reader of the first (see logjson).

local, ours: `<folder>/<serial>.data` holds raw bytes, `<serial>.index` one record a chunk as it
came from the container: offset, length, stream (1 stdout, 2 stderr), flags (bit 0: no newline at
the end), time in ns. A record is written after its bytes, so what the index speaks of is there; a
torn tail is cut at open; what is in a file beyond its records is nothing. The highest serial is being
written; rotation opens the next and deletes the oldest, or makes that the next if nobody reads it (see
shim.recycled), so no file changes its name under a reader; the bytes of one that is not written any
more may be in `<serial>.data.gz` (see shim.packed). Lines are split at read time.

json-file is docker's, byte for byte: one object a line, lines cut at 16 KiB without a newline.

Everything here blocks on nothing but the disk. A reader's `position()` equals the writer's when it
has read all there is; a daemon that follows asks the shim to tell when the two differ
(ShimLink.grown).
"""

from __future__ import annotations

import os
import sys
from array import array
from dataclasses import dataclass

from dockpy.errors import DockpyError
from dockpy.shim.logwriter import FOREVER as FOREVER
from dockpy.shim.logwriter import LONGEST_LINE, NO_NEWLINE, RECORD, LocalWriter, serials
from dockpy.shim.logwriter import json_path as json_path
from dockpy.shim.logwriter import rfc3339_nano as rfc3339_nano
from dockpy.shim.packed import unpacked
from dockpy.shim.recycled import open_shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Protocol

    class LogReader(Protocol):
        """Entries from where it stands to the present end; again later for what has come since."""

        def entries(self) -> Iterator[Entry]: ...
        def finish(self) -> Iterator[Entry]: ...
        def position(self) -> tuple[int, int]: ...
        def mark(self) -> str: ...
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
    attrs: Mapping[str, str] | None = None


class LogDamaged(DockpyError):
    """A file of the log was changed by somebody else."""


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
        start: str = "",
    ) -> None:
        """`start` is a `mark` of another reader, to go on there."""
        self._folder = folder
        self._since = since
        self._until = until
        self._streams = streams
        self._pending: dict[int, tuple[int, bytes]] = {}
        self._data = self._index = -1
        self._rewind()
        if start:
            self._seek_mark(start)
        elif tail is not None:
            self._seek_tail(tail)

    def mark(self) -> str:
        """Where it stands, for `start`; "" within a line, where one that begins here would cut it."""
        if self._pending:
            return ""
        return f"{max(self._serial, 0)}.{self._record}.{self._skip}"

    def _seek_mark(self, mark: str) -> None:
        parts = mark.split(".")
        if len(parts) == 3 and all(part.isdigit() for part in parts) and self._enter(int(parts[0])):
            self._record, self._skip = int(parts[1]), int(parts[2])
        else:
            self._rewind()  # it is gone: all there is comes after it

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
            found: list[Run] = []
            for window in self._windows(block):
                found += self._ranges(block, window, longest)
            if found:
                return found

    def entries(self) -> Iterator[Entry]:
        """Lines, each with the time of its first byte. An unfinished line waits for its rest."""
        while True:
            block = self._block()
            if not block:
                return
            ahead, ahead_at = b"", 0
            for at in (at for window in self._windows(block) for at in window):
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
            try:
                self._data = open_shared(f"{self._folder}/{serial}.data")
            except FileNotFoundError:
                self._data = unpacked(os.open(f"{self._folder}/{serial}.data.gz", flags))
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
        if not count:
            if os.fstat(self._index).st_size < self._record * RECORD.size:
                self._record = 0  # somebody has emptied the log, and its writer has begun anew
            return b""
        there = os.fstat(self._data).st_size
        if _end(block, count - 1) > there:
            # A record is written after its bytes, so these were there once. What is left is read.
            count = _bisect(count, lambda at: _end(block, at) > there)
            if not count:
                raise LogDamaged(
                    f"the end of the log file {self._folder}/{self._serial}.data is missing: "
                    "somebody has cut it"
                )
        self._record += count
        return block[: count * RECORD.size]

    def _windows(self, block: bytes) -> list[range]:
        """Which records of a block are between since and until, each by itself: clocks jump."""
        count = len(block) // RECORD.size
        if self._since <= 0 and self._until == FOREVER:
            return [range(count)]
        columns = array("q", block)
        if sys.byteorder == "big":
            columns.byteswap()
        wanted = bytes(self._since <= when <= self._until for when in columns[2::3])
        found, at = [], wanted.find(1)
        while at >= 0:
            end = wanted.find(0, at)
            end = count if end < 0 else end
            found.append(range(at, end))
            at = wanted.find(1, end)
        return found

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


def _end(block: bytes, at: int) -> int:
    offset, size, _, _, _ = RECORD.unpack_from(block, at * RECORD.size)
    return int(offset + size)


def recover(folder: str) -> None:
    """Cuts what a power failure left half, of a log that nobody writes."""
    if serials(folder):
        LocalWriter(folder, 0, 1).close()


def _record_at(index: bytes, count: int, position: int) -> int:
    """The record that holds the byte at `position`."""

    return _bisect(count, lambda at: _end(index, at) > position)


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
