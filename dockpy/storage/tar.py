"""The tar format as values: headers, pax records, GNU long names and sparse maps, read from a stream; and written.

No file system here. Whatever the archive says is checked before it is believed: checksums, number ranges,
lengths of names and records, sparse maps. Names stay bytes as they came; making them safe is layer.py's.
Readings follow Go's archive/tar, as the images people have were checked by it: header-only kinds have
no data whatever their size says; a global pax header is ignored; two records of one key: the last wins.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping

from dockpy.errors import InvalidParameter
from dockpy.storage.pax import XATTR, Pax, decimal, read_pax

Read = Callable[[int], bytes]

BLOCK = 512
CHUNK = 1 << 18
MAX_SPECIAL = 1 << 20  # pax records, GNU long names: Go's bound
MAX_SPARSE = 1 << 16  # regions of one sparse file
MAX_SIZE = 1 << 43  # of one file: ext4's largest is 16 TiB; more is a forgery
MAX_MAJOR, MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1  # of the kernel's dev_t
MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "do not change" to chown(2)

REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)
_HEADER_ONLY = frozenset((HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
_FILES = frozenset((b"0", b"\0", b"7", b"S"))


class Entry:
    """One member. `regions` is None, or a sparse file's data as (offset, length); `size` is then its real size."""

    __slots__ = (
        "device",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime_ns",
        "name",
        "regions",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        name: bytes,
        kind: bytes,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: Mapping[bytes, bytes] | None = None,
        regions: list[tuple[int, int]] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime_ns = mtime_ns
        self.link = link
        self.device = device
        self.xattrs: Mapping[bytes, bytes] = xattrs or {}
        self.regions = regions


class Truncated(InvalidParameter):
    """The stream ended inside the archive."""

    def __init__(self) -> None:
        super().__init__("the archive ends too early (unexpected EOF)")


class TarReader:
    """Members of the tar stream behind `read`, one after the other, and the data of the present one.

    `skip(n)`, where the stream has such, passes over n bytes of it.
    """

    __slots__ = ("_buffer", "_data", "_pad", "_pos", "_read", "_seek")

    def __init__(self, read: Read, skip: Callable[[int], None] | None = None) -> None:
        self._read = read
        self._seek = skip
        self._buffer = b""
        self._pos = 0
        self._data = 0  # bytes of the present member that were not taken yet
        self._pad = 0

    def some(self, limit: int) -> memoryview:
        """The next bytes of the stream, at least one; Truncated at its end."""
        if self._pos >= len(self._buffer):
            self._buffer = self._read(CHUNK)
            self._pos = 0
            if not self._buffer:
                raise Truncated
        start = self._pos
        self._pos = min(start + limit, len(self._buffer))
        return memoryview(self._buffer)[start : self._pos]

    def _block(self) -> bytes:
        start = self._pos
        end = start + BLOCK
        if end <= len(self._buffer):
            self._pos = end
            return self._buffer[start:end]
        parts = self._buffer[start:]
        self._pos = len(self._buffer)
        while len(parts) < BLOCK:
            chunk = self._read(CHUNK)
            if not chunk:
                return parts
            self._buffer = parts + chunk
            self._pos = 0
            parts = self._buffer
        self._pos = BLOCK
        return parts[:BLOCK]

    @property
    def buffered(self) -> int:
        """Bytes that were read from the stream and not used yet."""
        return len(self._buffer) - self._pos

    def _skip(self, size: int) -> None:
        if self._seek is not None and size > self.buffered:
            self._seek(size - self.buffered)
            self._pos = len(self._buffer)
            return
        while size:
            size -= len(self.some(size))

    def data(self) -> memoryview:
        """The next piece of the present member's stored data; empty when all of it was taken."""
        if not self._data:
            return memoryview(b"")
        piece = self.some(self._data)
        self._data -= len(piece)
        return piece

    def some_data(self, limit: int) -> memoryview:
        """As `data`, at most `limit` bytes."""
        if not self._data:
            return memoryview(b"")
        piece = self.some(min(limit, self._data))
        self._data -= len(piece)
        return piece

    def write_regions(self, fd: int, entry: Entry) -> None:
        """The present member, which is sparse, into an empty file. Truncated: the archive ends within it."""
        os.ftruncate(fd, entry.size)
        for offset, length in entry.regions or ():
            position, end = offset, offset + length
            while position < end:
                piece = self.some_data(end - position)
                if not piece:
                    raise Truncated
                while piece:
                    written = os.pwrite(fd, piece, position)
                    position += written
                    piece = piece[written:]

    def _special(self, size: int) -> bytes:
        if size > MAX_SPECIAL:
            raise InvalidParameter(f"the archive has an extended header of {size} bytes")
        parts = []
        left = size
        while left:
            parts.append(bytes(self.some(left)))
            left -= len(parts[-1])
        self._skip(-size % BLOCK)
        return b"".join(parts)

    def next(self) -> Entry | None:
        """The next member; None at the archive's end."""
        skip = self._data + self._pad
        if skip:
            if skip <= len(self._buffer) - self._pos:
                self._pos += skip
            else:
                self._skip(skip)
            self._data = self._pad = 0
        name: bytes | None = None
        link: bytes | None = None
        pax: Pax | None = None
        while True:
            header = self._block()
            if len(header) < BLOCK:
                if header:
                    raise Truncated
                if name is not None or link is not None or pax is not None:
                    raise Truncated
                return None
            if not header[0] and not header.strip(b"\0"):
                return None
            _check(header)
            kind = header[156:157]
            if kind in b"LKxgX":
                data = self._special(_size(header))
                if kind == b"L":
                    name = data.split(b"\0", 1)[0]
                elif kind == b"K":
                    link = data.split(b"\0", 1)[0]
                elif kind in b"xX":
                    pax = read_pax(data)
                continue
            return self._member(header, kind, name, link, pax)

    def drain(self) -> None:
        """Reads what follows the end of the archive: it belongs to the digest of the stream."""
        while self._read(CHUNK):
            pass
        self._buffer = b""
        self._pos = 0

    def _member(
        self,
        header: bytes,
        kind: bytes,
        name: bytes | None,
        link: bytes | None,
        pax: Pax | None,
    ) -> Entry:
        if name is None:
            name = _text(header[:100])
            if header[345] and header[257:265] == b"ustar\x0000":
                name = _text(header[345:500]) + b"/" + name
        if link is None:
            link = _text(header[157:257])
        entry = Entry(
            name,
            kind,
            number(header[100:108], "mode") & 0o7777,
            number(header[108:116], "uid"),
            number(header[116:124], "gid"),
            _size(header) if kind not in _HEADER_ONLY else 0,
            number(header[136:148], "mtime") * 1_000_000_000,
            link,
        )
        if kind in b"34":
            entry.device = (
                number(header[329:337], "device number"),
                number(header[337:345], "device number"),
            )
            if not (0 <= entry.device[0] <= MAX_MAJOR and 0 <= entry.device[1] <= MAX_MINOR):
                raise InvalidParameter(
                    f"{shown(name)}: the device number {entry.device[0]}:{entry.device[1]} "
                    "is out of range"
                )
        stored = entry.size
        if pax is not None:
            if pax.size is not None and kind not in _HEADER_ONLY:
                entry.size = stored = pax.size
            pax.apply(entry)
        if kind in _FILES:
            entry.kind = REGULAR
            if kind != b"S" and entry.name.endswith(b"/"):
                # Before POSIX, a directory was a file whose name ends in a slash.
                entry.kind = DIRECTORY
        self._data, self._pad = stored, -stored % BLOCK
        if kind == b"S":
            self._old_sparse(header, entry)
        elif pax is not None and pax.sparse:
            self._pax_sparse(pax, entry)
        if not 0 <= entry.uid <= MAX_ID or not 0 <= entry.gid <= MAX_ID:
            raise InvalidParameter(
                f"{shown(entry.name)}: the owner {entry.uid}:{entry.gid} is out of range"
            )
        if entry.size > MAX_SIZE:
            raise InvalidParameter(
                f"{shown(entry.name)}: a file of {entry.size} bytes is out of range"
            )
        return entry

    def _old_sparse(self, header: bytes, entry: Entry) -> None:
        """GNU's type S: regions in the header, more in blocks that follow it."""
        regions: list[tuple[int, int]] = []
        block, count, at, more = header, 4, 386, header[482]
        while True:
            for index in range(count):
                field = block[at + 24 * index : at + 24 * index + 24]
                if not field[0] and not field[12]:
                    break
                regions.append((number(field[:12], "sparse map"), number(field[12:], "sparse map")))
            if not more:
                break
            if len(regions) > MAX_SPARSE:
                raise InvalidParameter(f"{shown(entry.name)}: the sparse map is too long")
            block, count, at = self._block(), 21, 0
            if len(block) < BLOCK:
                raise Truncated
            more = block[504]
        entry.size = number(header[483:495], "sparse size")
        self._check_sparse(entry, regions)

    def _pax_sparse(self, pax: Pax, entry: Entry) -> None:
        if pax.sparse_name is not None:
            entry.name = pax.sparse_name
        if pax.sparse_size is None:
            raise InvalidParameter(f"{shown(entry.name)}: the sparse file has no size")
        entry.size = pax.sparse_size
        numbers = pax.sparse_map
        if pax.sparse_major:
            numbers = self._sparse_map_in_data(entry)
        if len(numbers) % 2:
            raise InvalidParameter(f"{shown(entry.name)}: the sparse map is damaged")
        self._check_sparse(entry, list(zip(numbers[::2], numbers[1::2])))

    def _sparse_map_in_data(self, entry: Entry) -> list[int]:
        """pax format 1.0: decimal lines before the data, padded to a block: the count, then the numbers."""
        lines: list[bytes] = []
        rest = b""
        wanted = 1
        while len(lines) < wanted:
            if self._data < BLOCK:
                raise InvalidParameter(f"{shown(entry.name)}: the sparse map is damaged")
            block = self._block()
            if len(block) < BLOCK:
                raise Truncated
            self._data -= BLOCK
            parts = (rest + block).split(b"\n")
            rest = parts.pop()
            lines += parts
            if lines:
                wanted = 1 + 2 * decimal(lines[0], "sparse map")
            if wanted > 2 * MAX_SPARSE or len(rest) > BLOCK:
                raise InvalidParameter(f"{shown(entry.name)}: the sparse map is too long")
        return [decimal(line, "sparse map") for line in lines[1:wanted]]

    def _check_sparse(self, entry: Entry, regions: list[tuple[int, int]]) -> None:
        end = total = 0
        for offset, length in regions:
            if offset < end or length < 0 or offset + length > entry.size:
                raise InvalidParameter(f"{shown(entry.name)}: the sparse map is damaged")
            end = offset + length
            total += length
        if total != self._data:
            raise InvalidParameter(f"{shown(entry.name)}: the sparse map does not fit its data")
        entry.regions = regions


def number(field: bytes, what: str) -> int:
    """A header's number: octal text, or base 256 when the first bit is set (0xff: negative)."""
    text = field.rstrip(b"\0 ")
    if not text.isdigit():  # int() would also take "0o7", "1_0" and "+7"
        if field[0] & 0x80:
            return _base256(field, what)
        text = field.strip(b" \0").split(b"\0", 1)[0].strip(b" ")
        if not text:
            return 0
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            pass  # an 8 or a 9: told below
    raise InvalidParameter(f"the archive has a damaged {what}: {text!r:.40}")


def _base256(field: bytes, what: str) -> int:
    if field[0] & 0x40:
        value = int.from_bytes(field, "big", signed=True)
    else:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidParameter(f"the archive has a {what} out of range")
    return value


def _size(header: bytes) -> int:
    size = number(header[124:136], "size")
    if not 0 <= size <= MAX_SIZE:
        raise InvalidParameter(f"the archive has a member of {size} bytes")
    return size


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def shown(name: bytes) -> str:
    return ascii(name[:200].decode("utf-8", "backslashreplace"))[1:-1]


def _check(header: bytes) -> None:
    """The header's checksum: the sum of its bytes, the checksum's own eight counted as spaces."""
    try:
        stored = number(header[148:156], "checksum")
    except InvalidParameter:
        raise InvalidParameter("this is not a tar archive (or a damaged one)") from None
    # The low half of Adler-32 is 1 + the sum of the bytes modulo 65521: forty times faster than sum().
    total = (zlib.adler32(header) & 0xFFFF) - 1
    if (total - sum(header[148:156]) + 256 - stored) % 65521:
        signed = sum(byte - 256 if byte > 127 else byte for byte in header)
        signed -= sum(byte - 256 if byte > 127 else byte for byte in header[148:156])
        if signed + 256 != stored:  # some old writers summed signed bytes
            raise InvalidParameter("this is not a tar archive (or a damaged one)")


# Writing


def header_of(entry: Entry) -> bytes:
    """Header blocks of `entry`, pax records first where the plain one cannot hold it."""
    records: list[tuple[bytes, bytes]] = []
    name, link = entry.name, entry.link
    if len(name) > 100 or _odd(name):
        records.append((b"path", name))
    if len(link) > 100 or _odd(link):
        records.append((b"linkpath", link))
    for key, value, digits in (
        (b"uid", entry.uid, 7),
        (b"gid", entry.gid, 7),
        (b"size", entry.size, 11),
    ):
        if value >= 8**digits:
            records.append((key, b"%d" % value))
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    if not 0 <= seconds < 8**11 or fraction:
        records.append((b"mtime", _decimal_time(entry.mtime_ns)))
    records += [(XATTR + key, value) for key, value in sorted(entry.xattrs.items())]
    block = _plain(entry, name, link, entry.kind, entry.size, seconds)
    if not records:
        return block
    body = b"".join(_record(key, value) for key, value in records)
    head = Entry(b"PaxHeaders.0/" + name[-80:].lstrip(b"/"), b"x", 0o644)
    return (
        _plain(head, head.name, b"", b"x", len(body), 0) + body + bytes(-len(body) % BLOCK) + block
    )


def _odd(name: bytes) -> bool:
    return not name.isascii()


def _decimal_time(value: int) -> bytes:
    sign = b"-" if value < 0 else b""
    seconds, fraction = divmod(abs(value), 1_000_000_000)
    text = sign + b"%d" % seconds
    return text + (b".%09d" % fraction).rstrip(b"0") if fraction else text


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return b"%d" % length + body


def _octal(value: int, width: int) -> bytes:
    # What does not fit stands in a pax record; the field then holds zero.
    return b"%0*o\0" % (width - 1, value if 0 <= value < 8 ** (width - 1) else 0)


def _plain(entry: Entry, name: bytes, link: bytes, kind: bytes, size: int, seconds: int) -> bytes:
    head = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(entry.mode, 8),
            _octal(entry.uid, 8),
            _octal(entry.gid, 8),
            _octal(size, 12),
            _octal(seconds, 12),
            b"        ",
            kind,
            link[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(entry.device[0], 8),
            _octal(entry.device[1], 8),
            bytes(167),
        )
    )
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]
