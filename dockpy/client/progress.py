"""JSON lines of a long operation (pull, load, import), told as docker tells them to a pipe."""

from __future__ import annotations

from dockpy import fastjson
from dockpy.client.errors import CommandError
from dockpy.client.output import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dockpy.client.main import Cli

MAX_LINE = 1 << 20


def objects(pieces: Iterable[bytes]) -> Iterator[dict[str, object]]:
    """One JSON object a line."""
    rest = b""
    for piece in pieces:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_LINE:
            raise CommandError("a progress line of the daemon does not end")
        for line in lines:
            if line.strip():
                yield _object(line)
    if rest.strip():
        yield _object(rest)


def _object(line: bytes) -> dict[str, object]:
    try:
        raw = fastjson.loads(line)
    except ValueError:
        raise CommandError("a progress line of the daemon is not JSON") from None
    return raw if isinstance(raw, dict) else {}


def show(pieces: Iterable[bytes], fd: int, *, quiet: bool = False) -> list[dict[str, object]]:
    """Writes the lines to `fd` and returns all objects; CommandError where one tells of a failure."""
    seen = []
    for line in objects(pieces):
        detail = line.get("errorDetail")
        failure = detail.get("message") if isinstance(detail, dict) else line.get("error")
        if failure:
            raise CommandError(str(failure))
        seen.append(line)
        text = line.get("stream")
        if isinstance(text, str) and not quiet:
            write_all(fd, text.encode("utf-8", "replace"))
        status = line.get("status")
        if isinstance(status, str) and not quiet and not line.get("progressDetail"):
            name = line.get("id")
            write_all(fd, f"{name}: {status}\n".encode() if name else f"{status}\n".encode())
    return seen


def pull(
    cli: Cli, image: str, platform: str, *, to: int, quiet: bool, all_tags: bool = False
) -> None:
    name, tag = image, ""
    if "@" in image:
        name, _, tag = image.partition("@")
    elif not all_tags:
        head, colon, last = image.rpartition(":")
        name, tag = (head, last) if colon and "/" not in last else (image, "latest")
    query: dict[str, object] = {"fromImage": name, "tag": tag, "platform": platform}
    from dockpy.client import credentials

    who = credentials.headers(cli, image)
    stream = cli.connection.stream("POST", "/images/create", query, headers=who)
    try:
        show(stream.pieces(), to, quiet=quiet)
    finally:
        stream.close()
