"""JSON lines of a long operation (pull, load, import), told as docker tells them to a pipe, or to a terminal."""

from __future__ import annotations

from dockpy import fastjson
from dockpy.client.errors import CommandError
from dockpy.client.output import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dockpy.client.livelines import LiveLines
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
    live = None if quiet else _live(fd)
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
        if not isinstance(status, str) or quiet:
            continue
        if live is not None:
            live.show(line)
        elif not line.get("progressDetail"):
            name = line.get("id")
            write_all(fd, f"{name}: {status}\n".encode() if name else f"{status}\n".encode())
    return seen


def _live(fd: int) -> LiveLines | None:
    from dockpy.client import terminal

    if not terminal.is_terminal(fd):
        return None
    from dockpy.client.livelines import LiveLines

    return LiveLines(fd, (terminal.size(fd) or (24, 80))[1])


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

    headers = {**credentials.headers(cli, image), **proxies(cli)}
    stream = cli.connection.stream("POST", "/images/create", query, headers=headers)
    try:
        show(stream.pieces(), to, quiet=quiet)
    finally:
        stream.close()


def proxies(cli: Cli) -> dict[str, str]:
    """The person's proxies for our own daemon, which has no environment of theirs: a header, or none."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    found = {name: cli.environ.get(name) or cli.environ.get(name.lower(), "") for name in names}
    if not cli.own_daemon or not (found["HTTP_PROXY"] or found["HTTPS_PROXY"]):
        return {}
    from binascii import b2a_base64

    text = b2a_base64(fastjson.dumps(found), newline=False).decode()
    return {"X-Dockpy-Proxies": text.replace("+", "-").replace("/", "_")}
