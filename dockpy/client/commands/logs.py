"""`logs`: what a container wrote, and with --follow what it goes on to write, also when the daemon dies."""

from __future__ import annotations

from dockpy.client import units
from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError, Disconnected
from dockpy.client.output import write_all
from dockpy.errors import DockpyError
from dockpy.http.stdcopy import MARK, STDERR, SYSTEM_ERROR, FrameReader

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
    copy = _Copy(framed=cli.own_daemon or not tty)
    if cli.own_daemon:
        query["marks"] = True
    while True:
        begun = False
        try:
            stream = cli.connection.stream("GET", f"{path}/logs", query)
            begun = True
            copy.run(stream)
            return 0
        except (Disconnected, ApiError) as error:
            # The daemon is gone, the log is not: the next one goes on where this one stood. It may
            # also have died while it was asked, or the keeper says that it is being made again.
            gone = not isinstance(error, ApiError) or error.status == UNAVAILABLE
            if not gone or not query["follow"] or not cli.own_daemon:
                raise
        await_daemon(cli, f"{path}/json")
        if begun:
            query["mark"], query["tail"] = copy.mark, "all"


class _Copy:
    """Writes a log to stdout and stderr, and knows where to go on when the connection breaks."""

    def __init__(self, *, framed: bool) -> None:
        self._framed = framed
        self.mark = ""  # the last place that our own daemon has named
        self._since = [0, 0, 0]  # bytes written since, by descriptor

    def run(self, stream: Stream) -> None:
        """To the end of the answer; Disconnected when it breaks off."""
        skip = self._since
        asked, self._since = self.mark, [0, 0, 0]
        frames = FrameReader()
        said = trouble = b""
        try:
            while True:
                try:
                    piece = stream.piece()
                except OSError as error:
                    raise Disconnected(f"the daemon went away: {error.strerror}") from None
                if not piece:
                    break
                for number, data in frames.feed_grouped(piece) if self._framed else [(1, piece)]:
                    if number == MARK:
                        said += data
                        while b"\n" in said:
                            place, _, said = said.partition(b"\n")
                            if asked and place.decode() != asked:
                                skip = [0, 0, 0]  # the place is gone: what comes is what is left
                            asked, self.mark, self._since = "", place.decode(), [0, 0, 0]
                        continue
                    if number == SYSTEM_ERROR:
                        trouble += data
                        continue
                    fd = 2 if number == STDERR else 1
                    known = min(skip[fd], len(data))
                    skip[fd] -= known
                    write_all(fd, data[known:])
                    self._since[fd] += len(data)
        finally:
            stream.close()
        if trouble:
            raise CommandError(f"error from daemon in stream: {trouble.decode().rstrip()}")


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
