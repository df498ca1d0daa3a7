"""`start`: many containers at once, or one with its streams attached."""

from __future__ import annotations

from dockpy.client import session, terminal
from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.hijack import Waiter
from dockpy.client.output import err, out
from dockpy.errors import DockpyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def start_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    if options.given("checkpoint") or options.given("checkpoint-dir"):
        raise CommandError("--checkpoint is not served by this build: it needs CRIU", 125)
    if options.on("attach") or options.on("interactive"):
        if len(arguments) > 1:
            raise CommandError("you cannot start and attach multiple containers at once")
        return _attached(cli, options, arguments[0])
    failed = []
    for name in arguments:
        try:
            session.start(cli.connection, name)
        except ApiError as error:
            err(f"{error}\n")
            failed.append(name)
        else:
            out(f"{name}\n")
    if failed:
        raise CommandError(f"failed to start containers: {', '.join(failed)}")
    return 0


def _attached(cli: Cli, options: Options, name: str) -> int:
    connection = cli.connection
    raw = connection.get(f"/containers/{quote(name)}/json")
    config = raw.get("Config") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(config, dict):
        raise CommandError("the daemon's answer describes no container")
    container = str(raw.get("Id"))
    host = raw.get("HostConfig")
    removed = isinstance(host, dict) and bool(host.get("AutoRemove"))
    tty = bool(config.get("Tty"))
    stdin = options.on("interactive") and bool(config.get("OpenStdin"))
    keys = terminal.chosen_keys(options.text("detach-keys"), cli.config)
    if tty and stdin and not terminal.is_terminal(0):
        raise CommandError("the input device is not a TTY")
    attachment = session.attach(
        connection,
        container,
        stdin=stdin,
        stdout=True,
        stderr=True,
        tty=tty,
        keys=keys,
        detach=terminal.detach_keys(keys),
    )
    waiter = Waiter(connection, container, "removed" if removed else "next-exit")
    attached = session.of_container(
        connection, container, attachment, waiter, tty=tty, stdin=stdin, sig_proxy=True
    )

    def begin() -> None:
        try:
            session.start(connection, container)
        except DockpyError as error:
            raise CommandError(str(error)) from None

    attached.run(begin)
    return 0 if attached.detached else max(waiter.status, 0)
