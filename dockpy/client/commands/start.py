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
    keys, detach = terminal.detaching(options.text("detach-keys"), cli.config)
    if options.on("attach") or options.on("interactive"):
        if len(arguments) > 1:
            raise CommandError("you cannot start and attach multiple containers at once")
        return _attached(cli, options, arguments[0], keys, detach)
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


def _attached(cli: Cli, options: Options, name: str, keys: str, detach: bytes) -> int:
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
    waiter = Waiter(connection, container, "removed" if removed else "next-exit")
    attached = session.of_container(
        connection, container, attachment, waiter, tty=tty, stdin=stdin, sig_proxy=not tty
    )

    def begin() -> None:
        try:
            session.start(connection, container)
        except DockpyError as error:
            raise CommandError(str(error)) from None

    attached.run(begin)
    if attached.detached:
        return 0
    if waiter.message:
        raise CommandError(f"Error waiting for container: {waiter.message}", 125)
    if attached.lost_output:
        return 1  # it has been said
    return waiter.status if waiter.status >= 0 else 125
