"""`daemon start|stop|status|logs`: this user's daemon itself."""

from __future__ import annotations

import os

from dockpy.client.errors import CommandError, Disconnected, NoDaemon
from dockpy.client.output import columns, out, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

STOP_PATIENCE = 20.0


def _own(cli: Cli) -> None:
    if not cli.own_daemon:
        raise CommandError(f"{cli.host} is not a daemon of this user's store: unset DOCKER_HOST")


def daemon_start_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    _own(cli)
    if options.many("store"):
        cli.environ = {**cli.environ, "DOCKPY_STORES": _stores(cli, options.many("store"))}
    cli.connection.request("GET", "/_ping")
    return 0


def _stores(cli: Cli, stores: list[str]) -> str:
    from dockpy.client import birth
    from dockpy.paths import Paths, store_of

    if birth.answering(Paths(store_of(cli.environ, os.geteuid()))):
        raise CommandError(
            "a daemon runs already, with the stores that it was started with: 'dockpy daemon stop' ends it, "
            "and containers go on"
        )
    for store in stores:
        if not os.access(f"{store}/images/index.json", os.R_OK):
            raise CommandError(f"{store} is not a store that can be read")
    return ":".join(os.path.abspath(store) for store in stores)


def daemon_stop_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    """Returns when nothing answers any more; that none was running is no failure."""
    import time

    _own(cli)
    endpoint = cli.connection.endpoint
    endpoint.start = False
    try:
        cli.connection.request("POST", "/dockpy/stop")
    except (NoDaemon, Disconnected):
        return 0
    cli.connection.close()
    deadline = time.monotonic() + STOP_PATIENCE
    while time.monotonic() < deadline:
        try:
            endpoint.connect().close()
        except NoDaemon:
            return 0
        time.sleep(0.01)
    raise CommandError("the daemon still answers, 20 seconds after it was told to stop")


def daemon_status_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    _own(cli)
    cli.connection.endpoint.start = False
    raw = cli.connection.get("/dockpy/status")
    if not isinstance(raw, dict):
        raise CommandError("the daemon's answer describes no daemon")
    if options.text("format"):
        from dockpy.client.commands.inspect import print_value

        print_value(raw, options.text("format"))
        return 0
    rows = [["ROLE", "PID", "CONTAINER"]]
    processes = raw.get("processes")
    for process in processes if isinstance(processes, list) else []:
        container = str(process.get("container") or "")[:12]
        rows.append([str(process.get("role")), str(process.get("pid")), container])
    out(columns(rows, 3, 10))
    return 0


def daemon_logs_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    """From the file itself, so that a daemon that cannot start can be asked why."""
    from dockpy import localdisk
    from dockpy.paths import Paths, store_of

    _own(cli)
    paths = Paths(store_of(cli.environ, os.geteuid()))
    try:
        folder = localdisk.settle(paths, cli.environ)
        fd = os.open(Paths(paths.store, folder).daemon_log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        while True:
            data = os.read(fd, 1 << 18)
            if not data:
                return 0
            write_all(1, data)
    finally:
        os.close(fd)
