"""The images that always exist: `dockpy.builtin/hello` and `dockpy.builtin/host`, made at their
first use.

hello is two hundred bytes of program, assembled below. host is this host's own shell, coreutils
and python3; it is made again when they have changed, which a handful of stat calls tell at each
use.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from typing import TYPE_CHECKING

from dockpy.errors import InvalidParameter, NotFound, Unavailable
from dockpy.images import tarwriter
from dockpy.images.image import Image
from dockpy.images.making import put_image
from dockpy.images.store import ImageStore
from dockpy.oci.descriptor import OCI_LAYER, Descriptor
from dockpy.oci.digest import DiffID, digest_bytes
from dockpy.oci.image import ContainerConfig, History, ImageConfig
from dockpy.oci.platform import host_platform
from dockpy.oci.reference import parse_reference

if TYPE_CHECKING:
    from dockpy.images import from_host

DOMAIN = "dockpy.builtin"
HELLO = f"{DOMAIN}/hello:latest"
HOST = f"{DOMAIN}/host:latest"
ANNOTATION_MADE_FROM = "io.dockpy.made-from"

_RECIPE = "1"  # to be raised when what goes into `host` changes
_CREATED = "1970-01-01T00:00:00Z"  # the same host gives the same image

_GREETING = b"""
Hello from dockpy!

This container was started without root, from one Python file: the client asked
a daemon of yours, which had a keeper fork a shim, which became this process.
Next: dockpy run --rm -it dockpy.builtin/host sh
"""

_SHELLS = "sh dash bash busybox"
_COREUTILS = (
    "[ arch b2sum base32 base64 basename basenc cat chgrp chmod chown chroot cksum comm cp "
    "csplit cut date dd df dir dircolors dirname du echo env expand expr factor false fmt "
    "fold groups head hostid id install join link ln logname ls md5sum mkdir mkfifo mknod "
    "mktemp mv nice nl nohup nproc numfmt od paste pathchk pinky pr printenv printf ptx pwd "
    "readlink realpath rm rmdir runcon seq sha1sum sha224sum sha256sum sha384sum sha512sum "
    "shred shuf sleep sort split stat stdbuf stty sum sync tac tail tee test timeout touch tr "
    "true truncate tsort tty uname unexpand uniq unlink users vdir wc who whoami yes"
)
_COMPANIONS = (
    "awk cmp diff egrep fgrep find flock getopt grep gunzip gzip hostname ip kill more mount "
    "mountpoint nologin ps sed setsid tar umount which xargs zcat"
)
_WATCHED = (
    "/bin/sh /bin/bash /bin/ls /bin/busybox /usr/bin/python3 /usr/local/bin/python3 /usr/bin "
    "/bin /usr/local/bin /lib/x86_64-linux-gnu/libc.so.6 /lib/aarch64-linux-gnu/libc.so.6 "
    "/lib64/libc.so.6 /lib/x86_64-linux-gnu /lib/aarch64-linux-gnu /usr/lib64 /lib64 /lib "
    "/usr/lib"
)


def ensure(store: ImageStore, text: str) -> Image | None:
    """The image, made when it has to be, if `text` names a builtin one; None for any other name."""
    if not text.startswith(f"{DOMAIN}/"):
        return None
    try:
        name = str(parse_reference(text).tagged())
    except InvalidParameter:
        return None
    if name not in (HELLO, HOST):
        raise NotFound(f"No such image: {text}: there are {DOMAIN}/hello and {DOMAIN}/host")
    made_from = _RECIPE if name == HELLO else host_state()
    present = _present(store, name, made_from)
    if present is not None:
        return present
    with store.making:
        present = _present(store, name, made_from)
        if present is not None:
            return present
        if name == HELLO:
            return _make_hello(store, made_from)
        return _make_host(store, made_from)


def _present(store: ImageStore, name: str, made_from: str) -> Image | None:
    try:
        image = store.resolve(name)
    except NotFound:
        return None
    return image if store.annotation(name, ANNOTATION_MADE_FROM) == made_from else None


# hello


def _hello_x86_64(address: int, message: bytes) -> tuple[int, bytes]:
    """e_machine and code + message, to be loaded at `address`."""
    length = struct.pack("<I", len(message))
    code = (
        b"\xb8\x01\x00\x00\x00"  # mov  eax, 1           write(
        b"\x89\xc7"  #             mov  edi, eax           1,
        b"\x48\x8d\x35\x12\x00\x00\x00"  # lea rsi, [rip+18] message: 18 bytes on,
        b"\xba" + length +  #      mov  edx, length        length
        b"\x0f\x05"  #             syscall               )
        b"\xb8\x3c\x00\x00\x00"  # mov  eax, 60          exit(
        b"\x31\xff"  #             xor  edi, edi           0
        b"\x0f\x05"  #             syscall               )
        b"\x90\x90"  #             nop, nop              (to an even offset)
    )  # fmt: skip
    return 62, code + message


def _hello_aarch64(address: int, message: bytes) -> tuple[int, bytes]:
    words = (
        0xD2800020,  #                       movz x0, #1       write(1,
        0x100000E1,  #                       adr  x1, .+28       message: 7 words on,
        0xD2800002 | len(message) << 5,  #   movz x2, #length    length
        0xD2800808,  #                       movz x8, #64
        0xD4000001,  #                       svc  #0           )
        0xD2800000,  #                       movz x0, #0       exit(0
        0xD2800BA8,  #                       movz x8, #93
        0xD4000001,  #                       svc  #0           )
    )
    return 183, struct.pack(f"<{len(words)}I", *words) + message


def hello_program(machine: str) -> bytes:
    """A static ELF program of one read-only, executable segment that prints the greeting."""
    assemble = {"x86_64": _hello_x86_64, "aarch64": _hello_aarch64}.get(machine)
    if assemble is None:
        raise Unavailable(f"{DOMAIN}/hello has no program for {machine} processors")
    base, headers = 0x400000, 64 + 56
    number, code = assemble(base + headers, _GREETING)
    total = headers + len(code)
    # e_ident: 64 bit, little endian, version 1, System V. Then type EXEC, machine, version,
    # entry, program headers at 64, no sections, flags, sizes and counts (elf(5)).
    identity = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    elf_header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, number, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    # PT_LOAD, read + execute, the whole file at `base`, aligned to the largest page (64 KiB on
    # some aarch64).
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, total, total, 0x10000)
    return elf_header + segment + code


def _make_hello(store: ImageStore, made_from: str) -> Image:
    program = hello_program(os.uname().machine)
    parts: list[bytes] = []
    tarwriter.write_bytes(parts.append, "hello", program, 0o755)
    layer = b"".join(parts) + tarwriter.END
    with store.writing():
        blob = store.content.put(layer)
        config = ImageConfig(
            host_platform(),
            (DiffID(digest_bytes(layer)),),
            ContainerConfig(cmd=("/hello",), env=("PATH=/",)),
            (History(_CREATED, comment="built into dockpy"),),
            _CREATED,
        )
        return put_image(
            store,
            config.to_bytes(),
            [Descriptor(OCI_LAYER, blob, len(layer))],
            [parse_reference(HELLO)],
            {ANNOTATION_MADE_FROM: made_from},
        )


# host


def host_state() -> str:
    """Changes when the programs that `host` is made from are replaced: packages rename files into
    these folders.
    """
    seen = [_RECIPE]
    for path in _WATCHED.split():
        try:
            status = os.stat(path)
        except OSError:
            continue
        seen.append(f"{path} {status.st_ino} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:32]


def _make_host(store: ImageStore, made_from: str) -> Image:
    from dockpy.images import from_host  # pyelftools

    collector = host_collector()
    config = ContainerConfig(env=collector.environment(), cmd=("/bin/sh",))
    return from_host.build(
        store,
        collector,
        HOST,
        config,
        "made from this host's own programs",
        created=_CREATED,
        extra={ANNOTATION_MADE_FROM: made_from},
    )


def host_collector() -> from_host.Collector:
    """All that `host` consists of."""
    from dockpy.images import from_host

    collector = from_host.Collector()
    from_host.programs(collector, f"{_SHELLS} {_COREUTILS} {_COMPANIONS}".split())
    _add_python(collector)
    _add_applets(collector)
    collector.data()
    return collector


def _add_python(collector: from_host.Collector) -> None:
    from dockpy.images import from_host

    names = ["python3", *(f"python3.{minor}" for minor in range(20, 8, -1))]
    place = next((found for found in map(from_host.search, names) if found), None)
    if place is None:
        # No python3 in the usual places: the one that runs dockpy.
        place = os.path.realpath(sys.executable) if sys.executable else None
    if place is not None:
        real = collector.program(place)
        collector.link("/usr/bin/python3", real)


def _add_applets(collector: from_host.Collector) -> None:
    """On a host of busybox its programs are links; where it has none of its own, links for what
    else is missing.
    """
    from dockpy.images import from_host

    place = from_host.search("busybox")
    if place is None:
        return
    real = os.path.realpath(place)
    for folder in from_host.SEARCH:
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            if entry.is_symlink() and os.path.realpath(entry.path) == real:
                collector.walk(entry.path)
    present = {path.rpartition("/")[2] for path in collector.entries}
    for name in f"sh {_COREUTILS} {_COMPANIONS}".split():
        if name not in present:
            collector.link(f"/usr/bin/{name}", real)
