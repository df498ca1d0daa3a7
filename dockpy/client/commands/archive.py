"""Images from and to archives, root file systems and this host: `save`, `load`, `import`, `image
from-host`.
"""

from __future__ import annotations

import os

from dockpy.client import progress, upload
from dockpy.client.commands.images import split_reference
from dockpy.client.connection import quote, target
from dockpy.client.errors import CommandError
from dockpy.client.output import out, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.connection import Stream
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def save_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    path = options.text("output")
    check_output(path, "save image")
    query = "&".join(f"names={quote(name)}" for name in arguments)
    if options.text("platform"):
        from dockpy.client import platforms

        words = options.text("platform").split(",")
        for platform in platforms.query(cli, arguments, words):
            query += f"&platform={quote(platform)}"
    write_out(path, cli.connection.stream("GET", f"/images/get?{query}"))
    return 0


def check_output(path: str, what: str) -> None:
    """Refuses, in docker's words, a `path` where no archive can appear; "" is stdout."""
    if not path and os.isatty(1):
        raise CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    folder = os.path.dirname(os.path.abspath(path))
    if path and not os.path.isdir(folder):
        raise CommandError(
            f'failed to {what}: invalid output path: directory "{folder}" does not exist'
        )


def write_out(path: str, stream: Stream) -> None:
    """An archive to `path`, or to stdout where that is ""."""
    try:
        if path:
            save_to(path, stream)
        else:
            for piece in stream.pieces():
                write_all(1, piece)
    finally:
        stream.close()


def save_to(path: str, stream: Stream) -> None:
    """The file appears whole or not at all; what is no regular file (a device, a pipe) is written
    as it is.
    """
    temporary, flags = path, os.O_WRONLY | os.O_CLOEXEC
    if os.path.isfile(path) or not os.path.exists(path):
        temporary, flags = f"{path}.{os.getpid()}.tmp", flags | os.O_CREAT | os.O_EXCL
    try:
        fd = os.open(temporary, flags, 0o600)
    except OSError as error:
        raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from None
    try:
        try:
            for piece in stream.pieces():
                write_all(fd, piece)
        finally:
            os.close(fd)
        if temporary != path:
            os.rename(temporary, path)
    except BaseException:
        if temporary != path:
            os.unlink(temporary)
        raise


def _source(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from None
    if os.path.isdir(fd):
        raise CommandError(f"read {path}: is a directory")
    return fd


def load_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    path = options.text("input")
    if not path and os.isatty(0):
        raise CommandError("requested load from stdin, but stdin is empty")
    fd = _source(path) if path else 0
    quiet = options.on("quiet") or not os.isatty(1)
    query: dict[str, object] = {"quiet": quiet}
    if options.text("platform"):
        from dockpy.client import platforms

        query["platform"] = platforms.query_of_archive(cli, options.text("platform"))
    lent = upload.lend(cli.connection, "/images/load", query, fd)
    if lent is not None:
        progress.show(lent, 1)
        return 0
    stream = upload.post(cli.connection, target("/images/load", query), fd)
    try:
        progress.show(stream.pieces(), 1)
    finally:
        stream.close()
    return 0


def import_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    source = arguments[0]
    repository, tag = split_reference(arguments[1]) if len(arguments) > 1 else ("", "")
    query = target(
        "/images/create",
        {
            "fromSrc": source if "://" in source else "-",
            "repo": repository,
            "tag": tag,
            "message": options.text("message"),
            "platform": options.text("platform"),
        },
    )
    query += "".join(f"&changes={quote(change)}" for change in options.many("change"))
    if "://" in source:
        stream = cli.connection.stream("POST", query)
    else:
        stream = upload.post(cli.connection, query, 0 if source == "-" else _source(source))
    try:
        progress.show(stream.pieces(), 1)
    finally:
        stream.close()
    return 0


def image_from_host_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    paths = [os.path.abspath(path) if "/" in path else path for path in arguments[1:]]
    query: dict[str, object] = {"name": arguments[0]}
    stream = cli.connection.stream("POST", "/dockpy/image-from-host", query, json={"paths": paths})
    try:
        seen = progress.show(stream.pieces(), 1)
    finally:
        stream.close()
    if not seen:
        out(f"{arguments[0]}\n")
    return 0
