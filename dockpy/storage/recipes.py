"""How a layer's archive is made again from its tree, to the last bit: all of it but the files' data, which the tree has.

    recipes/<algorithm>-<hex of the diff id>   gzip of: R <length> <bytes>   as they stand in the archive
                                                        F <length> <path>    so many bytes of that file of the tree

What tar-split does for docker. A recipe is kept only after the archive was compared with the tree, byte by
byte, and what it makes is held against the diff id each time: a tree that has changed gives an error, never
another archive. Other layouts' recipes (`lent`) are read where there is none here.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from dockpy import files
from dockpy.errors import InvalidParameter, NotFound
from dockpy.linux import beneath
from dockpy.oci.digest import DiffID, algorithm_of, digest_of, hasher, hex_of
from dockpy.oci.digest import diff_id as diff_id_of
from dockpy.storage import tar
from dockpy.storage.compression import CHUNK, Chunks, decompressed
from dockpy.storage.content import ContentStore
from dockpy.storage.pack import Gathered
from dockpy.storage.snapshot import Read
from dockpy.storage.tar import TarReader, shown
from dockpy.storage.twin import data_of
from dockpy.storage.untrusted import safe_path
from dockpy.storage.view import Tree

INLINED = 4 << 20  # bytes of data in a recipe: of more than that the tree is no good copy
_BYTES, _FILE = b"R", b"F"
_FILES = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Recipes:
    def __init__(self, content: ContentStore) -> None:
        self._own = f"{content.root}/recipes"
        self._lent = tuple(f"{root}/recipes" for root in content.lent)

    def _found(self, diff_id: DiffID) -> str:
        """Where the recipe can be read."""
        places = (_path(folder, diff_id) for folder in (self._own, *self._lent))
        return next(filter(os.path.exists, places), _path(self._own, diff_id))

    def has(self, diff_id: DiffID) -> bool:
        return os.path.exists(self._found(diff_id))

    def has_own(self, diff_id: DiffID) -> bool:
        """As `has`, and no other store can take it away."""
        return os.path.exists(_path(self._own, diff_id))

    def diff_ids(self) -> Iterator[DiffID]:
        """Those that are kept here."""
        for name in os.listdir(self._own) if os.path.isdir(self._own) else ():
            try:
                yield diff_id_of(name.replace("-", ":", 1))
            except InvalidParameter:
                continue  # half written, or somebody else's file

    def size(self) -> int:
        """Bytes of all that are kept here."""
        total = 0
        for one in tuple(self.diff_ids()):
            with suppress(FileNotFoundError):
                total += os.stat(_path(self._own, one)).st_size
        return total

    def remove(self, diff_id: DiffID) -> None:
        files.unlink_if_exists(_path(self._own, diff_id))

    def partial_files(self) -> Iterator[str]:
        if os.path.isdir(self._own):
            yield from files.partial_files(self._own)

    # Writing

    def write(self, diff_id: DiffID, read: Read, tree: str) -> bool:
        """Keeps how the archive behind `read` (plain) comes from `tree`; nothing, where the tree has too little of it.

        InvalidParameter when the archive is another one than `diff_id` says.
        """
        os.makedirs(self._own, 0o700, exist_ok=True)
        path = _path(self._own, diff_id)
        temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            tape = _Tape(read, diff_id)
            root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                enough = _Writer(fd, root).write(tape)
            finally:
                os.close(root)
            if enough:
                if DiffID(digest_of(tape.hash)) != diff_id:
                    raise InvalidParameter(f"its archive has the diff id {digest_of(tape.hash)}")
                os.fdatasync(fd)
                os.rename(temporary, path)
                files.sync_folder(self._own)
            return enough
        finally:
            os.close(fd)
            files.unlink_if_exists(temporary)

    # Reading

    def open(self, diff_id: DiffID, tree: Tree) -> Read:
        """Reads the plain archive; behind its last byte InvalidParameter when it was not that of `diff_id`."""
        return Chunks(self._made(diff_id, tree)).read

    def _made(self, diff_id: DiffID, tree: Tree) -> Iterator[bytes]:
        state = hasher(diff_id)
        for chunk in self._pieces(diff_id, tree):
            state.update(chunk)
            yield chunk
        if DiffID(digest_of(state)) != diff_id:
            raise InvalidParameter(
                f"layer {diff_id} cannot be made again from its files, which have changed: pull the image again"
            )

    def _pieces(self, diff_id: DiffID, tree: Tree) -> Iterator[bytes]:
        try:
            fd = os.open(self._found(diff_id), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"how layer {diff_id} is made again is not known here") from None
        root = -1
        waiting: list[bytes] = []  # most pieces are headers and little files
        have = 0
        try:
            root = os.open(tree.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for piece in _pieces(decompressed(lambda size: os.read(fd, size)), root, tree.data):
                waiting.append(piece)
                have += len(piece)
                if have >= CHUNK:
                    yield b"".join(waiting)
                    waiting, have = [], 0
            if waiting:
                yield b"".join(waiting)
        finally:
            os.close(fd)
            if root >= 0:
                os.close(root)


class _Tape:
    """What the tar reader has read of a stream, until it is taken."""

    def __init__(self, read: Read, diff_id: DiffID) -> None:
        self._read = read
        self._chunks: deque[memoryview] = deque()
        self.have = 0
        self.hash = hasher(diff_id)

    def read(self, size: int) -> bytes:
        chunk = self._read(size)
        if chunk:
            self.hash.update(chunk)
            self._chunks.append(memoryview(chunk))
            self.have += len(chunk)
        return chunk

    def take(self, size: int) -> bytes:
        self.have -= size
        parts = []
        while size:
            first = self._chunks.popleft()
            if len(first) > size:
                self._chunks.appendleft(first[size:])
                first = first[:size]
            size -= len(first)
            parts.append(first)
        return b"".join(parts)


class _Writer:
    def __init__(self, fd: int, root: int) -> None:
        self._fd = fd
        self._root = root
        self._squeeze = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._raw = Gathered(self._bytes, CHUNK)
        self._inlined = 0

    def write(self, tape: _Tape) -> bool:
        reader = TarReader(tape.read)
        while (entry := reader.next()) is not None:
            self._raw.write(tape.take(tape.have - reader.buffered))
            plain = entry.kind == tar.REGULAR and entry.regions is None
            self._data(reader, tape, safe_path(entry.name) if plain and entry.size else b"")
            if self._inlined > INLINED:
                return False
        self._inline(tape.take(tape.have))
        while tape.read(CHUNK):  # what follows the archive's end belongs to it, too
            self._inline(tape.take(tape.have))
            if self._inlined > INLINED:
                return False
        self._end()
        return True

    def _data(self, reader: TarReader, tape: _Tape, path: bytes) -> None:
        """As much of a member's data as the file `path` begins with comes from there."""
        fd = _open(self._root, path) if path else -1
        same = 0
        try:
            while size := len(reader.data()):
                data = tape.take(size)
                if fd >= 0 and os.pread(fd, size, same) == data:
                    same += size
                    continue
                if fd >= 0:
                    os.close(fd)
                    fd = -1
                    self._file(path, same)
                self._inline(data)
                if self._inlined > INLINED:
                    return
        finally:
            if fd >= 0:
                os.close(fd)
                self._file(path, same)

    def _inline(self, data: bytes) -> None:
        if data.strip(b"\0"):  # of zeros nothing is left
            self._inlined += len(data)
        self._raw.write(data)

    def _bytes(self, data: bytes) -> None:
        if data:
            self._put(self._squeeze.compress(_BYTES + len(data).to_bytes(8, "big") + data))

    def _file(self, path: bytes, size: int) -> None:
        if size:
            self._raw.flush()
            head = _FILE + size.to_bytes(8, "big") + len(path).to_bytes(2, "big")
            self._put(self._squeeze.compress(head + path))

    def _end(self) -> None:
        self._raw.flush()
        self._put(self._squeeze.flush())

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


def _path(folder: str, diff_id: DiffID) -> str:
    return f"{folder}/{algorithm_of(diff_id)}-{hex_of(diff_id)}"


def _pieces(read: Read, root: int, lent: str) -> Iterator[bytes]:
    while kind := read(1):
        left = int.from_bytes(_exactly(read, 8), "big")
        if kind == _BYTES:
            while left:
                yield (piece := _some(read, min(left, CHUNK)))
                left -= len(piece)
        elif kind == _FILE:
            path = _exactly(read, int.from_bytes(_exactly(read, 2), "big"))
            yield from _of_file(root, path, left, lent)
        else:
            raise InvalidParameter("the layer's recipe is damaged")


def _of_file(root: int, path: bytes, size: int, lent: str) -> Iterator[bytes]:
    fd = _open(root, path)
    if fd < 0:
        raise InvalidParameter(f"the layer's tree lacks {shown(path)}: pull the image again")
    try:
        if lent and (source := data_of(fd, lent)) != fd:
            os.close(fd)
            fd = source
        while size:
            data = os.read(fd, min(size, CHUNK))
            if not data:
                raise InvalidParameter(
                    f"{shown(path)} in the layer's tree is too short: pull the image again"
                )
            size -= len(data)
            yield data
    finally:
        os.close(fd)


def _some(read: Read, size: int) -> bytes:
    data = read(size)
    if not data:
        raise InvalidParameter("the layer's recipe ends too early")
    return data


def _exactly(read: Read, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += _some(read, size - len(data))
    return data


def _open(root: int, path: bytes) -> int:
    """A descriptor of the regular file `path` below `root`; -1 where there is none that can be read."""
    try:
        fd = beneath.open_in_root(root, os.fsdecode(path), _FILES)
    except OSError:
        return -1
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return -1
