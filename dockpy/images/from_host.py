"""Images of the host's own files: `image from-host NAME PATH…`, and the root of
`dockpy.builtin/host`.

A `Collector` gathers a list of entries (paths, the links on the way to them, what programs need
to run) and nothing else; `pack` turns the list into one layer. Owners are root's, folders' times
fixed and entries sorted, so the same host files give the same image. What cannot be read is left
out, with a warning.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dockpy.errors import InvalidParameter, NotFound, Unavailable
from dockpy.images import elf, tarwriter
from dockpy.images.image import Image, timestamp
from dockpy.images.making import put_image
from dockpy.images.store import ImageStore
from dockpy.images.tarwriter import Write
from dockpy.oci.descriptor import OCI_LAYER, Descriptor
from dockpy.oci.digest import DiffID
from dockpy.oci.image import ContainerConfig, History, ImageConfig
from dockpy.oci.platform import host_platform
from dockpy.oci.reference import parse_reference
from dockpy.storage import tar
from dockpy.storage.pack import Gathered

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SEARCH = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin")

_NEVER = ("/proc", "/sys", "/dev", "/run")
_HOPS = 40
_PYTHON = re.compile(r"python3(\.[0-9]+)?")
_ASK_PYTHON = (
    "import os,sys; print(os.path.dirname(os.__file__), sys.implementation.cache_tag,"
    " *[p for p in sys.path if p.endswith('lib-dynload')], sep='\\n')"
)
_STDLIB_WITHOUT = frozenset(
    ("test", "tests", "idlelib", "idle_test", "tkinter", "turtledemo", "lib2to3", "__phello__")
) | {"_bundled", "dist-packages", "site-packages"}
# Loaded by libc at run time, so no ELF header names them.
_BY_LIBC = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1")
_DATA = (
    "/etc/protocols",
    "/etc/services",
    "/etc/os-release",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_TERMINALS = (
    "ansi dumb linux screen screen-256color tmux tmux-256color vt100 vt220 xterm xterm-256color"
)
_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_FOLDERS = {
    "": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555, "root": 0o700,
    "run": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "var": 0o755, "var/tmp": 0o1777,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One file of the layer; `source` is the host's file, else `data` is the content."""

    mode: int
    link: str = ""
    source: str = ""
    data: bytes = b""
    size: int = 0
    mtime: int = tarwriter.EPOCH

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Collector:
    """`entries`: path without a leading slash → entry. `warnings`: what was left out, a sentence
    each.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.warnings: list[str] = []
        self._loader = elf.Loader()
        self._programs: set[str] = set()
        self._cache_needed = False
        for path, mode in _FOLDERS.items():
            self.entries[path] = Entry(stat.S_IFDIR | mode)
        for path in ("/bin", "/sbin", "/lib", "/lib64"):  # a merged /usr, as here
            if os.path.islink(path):
                self.walk(path)

    # Paths

    def walk(self, path: str) -> str:
        """Adds what lies on the way to `path`, each link as it is, and a file at its end; its
        real path.

        OSError when it does not exist. A folder at the end comes without what is in it.
        """
        left = path.split("/")[::-1]
        real = ""
        hops = 0
        while left:
            name = left.pop()
            if name in ("", "."):
                continue
            if name == "..":
                real = real.rpartition("/")[0]
                continue
            here = f"{real}/{name}"
            status = os.lstat(here)
            if stat.S_ISLNK(status.st_mode):
                hops += 1
                if hops > _HOPS:
                    raise OSError(40, os.strerror(40), path)
                target = os.readlink(here)
                self.entries[here[1:]] = Entry(stat.S_IFLNK | 0o777, link=target)
                left.extend(target.split("/")[::-1])
                if target.startswith("/"):
                    real = ""
            else:
                self._put(here, status)
                real = here
        return real or "/"

    def _put(self, path: str, status: os.stat_result) -> None:
        if path[1:] in self.entries:
            return
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            self.entries[path[1:]] = Entry(stat.S_IFDIR | stat.S_IMODE(mode) | 0o700)
        elif not stat.S_ISREG(mode):
            self.warnings.append(f"{path} is left out: neither a file nor a folder nor a link")
        elif not os.access(path, os.R_OK):
            self.warnings.append(f"{path} is left out: it cannot be read")
        else:
            self.entries[path[1:]] = Entry(
                mode, source=path, size=status.st_size, mtime=int(status.st_mtime)
            )

    def tree(
        self, folder: str, without: Callable[[str, bool], bool] = lambda name, is_dir: False
    ) -> list[str]:
        """Adds all that is in a (real) folder; the files added. `without(name, is folder)` leaves
        out.
        """
        found = []
        pending = [folder]
        while pending:
            here = pending.pop()
            try:
                names = sorted(os.scandir(here), key=lambda item: item.name)
            except OSError as error:
                self.warnings.append(f"{here} is left out: {error.strerror}")
                continue
            for item in names:
                is_folder = item.is_dir(follow_symlinks=False)
                if without(item.name, is_folder) or item.path in _NEVER:
                    continue
                if item.is_symlink():
                    self._link_in_tree(item.path)
                    continue
                self._put(item.path, item.stat(follow_symlinks=False))
                if is_folder:
                    pending.append(item.path)
                elif item.path[1:] in self.entries:
                    found.append(item.path)
        return found

    def _link_in_tree(self, path: str) -> None:
        try:
            self.walk(path)
        except OSError:
            # Dangling on the host, too: kept as it is.
            self.entries[path[1:]] = Entry(stat.S_IFLNK | 0o777, link=os.readlink(path))

    def link(self, path: str, target: str) -> None:
        """A link of ours, where there is nothing by that name."""
        folder, _, name = path.rpartition("/")
        with contextlib.suppress(OSError):  # no such folder on the host: it comes with the link
            folder = self.walk(folder)
        place = f"{folder}/{name}".lstrip("/")
        if place not in self.entries:
            self.entries[place] = Entry(stat.S_IFLNK | 0o777, link=target)

    # Programs

    def program(self, path: str) -> str:
        """Adds `path` and what it needs to run: interpreter, libraries, a python's standard
        library.
        """
        real = self.walk(path)
        self._needs(real)
        return real

    def _needs(self, real: str) -> None:
        if real in self._programs or real[1:] not in self.entries:
            return
        self._programs.add(real)
        found = self._loader.read(real)
        if found is not None:
            self._libraries(found)
            if _PYTHON.fullmatch(os.path.basename(real)):
                self._standard_library(real, found)
            return
        words = elf.shebang(real)
        if words and words[0].startswith("/"):
            self._try_program(words[0], f"the interpreter of {real}")
            if os.path.basename(words[0]) == "env" and len(words) > 1:
                wanted = [word for word in words[1].split() if word[0] != "-" and "=" not in word]
                place = search(wanted[0]) if wanted else None
                if place is not None:
                    self._try_program(place, f"the interpreter of {real}")

    def _try_program(self, path: str, what: str) -> None:
        try:
            self.program(path)
        except OSError as error:
            self.warnings.append(f"{path}, {what}, is left out: {error.strerror}")

    def _libraries(
        self, start: elf.Object, inherited: tuple[str, ...] = (), musl: bool = False
    ) -> None:
        if start.interpreter:
            musl = "ld-musl" in start.interpreter
            self._try_program(start.interpreter, f"the loader of {start.path}")
        pending = [(start, inherited)]
        extra: tuple[str, ...] = ()
        while pending:
            loader, above = pending.pop()
            paths = elf.rpaths(loader, above)
            if "libc.so.6" in loader.needed and not extra:
                extra = _BY_LIBC
                names: tuple[str, ...] = loader.needed + extra
            else:
                names = loader.needed
            for name in names:
                found = self._loader.find(name, loader, paths, musl)
                if not found:
                    self._missing(name, loader, musl)
                for path in found:
                    real = self.walk(path)
                    self._cache_needed |= not musl and not self._loader.in_default_folder(
                        path, loader.kind
                    )
                    if real in self._programs:
                        continue
                    self._programs.add(real)
                    needed = self._loader.read(path)
                    if needed is not None:
                        pending.append((needed, paths))

    def _missing(self, name: str, loader: elf.Object, musl: bool) -> None:
        # musl's own loader is its libc, whatever name it is asked by.
        if name not in _BY_LIBC and not (musl and name.startswith("libc.")):
            self.warnings.append(f"{loader.path} asks for {name}, which is not on this host")

    def _standard_library(self, python: str, found: elf.Object) -> None:
        try:
            asked = subprocess.run(
                [python, "-IS", "-c", _ASK_PYTHON], env={}, cwd="/", stdin=subprocess.DEVNULL,
                capture_output=True, timeout=10, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            self.warnings.append(f"{python} does not run: its standard library is left out")
            return
        stdlib, tag, *more = os.fsdecode(asked.stdout).splitlines()

        def without(name: str, is_folder: bool) -> bool:
            if is_folder:
                return name in _STDLIB_WITHOUT or name.startswith("config-")
            if name.endswith(".pyc"):
                # Kept: without them every start in a container compiles anew.
                return not name.endswith(f".{tag}.pyc")
            return name.endswith((".a", ".exe")) or name.startswith(
                ("_tkinter.", "_test", "_xx", "xxlimited")
            )

        for folder in dict.fromkeys((stdlib, *more)):
            real = self.walk(folder)
            for path in self.tree(real, without):
                if path.endswith(".so"):
                    module = self._loader.read(path)
                    if module is not None:
                        self._libraries(
                            module, elf.rpaths(found, ()), "ld-musl" in found.interpreter
                        )

    # Data

    def data(self) -> None:
        """What a shell, coreutils and python look up at run time, as far as the host has it."""
        for path, text in _FILES.items():
            if path not in self.entries:  # somebody may have asked for the host's own
                self.entries[path] = Entry(stat.S_IFREG | 0o644, data=text.encode(), size=len(text))
        for path in _DATA:
            self._try_data(path)
        for path in _LOCALES:
            if os.path.isdir(path):
                self.tree(self.walk(path))
        for name in _TERMINALS.split():
            for folder in ("/lib/terminfo", "/usr/share/terminfo"):
                path = f"{folder}/{name[0]}/{name}"
                if os.path.exists(path):
                    self._try_data(path)
                    break
        if self._cache_needed:
            for path in ("/etc/ld.so.cache", "/etc/ld.so.conf"):
                self._try_data(path)
            if os.path.isdir("/etc/ld.so.conf.d"):
                self.tree(self.walk("/etc/ld.so.conf.d"))

    def _try_data(self, path: str) -> None:
        with contextlib.suppress(OSError):  # another kind of host keeps it elsewhere
            self.walk(path)

    def environment(self) -> tuple[str, ...]:
        made = [f"PATH={PATH}"]
        for path in _DATA[3:]:
            if path[1:] in self.entries:
                made.append(f"SSL_CERT_FILE={path}")
                break
        if any(path[1:] in self.entries for path in _LOCALES):
            made.append("LANG=C.UTF-8")
        return tuple(made)


def search(name: str) -> str | None:
    """Where the host keeps a program; never a pyenv shim, which is not the program."""
    for folder in SEARCH:
        path = f"{folder}/{name}"
        if (
            os.access(path, os.X_OK)
            and os.path.isfile(path)
            and "/shims/" not in os.path.realpath(path)
        ):
            return path
    return None


def collect(paths: Sequence[str]) -> Collector:
    """The entries of `image from-host`: each path a file, a folder, or a program's bare name."""
    collector = Collector()
    for path in paths:
        place = path if "/" in path else search(path)
        if place is None:
            raise NotFound(f"{path}: no such program on this host")
        if not place.startswith("/"):
            raise InvalidParameter(f"{path}: give an absolute path, or the bare name of a program")
        _add(collector, place)
    collector.data()
    return collector


def _add(collector: Collector, path: str) -> None:
    for place in (os.path.normpath(path), os.path.realpath(path)):
        if place.strip("/") and not any(
            place == never or place.startswith(never + "/") for never in _NEVER
        ):
            continue
        raise InvalidParameter(f"{path}: neither the whole host nor the kernel's files are packed")
    try:
        real = collector.walk(path)
    except OSError as error:
        raise NotFound(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if os.path.isdir(real):
        for found in collector.tree(real):
            if os.access(found, os.X_OK):
                collector.program(found)
    elif real[1:] not in collector.entries:
        raise Unavailable(f"{path}: it cannot be read, or is not a regular file")
    else:
        collector.program(path)


def pack(entries: Mapping[str, Entry], write: Write) -> None:
    """The layer's tar: folders before what is in them, since the names are sorted by component."""
    for path in sorted(entries, key=lambda name: name.split("/")):
        entry = entries[path]
        if not path:
            continue
        mode = stat.S_IMODE(entry.mode)
        if entry.is_folder:
            write(tarwriter.header(path + "/", mode=mode, kind=tar.DIRECTORY))
        elif entry.link:
            write(tarwriter.header(path, mode=0o777, kind=tar.SYMLINK, link=entry.link))
        else:
            write(tarwriter.header(path, size=entry.size, mode=mode, mtime=entry.mtime))
            _pack_content(entry, write)


def _pack_content(entry: Entry, write: Write) -> None:
    if not entry.source:
        write(entry.data + tarwriter.padding(entry.size))
        return
    left = entry.size
    fd = os.open(entry.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        while left:
            chunk = os.read(fd, min(left, tarwriter.CHUNK))
            if not chunk:
                raise Unavailable(f"{entry.source} became shorter while it was packed: try again")
            left -= len(chunk)
            write(chunk)
    finally:
        os.close(fd)
    write(tarwriter.padding(entry.size))


def build(
    store: ImageStore,
    collector: Collector,
    name: str,
    config: ContainerConfig,
    comment: str,
    *,
    created: str,
    extra: Mapping[str, str] = {},
) -> Image:
    """Packs the collected entries as an image of one layer, called `name`."""
    with store.writing():
        with store.content.writer() as writer:
            gathered = Gathered(writer.write)
            pack(collector.entries, gathered.write)
            gathered.write(tarwriter.END)
            gathered.flush()
            blob, size = writer.commit()
        image = ImageConfig(
            host_platform(),
            (DiffID(blob),),
            config,
            (History(created, comment=comment),),
            created,
        )
        names = [parse_reference(name).tagged()]
        return put_image(store, image.to_bytes(), [Descriptor(OCI_LAYER, blob, size)], names, extra)


def from_host(
    store: ImageStore, name: str, paths: Sequence[str], warn: Callable[[str], object]
) -> Image:
    """`image from-host NAME PATH…`: runs the first path when it is a program."""
    reference = parse_reference(name).tagged()
    if reference.digest:
        raise InvalidParameter("an image cannot be named by a digest")
    if not paths:
        raise InvalidParameter("name at least one file, folder or program of this host")
    collector = collect(paths)
    for warning in collector.warnings:
        warn(warning)
    first = paths[0] if "/" in paths[0] else search(paths[0])
    runs = first is not None and os.path.isfile(first) and os.access(first, os.X_OK)
    config = ContainerConfig(env=collector.environment(), cmd=(first,) if runs and first else None)
    return build(store, collector, str(reference), config, "image from-host", created=timestamp())


def programs(collector: Collector, names: Iterable[str]) -> None:
    """Adds those of `names` that the host has."""
    for name in names:
        place = search(name)
        if place is not None:
            collector.program(place)
