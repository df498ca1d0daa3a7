"""`attach`: this terminal's streams on a container that runs."""

from __future__ import annotations

from dockpy.client import session, terminal
from dockpy.client.connection import quote
from dockpy.client.errors import CommandError
from dockpy.client.hijack import Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def attach_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    keys, detach = terminal.detaching(options.text("detach-keys"), cli.config)
    name, connection = arguments[0], cli.connection
    raw = connection.get(f"/containers/{quote(name)}/json")
    state = raw.get("State") if isinstance(raw, dict) else None
    config = raw.get("Config") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(state, dict) or not isinstance(config, dict):
        raise CommandError("the daemon's answer describes no container")
    for field, text in (
        ("Paused", "cannot attach to a paused container, unpause it first"),
        ("Restarting", "cannot attach to a restarting container, wait until it is running"),
    ):
        if state.get(field):
            raise CommandError(text)
    if not state.get("Running"):
        raise CommandError("cannot attach to a stopped container, start it first")
    container = str(raw.get("Id"))
    tty = bool(config.get("Tty"))
    stdin = not options.on("no-stdin") and bool(config.get("OpenStdin"))
    if tty and stdin and not terminal.is_terminal(0):
        raise CommandError("the input device is not a TTY")
    waiter = Waiter(connection, container, "not-running")
    attachment = session.attach(
        connection,
        container,
        stdin=stdin,
        stdout=True,
        stderr=True,
        tty=tty,
        keys=keys,
        detach=detach,
    )
    attached = session.of_container(
        connection,
        container,
        attachment,
        waiter,
        tty=tty,
        stdin=stdin,
        sig_proxy=options.on("sig-proxy", True) and not tty,
    )
    attached.run(lambda: None)
    if attached.detached:
        raise CommandError("read escape sequence")  # as docker: 1, where run and start -a say 0
    if waiter.message:
        raise CommandError(waiter.message)
    if attached.lost_output:
        return 1  # it has been said
    return max(waiter.status, 0)
