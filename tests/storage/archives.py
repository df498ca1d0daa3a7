"""Archives for tests, honest and hostile, made with a TarInfo's fields or byte by byte."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from dockpy.storage.layer import Extracted, extract
from dockpy.storage.owners import Owners, SideTable
from dockpy.storage.source import Limits


def reader(data: bytes) -> Callable[[int], bytes]:
    return io.BytesIO(data).read


class Archive:
    """An archive being written. Names go in as they are: nothing is cleaned."""

    def __init__(self, format: int = tarfile.PAX_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=format)

    def add(
        self,
        name: str,
        data: bytes = b"",
        *,
        type: bytes = tarfile.REGTYPE,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime: float = 1_000_000_000,
        link: str = "",
        device: tuple[int, int] = (0, 0),
        pax: Mapping[str, str] | None = None,
    ) -> Archive:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.mtime = type, mode, uid, gid, mtime
        info.linkname, (info.devmajor, info.devminor) = link, device
        info.size = len(data)
        info.pax_headers = dict(pax or {})
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def folder(self, name: str, mode: int = 0o755, **more: int) -> Archive:
        return self.add(name, type=tarfile.DIRTYPE, mode=mode, **more)  # type: ignore[arg-type]  # ints only

    def symlink(self, name: str, target: str) -> Archive:
        return self.add(name, type=tarfile.SYMTYPE, link=target, mode=0o777)

    def hardlink(self, name: str, target: str) -> Archive:
        return self.add(name, type=tarfile.LNKTYPE, link=target)

    def done(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def raw_header(
    name: bytes = b"f", *, kind: bytes = b"0", size: bytes = b"0" * 11, **fields: bytes
) -> bytes:
    """One header block with fields as given, its checksum right."""
    head = bytearray(
        struct.pack(
            "100s8s8s8s12s12s8sc100s8s32s32s8s8s167s",
            name,
            fields.get("mode", b"0000644\0"),
            fields.get("uid", b"0000000\0"),
            fields.get("gid", b"0000000\0"),
            size,
            fields.get("mtime", b"00000000000\0"),
            b" " * 8,
            kind,
            fields.get("link", b""),
            fields.get("magic", b"ustar\x0000"),
            b"",
            b"",
            fields.get("major", b""),
            fields.get("minor", b""),
            fields.get("tail", b""),
        )
    )
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax_record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def pax_header(*records: bytes) -> bytes:
    body = b"".join(records)
    return raw_header(b"pax", kind=b"x", size=b"%011o" % len(body)) + padded(body)


def unpack(
    data: bytes,
    target: Path,
    *,
    real: bool | None = None,
    limits: Limits | None = None,
    parents: tuple[Path, ...] = (),
) -> tuple[Extracted, SideTable]:
    """Extracts into `target`, with real owners when we are root of many ids."""
    table = SideTable()
    owners = Owners(os.geteuid() == 0 if real is None else real, table)
    target.mkdir(exist_ok=True)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        extracted = extract(
            reader(data),
            fd,
            owners,
            limits=limits or Limits(),
            parents=tuple(str(parent) for parent in parents),
        )
    finally:
        os.close(fd)
    return extracted, table
