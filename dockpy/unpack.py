"""Unpacks the file into the store, once a build: `<store>/app/<build id>.<cache tag>`, and records the interpreter.

A copy appears whole, by rename, with everything compiled (unchecked hash-based .pyc: nothing is looked at again), and is
not written to afterwards. Nothing is synced: `boot` names the boot in which the copy was made or last looked through,
so what a power cut left behind is found by its checksums at the next start. Runs from inside the archive and before
anything of dockpy is believed, so it imports the ground floor only.
"""

from __future__ import annotations

import binascii
import os
import sys
import time

from dockpy import ids, reexec
from dockpy.errors import DockpyError
from dockpy.files import read_bytes, write_atomic
from dockpy.paths import NoHome, Paths, store_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANIFEST = "manifest"
INNER = "site-packages/"
SOURCE = "start.py"  # in the archive
BEGIN = "start"
CODES = "codes"
CODES_INDEX = 1 << 15  # as in build/start.py
PYC_HEAD = 16  # bytes before the code (PEP 552)
HOT_ROOM = "dockpy/client/"
HOT_FILES = frozenset(
    f"dockpy/{name}.py"
    for name in "__init__ __main__ errors fastjson files http/__init__ http/plain http/stdcopy ids paths reexec".split()
)
IDLE = 7 * 86400.0  # seconds: a client of an older build may still be about to import something
START = "import sys\nsys.path.append({folder!r})\nfrom dockpy.__main__ import main\nmain()\n"


class Damaged(DockpyError):
    """The unpacked copy is not what was written."""


def settle(archive: str, build: str, trusted: Callable[[str, int], bool]) -> None:
    """Goes on in a copy that may be trusted, made here when needed (does not return then); else returns.

    It returns where no such copy can be had: no home, a read-only or full disk, parents that others can write.
    """
    uid = os.geteuid()
    umask = os.umask(
        0o077
    )  # the user's own may be 000: then nobody could believe what is made here
    try:
        app = Paths(store_of(os.environ, uid)).app
        os.makedirs(app, exist_ok=True)
        app = os.path.realpath(app)
        if not trusted(app, uid):
            return
        folder = f"{app}/{build}.{sys.implementation.cache_tag}"
        interpreter = real_interpreter()
        with waiting_lock(app):
            ensure(archive, folder, trusted)
            record(app, interpreter)
    except (OSError, NoHome):
        return
    finally:
        os.umask(umask)
    os.environ["DOCKPY_FILE"] = os.path.abspath(archive)  # else nobody knew (commands.enable)
    os.execv(interpreter, [interpreter, "-IS", f"{folder}/{reexec.MAIN}", *sys.argv[1:]])


class waiting_lock:
    """One process unpacks, the others wait for it; where the file system has no locks each makes its own."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._fd = -1

    def __enter__(self) -> None:
        import fcntl

        self._fd = os.open(f"{self._app}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError:
            pass

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def real_interpreter() -> str:
    """What runs in the end: never a pyenv shim, a virtual environment's link or a name that may change its meaning."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    real = os.path.realpath(base)
    if "\n" in real or not os.access(real, os.X_OK):
        raise OSError(f"{real} cannot be recorded")
    return real


def record(app: str, interpreter: str) -> None:
    path, line = f"{app}/python", os.fsencode(interpreter) + b"\n"
    try:
        with open(path, "rb") as file:
            if file.read() == line and not os.path.islink(path):
                return
    except OSError:
        pass
    write_atomic(path, line, durable=False)


def ensure(archive: str, folder: str, trusted: Callable[[str, int], bool]) -> None:
    """Makes `folder` a whole copy: another process's, an older one looked through, or a new one."""
    boot = ids.boot_id().encode() + b"\n"
    try:
        if not trusted(folder, os.geteuid()):
            raise Damaged(f"others could have written to {folder}")
        if read_bytes(f"{folder}/boot") != boot:
            look_through(folder)
            write_atomic(f"{folder}/boot", boot, durable=False)
    except (OSError, Damaged):
        temporary = f"{folder}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        try:
            unpack(archive, temporary, folder)
            write_atomic(f"{temporary}/boot", boot, durable=False)
            remove(folder)
            os.rename(temporary, folder)
        finally:
            remove(temporary)
        remove_older(folder)


def look_through(folder: str) -> None:
    """Damaged unless every file of the manifest is there with its size and checksum."""
    with open(f"{folder}/{MANIFEST}", "rb") as file:
        text, _, last = file.read().rpartition(b"\n")
    if last != b"%08x" % binascii.crc32(text):
        raise Damaged(f"{folder}/{MANIFEST} is damaged")
    for line in text.splitlines():
        checksum, _, name = line.partition(b" ")
        with open(os.path.join(os.fsencode(folder), name), "rb") as file:
            if b"%08x" % binascii.crc32(file.read()) != checksum:
                raise Damaged(f"{os.fsdecode(name)} in {folder} is damaged")


def unpack(archive: str, temporary: str, folder: str) -> None:
    import zipfile

    os.mkdir(temporary, 0o700)
    sources = []
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            inner = name[len(INNER) :]
            if not name.startswith(INNER) or not inner or ".." in inner.split("/"):
                continue
            path = f"{temporary}/{inner}"
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            write(path, packed.read(name))
            if inner.endswith(".py"):
                sources.append(inner)
        write(f"{temporary}/{BEGIN}", begin(packed.read(SOURCE)))
    write(
        f"{temporary}/{reexec.MAIN}", START.format(folder=folder).encode("utf-8", "surrogateescape")
    )
    compile_all(temporary, folder, sources)
    write_codes(temporary, sources)
    lines = [
        b"%08x %s" % (checksum(path), os.fsencode(path[len(temporary) + 1 :]))
        for path in files(temporary)
    ]
    text = b"\n".join(sorted(lines))
    write(f"{temporary}/{MANIFEST}", text + b"\n%08x" % binascii.crc32(text))


def write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:
        if file.write(data) != len(data):
            raise OSError(f"{path} could not be written whole")


def checksum(path: str) -> int:
    with open(path, "rb") as file:
        return binascii.crc32(file.read())


def files(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(parent, name)


def compile_all(temporary: str, folder: str, sources: list[str]) -> None:
    """Compiles on all processors: the very first command waits for this. What does not compile has no .pyc."""
    shares = max(1, min(8, len(os.sched_getaffinity(0))))
    children = []
    for share in range(shares):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for name in sources[share::shares]:
                    compile_one(f"{temporary}/{name}", f"{folder}/{name}")
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    if any(statuses):
        raise OSError(f"{folder} could not be compiled")


def compile_one(path: str, final: str) -> None:
    import py_compile

    # The name kept in the code is the final one: the import system would otherwise correct every code object at each start.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(path, dfile=final, doraise=True, invalidation_mode=unchecked)


def begin(source: bytes) -> bytes:
    """build/start.py as the preamble takes it: compiled, behind what tells whether it is whole and for this Python."""
    import marshal
    from _imp import source_hash
    from importlib.util import MAGIC_NUMBER

    code = marshal.dumps(compile(source, "<dockpy>", "exec", dont_inherit=True))
    return MAGIC_NUMBER + source_hash(1, code) + code


def write_codes(temporary: str, sources: list[str]) -> None:
    """One file with the compiled client, for build/start.py: an index, padded to its full size, then the codes."""
    import marshal
    from importlib.util import MAGIC_NUMBER, cache_from_source

    places: dict[str, tuple[int, int, str]] = {}
    codes: list[bytes] = []
    place = CODES_INDEX
    for source in sources:
        if not source.startswith(HOT_ROOM) and source not in HOT_FILES:
            continue
        try:
            code = read_bytes(cache_from_source(f"{temporary}/{source}"))[PYC_HEAD:]
        except OSError:
            continue  # it does not compile here: found in its own file, it says so
        name = source[: -len(".py")].replace("/", ".")
        name = name[: -len(".__init__")] if name.endswith(".__init__") else name
        places[name] = len(code), place, source
        codes.append(code)
        place += len(code)
    index = marshal.dumps((MAGIC_NUMBER, places))
    if len(index) > CODES_INDEX:
        raise OSError("the index of the compiled client has outgrown its place")
    write(f"{temporary}/{CODES}", b"".join((index.ljust(CODES_INDEX, b"\0"), *codes)))


def remove_older(folder: str) -> None:
    """Removes copies of other builds that no process holds (reexec.hold_copy) and that are not brand-new."""
    import fcntl

    app = os.path.dirname(folder)
    for entry in os.scandir(app):
        if entry.path == folder or not entry.is_dir(follow_symlinks=False):
            continue
        if time.time() - entry.stat(follow_symlinks=False).st_mtime < IDLE:
            continue
        fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        finally:
            os.close(fd)
        remove(entry.path)


def remove(folder: str) -> None:
    if os.path.lexists(folder):
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
