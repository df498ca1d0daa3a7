"""`logs`: what a container wrote, and with --follow what it goes on to write."""

from __future__ import annotations

from dockpy.client import units
from dockpy.client.connection import quote
from dockpy.client.errors import CommandError
from dockpy.client.output import write_all
from dockpy.http.stdcopy import STDERR, FrameReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def logs_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    path = f"/containers/{quote(arguments[0])}"
    query: dict[str, object] = {
        "stdout": True,
        "stderr": True,
        "follow": options.on("follow"),
        "timestamps": options.on("timestamps"),
        "details": options.on("details"),
        "tail": options.text("tail", "all"),
    }
    for name in ("since", "until"):
        if options.text(name):
            query[name] = _moment(name, options.text(name))
    raw = cli.connection.get(f"{path}/json")
    config = raw.get("Config") if isinstance(raw, dict) else None
    tty = isinstance(config, dict) and bool(config.get("Tty"))
    stream = cli.connection.stream("GET", f"{path}/logs", query)
    frames = FrameReader()
    for piece in stream.pieces():
        if tty:
            write_all(1, piece)
            continue
        for number, data in frames.feed_grouped(piece):
            write_all(2 if number >= STDERR else 1, data)
    stream.close()
    return 0


def _moment(name: str, text: str) -> str:
    import time

    try:
        return units.timestamp(text, time.time())
    except ValueError as error:
        raise CommandError(f'invalid value for "{name}": {error}') from None
