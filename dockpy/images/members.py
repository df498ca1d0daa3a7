"""The members of an image archive by name, whatever their order: of a stream, or of a file that is read
where it lies.

Of a stream, large members go into the content store as they pass (hashed on the way, never in memory) and
small ones are kept. Of a file only the headers are read, and where each member is; its layers
then are read once, when they are unpacked.
"""

from __future__ import annotations

import abc
import os
import posixpath
from collections.abc import Callable, Iterator

from dockpy.errors import InvalidParameter
from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import Digest, digest, digest_of, hasher
from dockpy.storage import tar
from dockpy.storage.content import ContentStore
from dockpy.storage.snapshot import Read

_SMALL = 1 << 20
_SMALL_TOTAL = 32 << 20
_DOCUMENT = 8 << 20  # as the content store reads them
MAX_MEMBERS = 100_000
_DEPTH = 8  # links to links
_HEADERS = 1 << 14  # read at once where only headers are wanted


class Members(abc.ABC):
    def __init__(self, content: ContentStore) -> None:
        self.content = content
        self.arriving: dict[Digest, Callable[[], Read]] = {}  # layers to be read where they lie
        self._links: dict[str, tuple[str, bool]] = {}  # target, whether symbolic

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a regular member of this name."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """A document."""

    @abc.abstractmethod
    def blob(self, name: str, expected: Digest | None = None) -> tuple[Digest, int]:
        """The digest and size of a member, which is in the content store then."""

    @abc.abstractmethod
    def layer(self, name: str, expected: Digest | None = None) -> tuple[Digest, int]:
        """As `blob`, or it is `arriving` under the digest that it should have."""

    @abc.abstractmethod
    def head(self, name: str) -> bytes:
        """The first bytes of a member."""

    def locate(self, name: str) -> str:
        """The name of the regular member that `name` leads to."""
        name = plain_name(name)
        for _ in range(_DEPTH):
            if self.has(name):
                return name
            if name not in self._links:
                break
            link, symbolic = self._links[name]
            # A symbolic link is relative to its folder, a hard link to the archive's root.
            name = plain_name(posixpath.join(posixpath.dirname(name), link) if symbolic else link)
        raise InvalidParameter(f"invalid archive: {name} is missing")

    def described(self, wanted: Descriptor) -> bytes:
        """The document that a descriptor means, verified."""
        data = self.read(path_of(wanted.digest))
        state = hasher(wanted.digest)
        state.update(data)
        if digest_of(state) != wanted.digest or len(data) != wanted.size:
            raise InvalidParameter(f"invalid archive: {wanted.digest} has another content or size")
        return data

    def _walk(self, reader: tar.TarReader) -> Iterator[tuple[str, tar.Entry]]:
        """The regular members; the last of a name counts, as for tar."""
        count = 0
        while (entry := reader.next()) is not None:
            count += 1
            if count > MAX_MEMBERS:
                raise InvalidParameter(f"the archive has more than {MAX_MEMBERS} members")
            name = plain_name(os.fsdecode(entry.name))
            if entry.kind in (tar.SYMLINK, tar.HARDLINK):
                self._forget(name)
                self._links[name] = (os.fsdecode(entry.link), entry.kind == tar.SYMLINK)
            elif entry.kind == tar.REGULAR and entry.regions is None:
                self._forget(name)
                yield name, entry

    def _forget(self, name: str) -> None:
        self._links.pop(name, None)


class Received(Members):
    """Those of a stream that cannot be rewound."""

    def __init__(self, content: ContentStore, read: Read) -> None:
        super().__init__(content)
        self._small: dict[str, bytes] = {}
        self._blobs: dict[str, tuple[Digest, int]] = {}
        reader = tar.TarReader(read)
        room = _SMALL_TOTAL
        for name, entry in self._walk(reader):
            if entry.size <= min(_SMALL, room):
                room -= entry.size
                self._small[name] = b"".join(_pieces(reader))
            else:
                self._blobs[name] = self._put(name, entry.size, reader)
        # Whoever sends must not meet a closed pipe; and a gzip's check sum stands at the end.
        reader.drain()

    def _forget(self, name: str) -> None:
        super()._forget(name)
        self._small.pop(name, None)
        self._blobs.pop(name, None)

    def _put(self, name: str, size: int, reader: tar.TarReader) -> tuple[Digest, int]:
        expected = _digest_in(name)
        if expected is not None and self.content.has(expected):
            # Ours was verified when it came; theirs is passed over.
            return expected, self.content.size(expected)
        with self.content.writer() as writer:
            for piece in _pieces(reader):
                writer.write(piece)
            return writer.commit(expected, size)

    def has(self, name: str) -> bool:
        return name in self._small or name in self._blobs

    def read(self, name: str) -> bytes:
        name = self.locate(name)
        return self._small[name] if name in self._small else self.content.read(self._blobs[name][0])

    def blob(self, name: str, expected: Digest | None = None) -> tuple[Digest, int]:
        name = self.locate(name)
        if name in self._small:
            data = self._small[name]
            with self.content.writer() as writer:
                writer.write(data)
                self._blobs[name] = writer.commit(expected or _digest_in(name), len(data))
        return self._blobs[name]

    def layer(self, name: str, expected: Digest | None = None) -> tuple[Digest, int]:
        return self.blob(name, _digest_in(name))

    def head(self, name: str) -> bytes:
        name = self.locate(name)
        if name in self._small:
            return self._small[name][:8]
        fd = self.content.open(self._blobs[name][0])
        try:
            return os.read(fd, 8)
        finally:
            os.close(fd)


class Lying(Members):
    """Those of the regular file `fd`, from `start` on. `watch` is called between pieces, and may raise."""

    def __init__(
        self,
        content: ContentStore,
        fd: int,
        start: int = 0,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(content)
        self._fd = fd
        self._watch = watch
        self._places: dict[str, tuple[int, int]] = {}
        window = _Window(fd, start)
        reader = tar.TarReader(window.read, window.skip)
        for name, entry in self._walk(reader):
            self._places[name] = (window.position - reader.buffered, entry.size)

    def _forget(self, name: str) -> None:
        super()._forget(name)
        self._places.pop(name, None)

    def has(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str) -> bytes:
        name = self.locate(name)
        _, size = self._places[name]
        if size > _DOCUMENT:
            raise InvalidParameter(f"invalid archive: {name} is longer than {_DOCUMENT} bytes")
        read = self._reading(name)()
        return b"".join(iter(lambda: read(_SMALL), b""))

    def _reading(self, name: str) -> Callable[[], Read]:
        """What starts reading the member `name`."""
        offset, size = self._places[name]

        def start() -> Read:
            position, left = offset, size

            def read(most: int) -> bytes:
                nonlocal position, left
                if not left:
                    return b""
                self._watch()
                chunk = os.pread(self._fd, min(most, left), position)
                if not chunk:
                    raise tar.Truncated
                position += len(chunk)
                left -= len(chunk)
                return chunk

            return read

        return start

    def blob(self, name: str, expected: Digest | None = None) -> tuple[Digest, int]:
        name = self.locate(name)
        expected = expected or _digest_in(name)
        if expected is not None and self.content.has(expected):
            return expected, self.content.size(expected)
        read = self._reading(name)()
        with self.content.writer() as writer:
            while chunk := read(_SMALL):
                writer.write(chunk)
            return writer.commit(expected, self._places[name][1])

    def layer(self, name: str, expected: Digest | None = None) -> tuple[Digest, int]:
        name = self.locate(name)
        expected = _digest_in(name) or expected
        if expected is None:
            return self.blob(name)
        if self.content.has(expected):
            return expected, self.content.size(expected)
        self.arriving[expected] = self._reading(name)
        return expected, self._places[name][1]

    def head(self, name: str) -> bytes:
        return self._reading(self.locate(name))()(8)


class _Window:
    """Reads a file piece by piece, and can pass over what is not wanted."""

    def __init__(self, fd: int, position: int) -> None:
        self._fd = fd
        self._end = os.fstat(fd).st_size
        self.position = position

    def read(self, size: int) -> bytes:
        chunk = os.pread(self._fd, min(size, _HEADERS), self.position)
        self.position += len(chunk)
        return chunk

    def skip(self, size: int) -> None:
        self.position += size
        if self.position > self._end:
            raise tar.Truncated


def _pieces(reader: tar.TarReader) -> Iterator[memoryview]:
    """What is left of the present member's content."""
    while piece := reader.data():
        yield piece


def plain_name(name: str) -> str:
    """A member's name without `./` and `..`, which must not lead anywhere here: names are only
    keys.
    """
    return posixpath.normpath("/" + name).lstrip("/")


def path_of(blob: Digest) -> str:
    return f"blobs/{blob.replace(':', '/')}"


def _digest_in(name: str) -> Digest | None:
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return None
    try:
        return digest(f"{parts[1]}:{parts[2]}")
    except InvalidParameter:
        return None
