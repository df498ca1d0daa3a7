"""The writers of container logs, `local` and `json-file`; shim.log has the formats and the readers."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from dockpy.linux.pipes import SPLICE_F_NONBLOCK, splice
from dockpy.shim.recycled import recycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from dockpy.shim.protocol import LogConfig

    class LogWriter(Protocol):
        """Bytes of stream 1 or 2, in the order they came; `end` when a stream is over.

        splices: `splice` may be called now, for up to `size` bytes of a pipe, how many it returns;
        OSError where nothing could be moved: they are in the pipe still.
        """

        @property
        def splices(self) -> bool: ...
        def splice(self, stream: int, pipe: int, size: int, now: int) -> int: ...
        def append(self, stream: int, data: memoryview, now: int) -> None: ...
        def end(self, stream: int) -> None: ...
        def position(self) -> tuple[int, int]: ...
        def close(self) -> None: ...
        def state(self) -> tuple[object, ...]: ...
        def descriptors(self) -> tuple[int, ...]: ...


RECORD = struct.Struct("<QIBBxxq")
NO_NEWLINE = 1
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
        return JsonFileWriter(path, config.max_size, config.max_file, config.extra)
    return LocalWriter(config.folder, config.max_size, config.max_file)


def resume_writer(state: tuple[Any, ...] | None, fds: Sequence[int]) -> LogWriter | None:
    """A writer that another process has opened, by its `state()` and `descriptors()`."""
    if state is None:
        return None
    kind, where, max_size, max_file, first, second, third = state
    if kind == "json-file":
        return JsonFileWriter(where, max_size, max_file, third, (fds[0], first, second))
    return LocalWriter(where, max_size, max_file, (fds[0], fds[1], first, second, third))


def _missing(size: int, number: int) -> bytes:
    """The line that stands where a log has a hole."""
    return f"dockpy: {size} bytes of output are missing here: {os.strerror(number)}\n".encode()


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
        self._lost = self._why = 0  # bytes that could not be written, and the last errno of that
        self._can_splice = True
        if opened is not None:
            self._data, self._index, self._serial, self._size, self._records = opened
            self._length = os.fstat(self._data).st_size
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

    def _open(self, data: int = -1) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # Data first: a reader that finds an index may open the data.
        if data < 0:
            data = os.open(f"{self._folder}/{self._serial}.data", flags, 0o600)
        try:
            index = f"{self._folder}/{self._serial}.index"
            self._index = os.open(index, flags | os.O_APPEND, 0o600)
        except OSError:
            os.close(data)
            raise
        self._data = data
        self._length = os.fstat(data).st_size  # of the file: a recycled one is full of older bytes
        self._size = 0  # what of it is ours
        self._records = 0

    def _recover(self) -> None:
        """Cuts what a killed writer left half: bytes without a record, records without bytes."""
        length = self._length
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
        self._size = self._length = end
        self._records = records

    def append(self, stream: int, data: memoryview, now: int) -> None:
        if self._size >= self._max_size:
            self._rotate()
        if self._lost and self._put(2, memoryview(_missing(self._lost, self._why)), now):
            self._lost = 0
        if self._lost or not self._put(stream, data, now):
            self._lost += len(data)

    def _put(self, stream: int, data: memoryview, now: int) -> bool:
        """Whether there was room: else, as docker's, the container goes on and its log has a hole,
        never half a record.
        """
        try:
            self._look()
            size = len(data)
            taken = os.pwrite(self._data, data, self._size)
            while taken < size:  # a nearly full disk takes a part; the rest says why
                taken += os.pwrite(self._data, data[taken:], self._size + taken)
            self._note(stream, size, data[size - 1], now)
        except OSError as error:
            self._cut(error)
            return False
        return True

    @property
    def splices(self) -> bool:
        return self._can_splice and not self._lost

    def splice(self, stream: int, pipe: int, size: int, now: int) -> int:
        if self._size >= self._max_size:
            self._rotate()
        self._look()
        try:
            moved = splice(pipe, self._data, size, SPLICE_F_NONBLOCK, self._size)
        except OSError as error:
            self._can_splice = error.errno != errno.EINVAL  # a file system may not know of it
            raise
        if moved:
            try:
                last = os.pread(self._data, 1, self._size + moved - 1)
                self._note(stream, moved, last[0], now)
            except OSError as error:
                self._cut(error)
                self._lost += moved
        return moved

    def _look(self) -> None:
        """Somebody may have emptied the file: then so is its index."""
        if os.lseek(self._data, 0, os.SEEK_END) < self._length:
            os.ftruncate(self._data, 0)
            os.ftruncate(self._index, 0)
            self._size = self._length = self._records = 0

    def _note(self, stream: int, size: int, last: int, now: int) -> None:
        flags = 0 if last == 10 else NO_NEWLINE
        os.write(self._index, RECORD.pack(self._size, size, stream, flags, now))
        self._size += size
        if self._size > self._length:
            self._length = self._size
        self._records += 1

    def _cut(self, error: OSError) -> None:
        self._why = error.errno or 0
        self._length = self._size
        os.ftruncate(self._data, self._size)
        os.ftruncate(self._index, self._records * RECORD.size)

    def _trim(self) -> None:
        """Frees what a recycled file had of older bytes."""
        if self._length > self._size:
            self._length = self._size
            os.ftruncate(self._data, self._size)

    def _rotate(self) -> None:
        self._trim()
        data, index, serial, state = self._data, self._index, self._serial, self._size
        records = self._records
        self._serial += 1
        try:
            self._open(self._recycled())
        except OSError:  # no room for a new file: go on in the old one
            self._data, self._index, self._serial = data, index, serial
            self._size, self._records = state, records
            self._length = state
            return
        os.close(data)
        os.close(index)
        for old in serials(self._folder):
            if old <= self._serial - self._max_file:
                for kind in ("index", "data", "data.gz"):
                    try:
                        os.unlink(f"{self._folder}/{old}.{kind}")
                    except FileNotFoundError:
                        pass

    def _recycled(self) -> int:
        if self._max_file < 2:  # the oldest would be the one that is being left
            return -1
        oldest = f"{self._folder}/{self._serial - self._max_file}"
        newest = f"{self._folder}/{self._serial}.data"
        return recycle(f"{oldest}.data", f"{oldest}.index", newest)

    def end(self, stream: int) -> None:
        self._trim()

    def position(self) -> tuple[int, int]:
        return self._serial, self._records

    def close(self) -> None:
        self._trim()
        os.close(self._data)
        os.close(self._index)


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
    splices = False

    def __init__(
        self,
        path: str,
        max_size: int,
        max_file: int,
        extra: str = "",
        opened: tuple[int, int, int] | None = None,
    ) -> None:
        self._path = path
        self._extra = extra
        self._attrs = f',"attrs":{extra}'.encode() if extra else b""
        self._lost = self._why = 0
        self._max_size = max_size or FOREVER
        self._max_file = max(max_file, 1)
        self._pending: dict[int, tuple[int, bytes]] = {}  # of each stream: time and unfinished line
        if opened is not None:
            self._fd, self._inode, self._size = opened
        else:
            self._open(path, 0)

    def state(self) -> tuple[object, ...]:
        """For resume_writer, in a process that has the descriptor."""
        limits = (self._path, self._max_size, self._max_file)
        return ("json-file", *limits, self._inode, self._size, self._extra)

    def descriptors(self) -> tuple[int, ...]:
        return (self._fd,)

    def _open(self, path: str, more_flags: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND | os.O_NOFOLLOW
        self._fd = os.open(path, flags | more_flags, 0o640)
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

    def splice(self, stream: int, pipe: int, size: int, now: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def end(self, stream: int) -> None:
        when, rest = self._pending.pop(stream, (0, b""))
        if rest:
            self._write(_JSON_HEAD + json_text(rest) + self._tail(stream, when))

    def _tail(self, stream: int, when: int) -> bytes:
        return b'","stream":"%b"%b,"time":"%b"}\n' % (
            _JSON_STREAMS[stream],
            self._attrs,
            rfc3339_nano(when).encode("ascii"),
        )

    def _write(self, data: bytes) -> None:
        """Records, to be cut between two of them only; as docker, a file ends with the first record
        that fills it.
        """
        if self._lost and data:
            note = json_text(_missing(self._lost, self._why))
            if self._put(_JSON_HEAD + note + self._tail(2, time.time_ns())):
                self._lost = 0
        while data:
            if self._size >= self._max_size:
                self._rotate()
            room = self._max_size - self._size
            end = data.find(b"\n", max(room - 1, 0)) + 1 if room < len(data) else len(data)
            if self._lost or not self._put(data[:end]):
                self._lost += end
            data = data[end:]

    def _put(self, data: bytes) -> bool:
        """Whether there was room; else nothing of it is in the file."""
        try:
            _write_all(self._fd, memoryview(data))
        except OSError as error:
            self._why = error.errno or 0
            os.ftruncate(self._fd, self._size)
            return False
        self._size = os.lseek(self._fd, 0, os.SEEK_CUR)  # somebody may have emptied it
        return True

    def _rotate(self) -> None:
        folder = os.open(self._path.rpartition("/")[0], os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Who compresses an old file holds this while it puts it in the other's place.
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            full = self._fd
            self._open(f"{self._path}.new", os.O_TRUNC)
            self._shift()
            os.close(full)
        except OSError:
            pass  # no room, or not now: this file grows by a record more
        finally:
            os.close(folder)

    def _shift(self) -> None:
        # With one file only, whoever reads the full one has it still, until it is closed.
        for number in range(self._max_file - 1, 0, -1):
            for suffix in ("", ".gz"):
                older = f"{self._path}.{number - 1}{suffix}" if number > 1 else self._path + suffix
                newer = f"{self._path}.{number}{suffix}"
                try:
                    os.rename(older, newer)
                except FileNotFoundError:
                    if number == self._max_file - 1:
                        try:
                            os.unlink(newer)
                        except FileNotFoundError:
                            pass
        os.rename(f"{self._path}.new", self._path)

    def position(self) -> tuple[int, int]:
        return self._inode, self._size

    def close(self) -> None:
        os.close(self._fd)
