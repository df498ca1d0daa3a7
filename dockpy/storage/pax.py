"""pax records: what an extended header says of the next member, and the numbers in it (POSIX, and GNU's for holes)."""

from __future__ import annotations

from dockpy.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.storage.tar import Entry

XATTR = b"SCHILY.xattr."


class Pax:
    """The records of one extended header that mean something to us."""

    __slots__ = (
        "gid",
        "link",
        "mtime_ns",
        "name",
        "size",
        "sparse",
        "sparse_major",
        "sparse_map",
        "sparse_name",
        "sparse_size",
        "uid",
        "xattrs",
    )

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.size: int | None = None
        self.uid: int | None = None
        self.gid: int | None = None
        self.mtime_ns: int | None = None
        self.xattrs: dict[bytes, bytes] = {}
        self.sparse = False
        self.sparse_major = 0
        self.sparse_name: bytes | None = None
        self.sparse_size: int | None = None
        self.sparse_map: list[int] = []

    def set(self, key: bytes, value: bytes) -> None:
        if key == b"path":
            self.name = value or None
        elif key == b"linkpath":
            self.link = value or None
        elif key == b"size":
            self.size = decimal(value, "size") if value else None
        elif key == b"uid":
            self.uid = decimal(value, "uid") if value else None
        elif key == b"gid":
            self.gid = decimal(value, "gid") if value else None
        elif key == b"mtime":
            self.mtime_ns = nanoseconds(value) if value else None
        elif key.startswith(XATTR):
            self.xattrs[key[len(XATTR) :]] = value
        elif key.startswith(b"GNU.sparse."):
            self._set_sparse(key[11:], value)

    def _set_sparse(self, key: bytes, value: bytes) -> None:
        self.sparse = True
        if key == b"major":
            self.sparse_major = decimal(value, "sparse format")
            if self.sparse_major > 1:
                raise InvalidParameter("the archive uses an unknown sparse format")
        elif key == b"name":
            self.sparse_name = value
        elif key in (b"size", b"realsize"):
            self.sparse_size = decimal(value, "sparse size")
        elif key == b"map":
            self.sparse_map = [decimal(part, "sparse map") for part in value.split(b",") if value]
        elif key in (b"offset", b"numbytes"):
            # Format 0.0 repeats the two keys, in order; a misordered pair fails as a damaged map.
            self.sparse_map.append(decimal(value, "sparse map"))

    def apply(self, entry: Entry) -> None:
        if self.name is not None:
            entry.name = self.name
        if self.link is not None:
            entry.link = self.link
        if self.uid is not None:
            entry.uid = self.uid
        if self.gid is not None:
            entry.gid = self.gid
        if self.mtime_ns is not None:
            entry.mtime_ns = self.mtime_ns
        if self.xattrs:
            entry.xattrs = self.xattrs


def read_pax(data: bytes) -> Pax:
    """Records `LENGTH KEY=VALUE\\n`, where LENGTH counts the whole record."""
    pax = Pax()
    position, end = 0, len(data)
    while position < end:
        space = data.find(b" ", position, position + 8)
        length = decimal(data[position:space], "pax record") if space > 0 else 0
        stop = position + length
        # At least "5 a=\n" after the length itself, and no further than the header goes.
        if space < 0 or stop > end or stop - space < 3 or data[stop - 1] != 0x0A:
            raise InvalidParameter("the archive has a damaged pax header")
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise InvalidParameter("the archive has a damaged pax header")
        if b"\0" in value and not key.startswith(XATTR):
            raise InvalidParameter("the archive has a pax header with a NUL in a name")
        pax.set(key, value)
        position = stop
    return pax


def decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidParameter(f"the archive has a damaged {what}: {text!r:.40}")
    return int(text)


def nanoseconds(text: bytes) -> int:
    """`[-]SECONDS[.FRACTION]`, to the nanosecond."""
    negative = text.startswith(b"-")
    seconds, _, fraction = text[negative:].partition(b".")
    value = decimal(seconds, "time") * 1_000_000_000
    if fraction:
        if not fraction.isdigit():
            raise InvalidParameter(f"the archive has a damaged time: {text!r:.40}")
        value += int(fraction[:9].ljust(9, b"0"))
    return -value if negative else value
