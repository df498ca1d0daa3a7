"""`logs`: what a container wrote, and with --follow what it goes on to write, also when the daemon dies."""

from __future__ import annotations

from dockpy.client import units
from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError, Disconnected
from dockpy.client.output import write_all
from dockpy.errors import DockpyError
from dockpy.http.stdcopy import STDERR, FrameReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.connection import Stream
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

PATIENCE = 15.0  # for a daemon that is started anew
UNAVAILABLE = 503


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
    written = [0, 0, 0]  # by descriptor
    while True:
        stream = cli.connection.stream("GET", f"{path}/logs", query)
        try:
            _copy(stream, tty, written)
            return 0
        except Disconnected:
            # The daemon is gone, the log is not: the next one tells it from the start. A tail
            # would start elsewhere by now.
            if not query["follow"] or query["tail"] != "all" or not cli.own_daemon:
                raise
        await_daemon(cli, f"{path}/json")


def _copy(stream: Stream, tty: bool, written: list[int]) -> None:
    """All but what has been written before."""
    skip = list(written)
    frames = FrameReader()
    try:
        while True:
            try:
                piece = stream.piece()
            except OSError as error:
                raise Disconnected(f"the daemon went away: {error.strerror}") from None
            if not piece:
                return
            for number, data in [(1, piece)] if tty else frames.feed_grouped(piece):
                fd = 2 if number >= STDERR else 1
                known = min(skip[fd], len(data))
                skip[fd] -= known
                write_all(fd, data[known:])
                written[fd] += len(data) - known
    finally:
        stream.close()


def await_daemon(cli: Cli, path: str) -> None:
    """Until a daemon answers there."""
    import time

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            cli.connection.get(path)
            return
        except (DockpyError, OSError) as error:
            final = isinstance(error, ApiError) and error.status != UNAVAILABLE
            if final or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _moment(name: str, text: str) -> str:
    import time

    try:
        return units.timestamp(text, time.time())
    except ValueError as error:
        raise CommandError(f'invalid value for "{name}": {error}') from None
