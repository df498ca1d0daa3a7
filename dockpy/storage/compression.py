"""Compressed streams in, plain bytes out: gzip by zlib, zstd by whatever this host has for it.

zstd: Python's own (3.14), else the system's libzstd through ctypes (the only ctypes of this room), else the
`zstd` program, else one sentence. Memory is bounded whatever the stream says: at most one output
chunk and the decoder's window (zstd frames that ask for more than 128 MiB are refused by the decoder).
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from dockpy.errors import InvalidParameter, Unavailable

Read = Callable[[int], bytes]

CHUNK = 1 << 18
GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = (b"\x2a\x4d\x18", 0x50)  # zstd's skippable frames: 0x50..0x5f, then these three bytes
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}


def sniff(head: bytes) -> str:
    """`gzip`, `zstd` or "" (not compressed), by the first bytes of a stream (six are enough)."""
    if head.startswith(GZIP):
        return "gzip"
    if head.startswith(ZSTD) or (head[1:4] == _SKIPPABLE[0] and head[0] & 0xF0 == _SKIPPABLE[1]):
        return "zstd"
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise InvalidParameter(f"{name} compression is not supported: use gzip, zstd or none")
    return ""


class Counter:
    """How many bytes went through `read`: what an archive's expansion is measured against."""

    __slots__ = ("_read", "total")

    def __init__(self, read: Read) -> None:
        self._read = read
        self.total = 0

    def read(self, size: int) -> bytes:
        chunk = self._read(size)
        self.total += len(chunk)
        return chunk


def decompressed(read: Read) -> Read:
    """`read`, decompressed when its first bytes say so. InvalidParameter on a broken stream."""
    head = b""
    while len(head) < 6:
        chunk = read(CHUNK)
        if not chunk:
            break
        head += chunk
    kind = sniff(head)
    source = _Pushed(head, read).read
    if kind == "gzip":
        return Chunks(_gunzip(source)).read
    if kind == "zstd":
        return Chunks(_unzstd(source)).read
    return source


class _Pushed:
    """A stream whose first bytes were read already."""

    __slots__ = ("_head", "_read")

    def __init__(self, head: bytes, read: Read) -> None:
        self._head = head
        self._read = read

    def read(self, size: int) -> bytes:
        if self._head:
            chunk, self._head = self._head[:size], self._head[size:]
            return chunk
        return self._read(size)


class Chunks:
    """A read function over an iterator of chunks."""

    __slots__ = ("_chunks", "_rest")

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        chunk = self._rest or next(self._chunks, b"")
        if len(chunk) <= size:
            self._rest = b""
            return chunk
        self._rest = chunk[size:]
        return chunk[:size]


def _gunzip(read: Read) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    started = False  # in the present member
    data = read(CHUNK)
    while data:
        started = True
        try:
            out = decoder.decompress(data, CHUNK)
        except zlib.error:
            raise InvalidParameter("the gzip stream is damaged") from None
        if out:
            yield out
        if decoder.eof:
            # Another member may follow (pigz, concatenations); zero padding may, too.
            data = decoder.unused_data.lstrip(b"\0")
            while not data:
                chunk = read(CHUNK)
                if not chunk:
                    return
                data = chunk.lstrip(b"\0")
            while len(data) < 2:
                chunk = read(CHUNK)
                if not chunk:
                    return
                data += chunk
            if not data.startswith(GZIP):
                return  # gzip(1) ignores trailing garbage as well
            decoder = zlib.decompressobj(wbits=31)
            started = False
        else:
            data = decoder.unconsumed_tail or read(CHUNK)
    if started:
        raise InvalidParameter("the gzip stream ends too early")


class ZstdDecoder(Protocol):
    def decode(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


def _unzstd(read: Read) -> Iterator[bytes]:
    decoder = _zstd_of_python() or _zstd_of_system()
    if decoder is None:
        program = shutil.which("zstd")
        if program is None:
            raise Unavailable(
                "this layer is zstd-compressed, and this host has neither Python 3.14, libzstd nor zstd"
            )
        yield from _zstd_by_program(program, read)
        return
    while True:
        data = read(CHUNK)
        if not data:
            decoder.finish()
            return
        yield from decoder.decode(data)


class _PythonZstd:
    """compression.zstd of Python 3.14: one decompressor a frame."""

    def __init__(self, module: object) -> None:
        self._new: Callable[[], object] = module.ZstdDecompressor  # type: ignore[attr-defined]  # 3.14's
        self._error: type[Exception] = module.ZstdError  # type: ignore[attr-defined]  # 3.14's
        self._decoder: object = None

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            decoder = self._decoder or self._new()
            self._decoder = decoder
            try:
                out: bytes = decoder.decompress(data, CHUNK)  # type: ignore[attr-defined]  # 3.14's
                while out:
                    yield out
                    if decoder.eof or decoder.needs_input:  # type: ignore[attr-defined]  # 3.14's
                        break
                    out = decoder.decompress(b"", CHUNK)  # type: ignore[attr-defined]  # 3.14's
            except self._error:
                raise InvalidParameter("the zstd stream is damaged") from None
            if not decoder.eof:  # type: ignore[attr-defined]  # 3.14's
                return
            data = decoder.unused_data  # type: ignore[attr-defined]  # 3.14's
            self._decoder = None

    def finish(self) -> None:
        if self._decoder is not None:
            raise InvalidParameter("the zstd stream ends too early")


def _zstd_of_python() -> ZstdDecoder | None:
    try:
        import importlib

        return _PythonZstd(importlib.import_module("compression.zstd"))
    except ImportError:
        return None


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer: the same layout."""

    _fields_ = [("pointer", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


class _SystemZstd:
    """ZSTD_decompressStream; frames follow each other without a word from us."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = ctypes.POINTER(_Buffer)
        library.ZSTD_createDStream.restype = ctypes.c_void_p
        library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
        library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, pointer, pointer]
        library.ZSTD_decompressStream.restype = ctypes.c_size_t
        library.ZSTD_isError.argtypes = [ctypes.c_size_t]
        self._library = library
        self._stream = library.ZSTD_createDStream()
        if not self._stream:
            raise MemoryError
        self._room = ctypes.create_string_buffer(CHUNK)
        self._inside = False  # a frame has begun and not ended

    def decode(self, data: bytes) -> Iterator[bytes]:
        source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        full = False
        while source.pos < source.size or full:
            target = _Buffer(ctypes.cast(self._room, ctypes.c_void_p), CHUNK, 0)
            hint = self._library.ZSTD_decompressStream(
                self._stream, ctypes.byref(target), ctypes.byref(source)
            )
            if self._library.ZSTD_isError(hint):
                raise InvalidParameter("the zstd stream is damaged")
            self._inside = hint != 0
            full = target.pos == CHUNK and hint != 0
            if target.pos:
                yield ctypes.string_at(self._room, target.pos)

    def finish(self) -> None:
        if self._inside:
            raise InvalidParameter("the zstd stream ends too early")

    def __del__(self) -> None:
        if self._stream:
            self._library.ZSTD_freeDStream(self._stream)
            self._stream = None


def _zstd_of_system() -> ZstdDecoder | None:
    try:
        return _SystemZstd(ctypes.CDLL("libzstd.so.1"))
    except (OSError, AttributeError):
        return None


def _zstd_by_program(program: str, read: Read) -> Iterator[bytes]:
    failure: list[BaseException] = []
    with subprocess.Popen(
        [program, "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def feed() -> None:
            try:
                with contextlib.suppress(BrokenPipeError), stdin:
                    while data := read(CHUNK):
                        stdin.write(data)
            except BaseException as error:  # handed to the reading thread
                failure.append(error)

        feeder = threading.Thread(target=feed, name="zstd-feed", daemon=True)
        feeder.start()
        try:
            while out := stdout.read(CHUNK):
                yield out
        finally:
            stdout.close()
            process.terminate() if process.poll() is None and failure else None
            feeder.join()
    if failure:
        raise failure[0]
    if process.returncode != 0:
        raise InvalidParameter("the zstd stream is damaged or ends too early")
