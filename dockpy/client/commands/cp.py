"""`cp`: files between this host and a container, as tar streams. The rules are docker's (pkg/archive's copy.go).

Where a path ends in `/` or `/.` a folder is meant; `src/.` is what is in it. What comes from a container
is unpacked here without following a link: its names and links were somebody else's choice.
"""

from __future__ import annotations

import os
import stat

from dockpy.client.connection import quote, target
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import err, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.client.flags import Options
    from dockpy.client.main import Cli
    from dockpy.storage.untar import Rename

_MODE_DIR, _MODE_LINK, _MODE_DEVICE = 1 << 31, 1 << 27, 1 << 26  # Go's
_MOST_LINKS = 10


def cp_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    source, destination = arguments
    if not source:
        raise CommandError("source can not be empty")
    if not destination:
        raise CommandError("destination can not be empty")
    source_container, source = split(source)
    container, destination = split(destination)
    if source_container and container:
        raise CommandError("copying between containers is not supported")
    copy = Copy(cli, source_container or container, options)
    if source_container:
        copy.from_container(source, destination)
    elif container:
        copy.to_container(source, destination)
    else:
        raise CommandError("must specify at least one container source")
    return 0


def split(argument: str) -> tuple[str, str]:
    """(container or "", path): a colon in a path of this host needs a `/` or `.` before it."""
    container, colon, path = argument.partition(":")
    if argument.startswith("/") or not colon or container.startswith("."):
        return "", argument
    return container, path


class Info:
    """One end of a copy. `first`: what the topmost name shall be instead of the path's own, or ""."""

    __slots__ = ("exists", "first", "is_dir", "path")

    def __init__(self, path: str, exists: bool, is_dir: bool, first: str = "") -> None:
        self.path = path
        self.exists = exists
        self.is_dir = is_dir
        self.first = first


class Copy:
    def __init__(self, cli: Cli, container: str, options: Options) -> None:
        self._connection = cli.connection
        self._container = container
        self._follow = options.on("follow-link")
        self._archive = options.on("archive")
        self._quiet = options.on("quiet") if options.given("quiet") else not os.isatty(1)

    def _where(self, path: str, query: dict[str, object] | None = None) -> str:
        place = f"/containers/{quote(self._container)}/archive"
        return target(place, {"path": path, **(query or {})})

    def _stat(self, path: str) -> dict[str, object]:
        stream = self._connection.stream("HEAD", self._where(path))
        try:
            return _facts(stream.head.headers)
        finally:
            stream.close()

    # From a container

    def from_container(self, source: str, destination: str) -> None:
        if destination != "-":
            destination = _absolute(destination)
        _check_output(destination)
        first = ""
        if self._follow:
            source, first = self._followed(source)
        stream = self._connection.stream("GET", self._where(source))
        try:
            if destination == "-":
                for piece in stream.pieces():
                    write_all(1, piece)
                return
            facts = _facts(stream.head.headers)
            info = Info(source, True, bool(_mode(facts) & _MODE_DIR), first)
            total = [0]

            def read(size: int) -> bytes:
                piece = stream.piece()
                total[0] += len(piece)
                return piece

            _unpack(read, info, destination)
        finally:
            stream.close()
        self._tell(total[0], destination)

    def _followed(self, source: str) -> tuple[str, str]:
        try:
            facts = self._stat(source)
        except ApiError:
            return source, ""  # the archive call says why
        if not _mode(facts) & _MODE_LINK:
            return source, ""
        link = str(facts.get("linkTarget"))
        if not link.startswith("/"):
            link = os.path.join(split_path(source)[0], link)
        return rebased(source, link)

    # To a container

    def to_container(self, source: str, destination: str) -> None:
        there = self._destination(destination)
        if source == "-":
            if not there.is_dir:
                raise CommandError(
                    f'destination "{self._container}:{destination}" must be a directory'
                )
            sent = self._put(there.path, _from_stdin)
            self._tell(sent, f"{self._container}:{there.path}")
            return
        info = _source(_absolute(source), self._follow)
        folder, base = _plan(info, there)
        name = base or info.first or split_path(info.path)[1]
        sent = self._put(folder, lambda body: _pack(body, info, name))
        self._tell(sent, f"{self._container}:{there.path}")

    def _destination(self, destination: str) -> Info:
        path = destination
        try:
            facts = self._stat(path)
            if _mode(facts) & _MODE_LINK:
                link = str(facts.get("linkTarget"))
                path = link if link[:1] == "/" else os.path.join(split_path(path)[0], link)
                facts = self._stat(path)
        except ApiError:  # of the path or the container: an answer to HEAD does not say
            self._connection.get(f"/containers/{quote(self._container)}/json")
            return Info(path, False, False)  # its parent may be there
        if _mode(facts) & _MODE_DEVICE:
            raise CommandError(
                f'destination "{self._container}:{destination}" must be a directory or a regular file: '
                "got a device"
            )
        return Info(path, True, bool(_mode(facts) & _MODE_DIR))

    def _put(self, folder: str, fill: Callable[[Body], object]) -> int:
        from dockpy.client.upload import Body

        query: dict[str, object] = {"noOverwriteDirNonDir": "true", "copyUIDGID": self._archive}
        body = Body(self._connection, "PUT", self._where(folder, query))
        stream = body.answer(fill)
        stream.whole()
        stream.close()
        return body.sent

    def _tell(self, size: int, where: str) -> None:
        if not self._quiet:
            from dockpy.client import units

            err(f"Successfully copied {units.size(size, 3)} to {where}\n")


if TYPE_CHECKING:
    from dockpy.client.upload import Body


def _facts(headers: dict[str, str]) -> dict[str, object]:
    """What the archive calls tell of a path in a header."""
    from binascii import Error, a2b_base64

    from dockpy import fastjson

    try:
        raw = fastjson.loads(a2b_base64(headers.get("x-docker-container-path-stat", "")))
    except (Error, ValueError):
        raw = None
    if not isinstance(raw, dict):
        raise CommandError("unable to decode container path stat header")
    return raw


def _mode(facts: dict[str, object]) -> int:
    mode = facts.get("mode")
    return mode if isinstance(mode, int) else 0


def _from_stdin(body: Body) -> None:
    while data := os.read(0, 256 << 10):
        body.write(data)


# ------------------------------------------------------------------------------------- paths


def _is_dot(path: str) -> bool:
    return path.rstrip("/").rpartition("/")[2] == "."


def _asserts_folder(path: str) -> bool:
    return path.endswith("/") or _is_dot(path)


def _base(path: str) -> str:
    """Go's filepath.Base."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def _kept(clean: str, original: str) -> str:
    """`clean` with the last `/` or `/.` that `original` had."""
    if not _is_dot(clean) and _is_dot(original):
        clean = clean.rstrip("/") + "/."
    if not clean.endswith("/") and original.endswith("/"):
        clean += "/"
    return clean


def _absolute(path: str) -> str:
    return _kept(os.path.abspath(path), path)


def split_path(path: str) -> tuple[str, str]:
    """(folder, last name) of the cleaned path; the last name of `x/.` is `.`."""
    clean = os.path.normpath(path)
    if clean.startswith("//"):
        clean = clean[1:]
    if _is_dot(path):
        return clean, "."
    folder, _, base = clean.rpartition("/")
    if not base:
        return "/", "/"
    return folder or ("/" if clean.startswith("/") else "."), base


def rebased(path: str, resolved: str) -> tuple[str, str]:
    """Where the link `path` leads to, and the name that what is there shall keep ("": its own)."""
    resolved = _kept(resolved, path)
    return resolved, _base(path) if _base(path) != _base(resolved) else ""


def _lstat(path: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as error:
        raise CommandError(f"lstat {path}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _source(path: str, follow: bool) -> Info:
    if follow:
        _lstat(path)
        try:
            resolved, first = rebased(path, os.path.realpath(path, strict=True))
        except TypeError:  # before Python 3.10
            resolved, first = rebased(path, os.path.realpath(path))
        except OSError as error:
            raise CommandError(f"lstat {error.filename}: {_reason(error)}") from None
    else:
        folder, _, base = path.rpartition("/")
        try:
            mode = os.stat(folder or "/").st_mode
        except OSError as error:
            raise CommandError(f"lstat {folder}: {_reason(error)}") from None
        if not stat.S_ISDIR(mode):
            raise CommandError("not a directory")
        resolved = os.path.realpath(folder or "/").rstrip("/") + "/" + base
        first = _base(path) if path.endswith("/") and _base(path) != _base(resolved) else ""
    return Info(resolved, True, stat.S_ISDIR(_lstat(resolved).st_mode), first)


def _check_output(path: str) -> None:
    folder = os.path.dirname(os.path.normpath(path))
    if folder and not os.path.exists(folder):
        raise CommandError(f'invalid output path: directory "{folder}" does not exist')
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(f"stat {path}: {_reason(error)}") from None
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise CommandError(
            f'invalid output path: "{path}" must be a directory or a regular file: got a device'
        )


def _destination_here(path: str) -> Info:
    """The links of `path` are followed; its folder must be there."""
    original = path
    for _ in range(_MOST_LINKS + 1):
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            break
        except OSError as error:
            raise CommandError(f"lstat {path}: {_reason(error)}") from None
        if not stat.S_ISLNK(mode):
            return Info(path, True, stat.S_ISDIR(mode))
        link = os.readlink(path)
        path = link if link.startswith("/") else os.path.join(split_path(path)[0], link)
    else:
        raise CommandError(f"too many symlinks in {original}")
    folder = split_path(path)[0]
    try:
        mode = os.stat(folder).st_mode
    except OSError as error:
        raise CommandError(f"stat {folder}: {_reason(error)}") from None
    if not stat.S_ISDIR(mode):
        raise CommandError("not a directory")
    return Info(path, False, False)


def _plan(source: Info, there: Info) -> tuple[str, str]:
    """The folder to unpack in, and the topmost name there ("": the source's own)."""
    if there.exists and there.is_dir:
        return there.path, ""
    if there.exists and source.is_dir:
        raise CommandError("cannot copy directory")
    if not there.exists and not source.is_dir and _asserts_folder(there.path):
        raise CommandError("no such directory")
    return split_path(there.path)


# ---------------------------------------------------------------------------------- archives


def _pack(body: Body, info: Info, name: str) -> None:
    """The file or folder `info.path` as one archive whose topmost name is `name`."""
    from dockpy.storage.pack import FOLDER, Packer, below

    packer = Packer(body.write, body.send)

    def owner(state: os.stat_result) -> tuple[int, int, int]:
        return state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)

    first = os.fsencode(name)
    if info.is_dir:
        top = os.open(info.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        state = os.fstat(top)
        packer.add(first.rstrip(b"/") + b"/", top, b".", state, owner(state))
        for path, parent, base, state in below(top):
            packer.add(first.rstrip(b"/") + b"/" + path, parent, base, state, owner(state))
    else:
        folder, base_name = os.path.split(info.path)
        parent = os.open(folder, FOLDER & ~os.O_NOFOLLOW)
        base = os.fsencode(base_name)
        state = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISREG(state.st_mode):
            os.close(
                os.open(base, os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
            )  # told before a byte is sent
        packer.add(first, parent, base, state, owner(state))
    packer.end()


def _unpack(read: Callable[[int], bytes], source: Info, destination: str) -> None:
    from dockpy.storage.untar import Place, untar

    there = _destination_here(destination)
    folder, base = _plan(source, there)
    own = os.fsencode(split_path(source.path)[1].strip("/"))
    if own == b".":
        own = b""
    new = os.fsencode(base.strip("/") if base else source.first)
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        untar(
            read,
            Place(root, "", follow=False),
            own=None,
            no_overwrite=True,
            rename=_renaming(own, new) if new else _unchanged,
        )
    finally:
        os.close(root)


def _unchanged(name: bytes) -> bytes:
    return name


def _renaming(old: bytes, new: bytes) -> Rename:
    """What puts `new` in place of `old` (b"" for the archive's root) at the beginning of a name."""

    def rename(name: bytes) -> bytes:
        if not old:
            return new + b"/" + name if name else new
        if name == old or name.startswith(old + b"/"):
            return new + name[len(old) :]
        return name

    return rename
