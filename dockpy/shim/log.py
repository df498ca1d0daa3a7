"""Container logs: the `local` and `json-file` formats, their writers (shim) and readers (daemon).

local, ours: `<folder>/<serial>.data` holds raw bytes, `<serial>.index` one record a chunk as it
came
from the container: offset, length, stream (1 stdout, 2 stderr), flags (bit 0: no newline at the end),
time in ns. A record is written after its bytes, so what the index speaks of is there; a torn tail
is
cut at open. The highest serial is being written; rotation opens the next and deletes the oldest, so
no
file ever changes its name under a reader. Lines are split at read time.

json-file is docker's, byte for byte: one object a line, lines cut at 16 KiB without a newline.

Everything here blocks on nothing but the disk. A reader's `position()` equals the writer's when it has
read all there is; a daemon that follows asks the shim to tell when the two differ (ShimLink.grown).
"""

from __future__ import annotations

import json
import os
import struct
import time
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    from dockpy.shim.protocol import LogConfig

    class LogWriter(Protocol):
        """Bytes of stream 1 or 2, in the order they came; `end` when a stream is over."""

        def append(self, stream: int, data: memoryview, now: int) -> None: ...
        def end(self, stream: int) -> None: ...
        def position(self) -> tuple[int, int]: ...
        def close(self) -> None: ...
        def state(self) -> tuple[object, ...]: ...
        def descriptors(self) -> tuple[int, ...]: ...

    class LogReader(Protocol):
        """Entries from where it stands to the present end; again later for what has come since."""

        def entries(self) -> Iterator[Entry]: ...
        def finish(self) -> Iterator[Entry]: ...
        def position(self) -> tuple[int, int]: ...
        def close(self) -> None: ...


RECORD = struct.Struct("<QIBBxxq")
STREAM_COLUMN = 12
TIME_COLUMN = 16
NO_NEWLINE = 1
BOTH = frozenset((1, 2))
# docker's copier: a line is cut here, and so is ours when it is told line by line.
LONGEST_LINE = 16384
FOREVER = (1 << 63) - 1


def rfc3339_nano(now: int, *, fixed: bool = False) -> str:
    """Go's RFC3339Nano in UTC, without trailing zeros; with them (`logs -t`) when `fixed`."""
    seconds, nanos = divmod(now, 1_000_000_000)
    head = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    if fixed:
        return f"{head}.{nanos:09d}Z"
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return f"{head}{fraction}Z"


def json_path(bundle: str, container_id: str) -> str:
    return f"{bundle}/{container_id}-json.log"


def open_writer(config: LogConfig, bundle: str, container_id: str) -> LogWriter | None:
    """The writer of a container's log; None for driver `none`."""
    if config.driver == "none":
        return None
    if config.driver == "json-file":
        path = json_path(bundle, container_id)
        return JsonFileWriter(path, config.max_size, config.max_file)
    return LocalWriter(config.folder, config.max_size, config.max_file)


def resume_writer(state: tuple[Any, ...] | None, fds: Sequence[int]) -> LogWriter | None:
    """A writer that another process has opened, by its `state()` and `descriptors()`."""
    if state is None:
        return None
    kind, where, max_size, max_file, first, second, third = state
    if kind == "json-file":
        return JsonFileWriter(where, max_size, max_file, (fds[0], first, second))
    return LocalWriter(where, max_size, max_file, (fds[0], fds[1], first, second, third))


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


# ------------------------------------------------------------------------------------- local


def serials(folder: str) -> list[int]:
    """The log files there are, oldest first."""
    found = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        stem, _, kind = name.partition(".")
        if kind == "index" and stem.isdigit():
            found.append(int(stem))
    return sorted(found)


class LocalWriter:
    def __init__(
        self,
        folder: str,
        max_size: int,
        max_file: int,
        opened: tuple[int, int, int, int, int] | None = None,
    ) -> None:
        self._folder = folder
        self._max_size = max_size or FOREVER
        self._max_file = max(max_file, 1)
        if opened is not None:
            self._data, self._index, self._serial, self._size, self._records = opened
            return
        os.makedirs(folder, 0o700, exist_ok=True)
        present = serials(folder)
        self._serial = present[-1] if present else 0
        self._open()
        self._recover()

    def state(self) -> tuple[object, ...]:
        """For resume_writer, in a process that has the descriptors."""
        limits = (self._folder, self._max_size, self._max_file)
        return ("local", *limits, self._serial, self._size, self._records)

    def descriptors(self) -> tuple[int, ...]:
        return self._data, self._index

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND | os.O_NOFOLLOW
        # Data first: a reader that finds an index may open the data.
        self._data = os.open(f"{self._folder}/{self._serial}.data", flags, 0o600)
        self._index = os.open(f"{self._folder}/{self._serial}.index", flags, 0o600)
        self._size = 0
        self._records = 0

    def _recover(self) -> None:
        """Cuts what a killed writer left half: bytes without a record, records without bytes."""
        length = os.fstat(self._data).st_size
        index = os.fstat(self._index).st_size
        records, torn = divmod(index, RECORD.size)
        end = 0
        while records:
            raw = os.pread(self._index, RECORD.size, (records - 1) * RECORD.size)
            offset, size, _, _, _ = RECORD.unpack(raw)
            if offset + size <= length:
                end = offset + size
                break
            records -= 1
            torn = 1
        if torn:
            os.ftruncate(self._index, records * RECORD.size)
        if end < length:
            os.ftruncate(self._data, end)
        self._size = end
        self._records = records

    def append(self, stream: int, data: memoryview, now: int) -> None:
        if self._size >= self._max_size:
            self._rotate()
        size = len(data)
        try:
            if os.write(self._data, data) != size:
                # A nearly full disk takes a part; the rest says why.
                os.ftruncate(self._data, self._size)
                _write_all(self._data, data)
            flags = 0 if data[size - 1] == 10 else NO_NEWLINE
            os.write(self._index, RECORD.pack(self._size, size, stream, flags, now))
        except OSError:
            # No room: as docker, the container goes on and its log has a hole, never half a record.
            os.ftruncate(self._data, self._size)
            os.ftruncate(self._index, self._records * RECORD.size)
            return
        self._size += size
        self._records += 1

    def _rotate(self) -> None:
        data, index, serial, state = self._data, self._index, self._serial, self._size
        records = self._records
        self._serial += 1
        try:
            self._open()
        except OSError:  # no room for a new file: go on in the old one
            self._data, self._index, self._serial = data, index, serial
            self._size, self._records = state, records
            return
        os.close(data)
        os.close(index)
        for old in serials(self._folder):
            if old <= self._serial - self._max_file:
                for kind in ("index", "data"):
                    try:
                        os.unlink(f"{self._folder}/{old}.{kind}")
                    except FileNotFoundError:
                        pass

    def end(self, stream: int) -> None:
        pass

    def position(self) -> tuple[int, int]:
        return self._serial, self._records

    def close(self) -> None:
        os.close(self._data)
        os.close(self._index)


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


# --------------------------------------------------------------------------------- json-file

# Bytes that stand for themselves in docker's encoder (DEL too); a newline is made last, see
# json_text.
_PLAIN = bytes(set(range(0x20, 0x80)) - set(b'"\\<>&')) + b"\n"
_ESCAPES = {
    **{bytes((value,)): b"\\u%04x" % value for value in (*range(0x20), *b"<>&")},
    b"\r": b"\\r",
    b'"': b'\\"',
    b"\\": b"\\\\",
}
_JSON_STREAMS = {1: b"stdout", 2: b"stderr"}
_JSON_HEAD = b'{"log":"'


def json_text(data: bytes, newline: bytes = b"\\n") -> bytes:
    """The inside of a JSON string as docker's jsonlog writes it: \\ufffd for each byte that is no
    UTF-8.
    """
    rest = data.translate(None, _PLAIN)
    if rest:
        special = set(rest)
        foreign = max(special) >= 0x80
        if foreign:
            try:
                data.decode()
            except UnicodeDecodeError:
                # 0xff is in no UTF-8: it marks what Go counts byte by byte.
                text = data.decode("utf-8", "surrogateescape")
                data = b"".join(
                    b"\xff" if "\udc80" <= char <= "\udcff" else char.encode() for char in text
                )
            data = data.replace(b"\xe2\x80\xa8", b"\xfe8").replace(b"\xe2\x80\xa9", b"\xfe9")
        # The backslash first: the others' escapes bring new ones.
        for value in sorted(special, key=lambda value: value != 0x5C):
            if value < 0x80:
                char = bytes((value,))
                data = data.replace(char, _ESCAPES[char])
        if foreign:
            data = data.replace(b"\xff", b"\\ufffd").replace(b"\xfe", b"\\u202")
    return data.replace(b"\n", newline)


def _short_lines(content: bytes, start: int) -> int:
    """Where the whole lines from `start` on end, before the first one that must be cut."""
    at = start
    while True:
        end = content.rfind(b"\n", at, at + LONGEST_LINE) + 1
        if not end:
            return at
        at = end


class JsonFileWriter:
    def __init__(
        self,
        path: str,
        max_size: int,
        max_file: int,
        opened: tuple[int, int, int] | None = None,
    ) -> None:
        self._path = path
        self._max_size = max_size or FOREVER
        self._max_file = max(max_file, 1)
        self._pending: dict[int, tuple[int, bytes]] = {}  # of each stream: time and unfinished line
        if opened is not None:
            self._fd, self._inode, self._size = opened
        else:
            self._open(0)

    def state(self) -> tuple[object, ...]:
        """For resume_writer, in a process that has the descriptor."""
        limits = (self._path, self._max_size, self._max_file)
        return ("json-file", *limits, self._inode, self._size, 0)

    def descriptors(self) -> tuple[int, ...]:
        return (self._fd,)

    def _open(self, more_flags: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags | more_flags, 0o640)
        status = os.fstat(self._fd)
        self._inode = status.st_ino
        self._size = status.st_size

    def append(self, stream: int, data: memoryview, now: int) -> None:
        when, rest = self._pending.pop(stream, (now, b""))
        content = b"".join((rest, data))
        records: list[bytes] = []
        start = 0
        while start < len(content):
            stop = _short_lines(content, start) if when == now else start
            if stop > start:  # many lines, one time: a newline becomes the border of two records
                close = b"\\n" + self._tail(stream, now)
                body = json_text(content[start : stop - 1], close + _JSON_HEAD)
                records += (_JSON_HEAD, body, close)
                start = stop
                continue
            stop = content.find(b"\n", start, start + LONGEST_LINE) + 1
            if stop:
                body = json_text(content[start:stop])
                records += (_JSON_HEAD, body, self._tail(stream, when))
                when = now
            else:
                stop = start + LONGEST_LINE
                if stop > len(content):
                    break
                # A piece of a long line; all pieces bear the time of the first.
                records += (_JSON_HEAD, json_text(content[start:stop]), self._tail(stream, when))
                if stop == len(content):
                    self._pending[stream] = (when, b"")
            start = stop
        if start < len(content):
            self._pending[stream] = (when, content[start:])
        self._write(b"".join(records))

    def end(self, stream: int) -> None:
        when, rest = self._pending.pop(stream, (0, b""))
        if rest:
            self._write(_JSON_HEAD + json_text(rest) + self._tail(stream, when))

    def _tail(self, stream: int, when: int) -> bytes:
        return b'","stream":"%b","time":"%b"}\n' % (
            _JSON_STREAMS[stream],
            rfc3339_nano(when).encode("ascii"),
        )

    def _write(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._size >= self._max_size:
                self._rotate()
            _write_all(self._fd, memoryview(data))
        except OSError:
            # No room: the container goes on, its log has a hole and never half a record.
            os.ftruncate(self._fd, self._size)
            return
        self._size += len(data)

    def _rotate(self) -> None:
        if self._max_file == 1:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        for number in range(self._max_file - 1, 0, -1):
            older = f"{self._path}.{number - 1}" if number > 1 else self._path
            try:
                os.rename(older, f"{self._path}.{number}")
            except FileNotFoundError:
                pass
        full = self._fd
        self._open(os.O_TRUNC)
        os.close(full)

    def position(self) -> tuple[int, int]:
        return self._inode, self._size

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
