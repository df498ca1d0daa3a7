"""What a program needs to start: its ELF interpreter and libraries, found as ld.so would, or its
#! interpreter.

The only user of pyelftools. Only its structures: ELFFile brings 30 modules of DWARF along (0.24 s
where they are not compiled, instead of 0.1), and walks the sections (3.6 ms a file, instead of
0.4); program headers and the dynamic segment are what ld.so reads, and all that a stripped file
has. Still to be imported inside functions.
"""

from __future__ import annotations

import glob
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from elftools.common.utils import struct_parse
from elftools.elf.structs import ELFStructs

# Debian's multiarch folders, built into its ld.so before the plain ones; by e_machine and class.
_MULTIARCH = {
    (62, 64): "x86_64-linux-gnu",
    (62, 32): "x86_64-linux-gnux32",
    (3, 32): "i386-linux-gnu",
    (183, 64): "aarch64-linux-gnu",
    (40, 32): "arm-linux-gnueabihf",
    (243, 64): "riscv64-linux-gnu",
    (21, 64): "powerpc64le-linux-gnu",
    (22, 64): "s390x-linux-gnu",
    (258, 64): "loongarch64-linux-gnu",
}
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_CACHE_MAGIC = b"ld.so-1.7.0\0"
_CACHE_LIMIT = 16 << 20
_STRINGS_LIMIT = 16 << 20
_SHEBANG_LIMIT = 256  # BINPRM_BUF_SIZE


@dataclass(frozen=True)
class Kind:
    """What two objects must share to be loaded together."""

    machine: int
    bits: int
    little: bool


@dataclass(frozen=True)
class Object:
    """One ELF file. `rpath` is "" where the file has a runpath, which makes ld.so ignore it."""

    path: str
    kind: Kind
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()


def kind_of(path: str) -> Kind | None:
    """The kind of an ELF file; None for anything else, and for what cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(20)
    except OSError:
        return None
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    return Kind(machine, 32 * head[4], head[5] == 1)


def _read(path: str, kind: Kind, structs: ELFStructs, file: BinaryIO) -> Object:
    header = struct_parse(structs.Elf_Ehdr, file, stream_pos=0)
    segments = [
        struct_parse(structs.Elf_Phdr, file, header["e_phoff"] + number * header["e_phentsize"])
        for number in range(header["e_phnum"])
    ]
    interpreter = ""
    values: dict[str, list[int]] = {}
    for segment in segments:
        if segment["p_type"] == "PT_INTERP":
            name = _at(file, segment["p_offset"], min(segment["p_filesz"], 4096))
            interpreter = os.fsdecode(name.split(b"\0")[0])
        elif segment["p_type"] == "PT_DYNAMIC" and segment["p_filesz"]:
            file.seek(segment["p_offset"])
            for _ in range(segment["p_filesz"] // structs.Elf_Dyn.sizeof()):
                entry = struct_parse(structs.Elf_Dyn, file)
                if entry["d_tag"] == "DT_NULL":
                    break
                values.setdefault(entry["d_tag"], []).append(entry["d_val"])
    if "DT_STRTAB" not in values:
        return Object(path, kind, interpreter)
    # The string table is given by its address; the segment that is loaded there tells the place.
    address, size = values["DT_STRTAB"][0], values.get("DT_STRSZ", [_STRINGS_LIMIT])[0]
    place = next(
        address - segment["p_vaddr"] + segment["p_offset"]
        for segment in segments
        if segment["p_type"] == "PT_LOAD"
        and 0 <= address - segment["p_vaddr"] < segment["p_filesz"]
    )
    strings = _at(file, place, min(size, _STRINGS_LIMIT))

    def named(tag: str) -> list[str]:
        return [
            os.fsdecode(strings[start : strings.index(b"\0", start)])
            for start in values.get(tag, ())
        ]

    runpath = _folders(named("DT_RUNPATH"))
    rpath = () if runpath else _folders(named("DT_RPATH"))
    return Object(path, kind, interpreter, tuple(named("DT_NEEDED")), rpath, runpath)


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _folders(values: list[str]) -> tuple[str, ...]:
    return tuple(folder for value in values for folder in value.split(":") if folder)


def shebang(path: str) -> tuple[str, ...]:
    """Interpreter and argument of a script's first line; () when there is none."""
    try:
        with open(path, "rb", buffering=0) as file:
            line = file.read(_SHEBANG_LIMIT).split(b"\n")[0]
    except OSError:
        return ()
    if not line.startswith(b"#!"):
        return ()
    return tuple(os.fsdecode(word) for word in line[2:].strip().split(None, 1))


class Loader:
    """Finds libraries as the host's ld.so does, musl's when an object's interpreter is musl's."""

    def __init__(self) -> None:
        self._structs: dict[Kind, ELFStructs] = {}
        self._cache = _read_cache("/etc/ld.so.cache")
        self._conf = tuple(_conf_folders("/etc/ld.so.conf"))

    def read(self, path: str) -> Object | None:
        """What `path` asks of the loader; None when it is not an ELF file."""
        kind = kind_of(path)
        if kind is None:
            return None
        structs = self._structs.get(kind)
        if structs is None:
            structs = self._structs[kind] = ELFStructs(kind.little, kind.bits)
            structs.create_basic_structs()
            structs.create_advanced_structs()
        try:
            with open(path, "rb") as file:
                return _read(path, kind, structs, file)
        except Exception:
            # On damaged files pyelftools raises whatever its parsing runs into: its own errors,
            # construct's, TypeError, KeyError. Such a file needs nothing that we could find.
            return Object(path, kind)

    def find(
        self, name: str, loader: Object, inherited: tuple[str, ...], musl: bool
    ) -> tuple[str, ...]:
        """Paths that may be loaded as `name`: the one that is, then variants for other processors.

        `inherited` are the rpaths of whoever loaded `loader`, its own included, nearest first.
        """
        if "/" in name:
            return (name,) if kind_of(name) == loader.kind else ()
        folders = [*inherited] if musl or not loader.runpath else []
        folders += [folder for entry in loader.runpath for folder in _expand(entry, loader)]
        for folder in folders:
            path = os.path.join(folder, name)
            if kind_of(path) == loader.kind:
                return (path,)
        if not musl:
            cached = [path for path in self._cache.get(name, ()) if kind_of(path) == loader.kind]
            if cached:
                # The plain one first: the cache lists those for newer processors before it.
                return tuple(sorted(cached, key=lambda path: "glibc-hwcaps" in path))
        for folder in _musl_folders(loader.kind) if musl else self._defaults(loader.kind):
            path = os.path.join(folder, name)
            if kind_of(path) == loader.kind:
                return (path,)
        return ()

    def in_default_folder(self, path: str, kind: Kind) -> bool:
        return os.path.dirname(path) in _default_folders(kind)

    def _defaults(self, kind: Kind) -> tuple[str, ...]:
        return (*self._conf, *_default_folders(kind))


def rpaths(loader: Object, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """What the libraries of `loader` inherit: DT_RPATH goes down the chain of loaders, DT_RUNPATH
    does not.
    """
    return tuple(folder for entry in loader.rpath for folder in _expand(entry, loader)) + inherited


def _expand(entry: str, loader: Object) -> Iterator[str]:
    libs = ("lib64", "lib") if loader.kind.bits == 64 else ("lib",)
    triplet = _multiarch(loader.kind)
    # ld.so takes the folder of the name that a library was found by; of a program, its real one.
    for origin in dict.fromkeys(
        (os.path.dirname(loader.path), os.path.dirname(os.path.realpath(loader.path)))
    ):
        for lib in (f"lib/{triplet}", *libs):
            text = entry
            for word, value in (("ORIGIN", origin), ("LIB", lib), ("PLATFORM", os.uname().machine)):
                text = text.replace("${" + word + "}", value).replace("$" + word, value)
            yield os.path.normpath(text)
            if text == entry or "LIB" not in entry:
                break


def _multiarch(kind: Kind) -> str:
    return _MULTIARCH.get((kind.machine, kind.bits), "unknown-linux-gnu")


def _default_folders(kind: Kind) -> tuple[str, ...]:
    triplet = _multiarch(kind)
    wide = ("/lib64", "/usr/lib64") if kind.bits == 64 else ("/lib32", "/usr/lib32")
    return (f"/lib/{triplet}", f"/usr/lib/{triplet}", *wide, "/lib", "/usr/lib")


def _musl_folders(kind: Kind) -> list[str]:
    for path in glob.glob("/etc/ld-musl-*.path"):
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 16).replace("\n", ":").split(":")
    return [
        "/lib",
        "/usr/local/lib",
        "/usr/lib",
        f"/lib/{_multiarch(kind).replace('-gnu', '-musl')}",
    ]


def _conf_folders(path: str, depth: int = 4) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].replace(",", " ").replace(":", " ").split()
        if words[:1] == ["include"] and depth:
            for pattern in words[1:]:
                for found in sorted(glob.glob(os.path.join(os.path.dirname(path), pattern))):
                    yield from _conf_folders(found, depth - 1)
        elif words[:1] != ["hwcap"]:
            yield from (word.rstrip("/") for word in words if word.startswith("/"))


def _read_cache(path: str) -> dict[str, list[str]]:
    """ld.so.cache: library name → paths. Both the new format and the new one behind an old one
    (dl-cache.h).
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_CACHE_LIMIT)
    except OSError:
        return {}
    base = 0
    if data.startswith(_OLD_CACHE_MAGIC) and len(data) >= 16:
        # struct cache_file: magic[12], nlibs; 12 bytes an entry; the new one follows, aligned to 8.
        (count,) = struct.unpack_from("=I", data, 12)
        base = (16 + 12 * count + 7) & ~7
    if data[base : base + 20] != _CACHE_MAGIC:
        return {}
    found: dict[str, list[str]] = {}
    try:
        (count,) = struct.unpack_from("=I", data, base + 20)
        for number in range(count):
            # struct file_entry_new: flags, key, value, osversion, hwcap; header of 48 bytes.
            _, key, value = struct.unpack_from("=iII", data, base + 48 + 24 * number)
            name = data[base + key : data.index(b"\0", base + key)]
            target = data[base + value : data.index(b"\0", base + value)]
            found.setdefault(os.fsdecode(name), []).append(os.fsdecode(target))
    except (struct.error, ValueError):
        return found  # cut short: what was read is true
    return found
