"""`run` and `create`: create, attach, wait, start, in this order; and docker's exit codes."""

from __future__ import annotations

import os

from dockpy.client import create_body, key_values, terminal
from dockpy.client.connection import target
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import err, out
from dockpy.errors import DockpyError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

CHECKS = create_body.CHECKS
_BUILTIN = ("dockpy.builtin/", "docker.io/dockpy.builtin/")
_PULL = ("always", "missing", "never", "")


def create_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    try:
        container, _ = _create(cli, options, arguments, None)
    except (ApiError, Unavailable) as error:
        raise CommandError(str(error)) from None  # 125 is for what the client itself refuses
    out(f"{container}\n")
    return 0


def run_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    keys, detach = terminal.detaching(options.text("detach-keys"), cli.config, 125)
    tty = options.on("tty")
    size = terminal.size(1) if tty else None
    if options.on("detach"):
        container, _ = _create(cli, options, arguments, size)
        _start(cli, options, container)
        out(f"{container}\n")
        return 0
    _check_terminal(options, tty)
    container, body = _create(cli, options, arguments, size, meanwhile=_load_session)
    from dockpy.client import session
    from dockpy.client.hijack import Waiter

    connection = cli.connection
    waiter = Waiter(connection, container, "removed" if options.on("rm") else "next-exit")
    stdin = bool(body.get("AttachStdin"))
    attachment = session.attach(
        connection,
        container,
        stdin=stdin,
        stdout=bool(body.get("AttachStdout")),
        stderr=bool(body.get("AttachStderr")),
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
        sig_proxy=options.on("sig-proxy", True),
    )
    attached.run(lambda: _start(cli, options, container), size if cli.own_daemon else None)
    if attached.detached:
        return 0
    if waiter.message:
        raise CommandError(f"Error response from daemon: {waiter.message}", 125)
    if attached.lost_output:
        return 1  # it has been said
    return waiter.status if waiter.status >= 0 else 125


def _load_session() -> None:
    """As long as the daemon creates the container; who leaves it alone needs nothing of that."""
    import dockpy.client.session  # noqa: F401  # for later


def _check_terminal(options: Options, tty: bool) -> None:
    attached = options.many("attach")
    stdin = options.on("interactive") or any(word.lower() == "stdin" for word in attached)
    if tty and stdin and not terminal.is_terminal(0):
        raise CommandError("the input device is not a TTY", 1)


def _start(cli: Cli, options: Options, container: str) -> None:
    try:
        cli.connection.request("POST", f"/containers/{container}/start")
    except ApiError as error:
        if options.on("rm"):
            _await_removal(cli, container)
        raise CommandError(str(error), _start_code(error.message)) from None


def _await_removal(cli: Cli, container: str) -> None:
    """A container that could not start is removed by the daemon; whoever looks next shall not meet
    it.
    """
    try:
        cli.connection.request("DELETE", f"/containers/{container}", {"force": True, "v": True})
    except (DockpyError, OSError):
        pass  # the daemon was faster


def _start_code(message: str) -> int:
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    if "permission denied" in message or "is a directory" in message:
        return 126
    return 125


def _create(
    cli: Cli,
    options: Options,
    arguments: list[str],
    size: tuple[int, int] | None,
    meanwhile: Callable[[], object] | None = None,
) -> tuple[str, dict[str, object]]:
    """(id, body). Pulls once where the daemon does not have the image and the policy allows.

    `meanwhile`: as Connection.request.
    """
    policy = options.text("pull", "missing")
    if policy not in _PULL:
        raise CommandError(
            f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"', 125
        )
    if cli.own_daemon:
        create_body.refuse_unserved(options)
    elif options.on("lease") or options.given("timeout"):
        raise CommandError(
            "--lease and --timeout are dockpy's own: another daemon ignores them", 125
        )
    image = arguments[0]
    proxies = (
        key_values.proxies(cli.config, cli.host or "default") if "proxies" in cli.config else None
    )
    body = create_body.container_create(
        options, image, arguments[1:], cli.environ, proxies=proxies, console_size=size
    )
    platform = options.text("platform") or cli.environ.get("DOCKER_DEFAULT_PLATFORM", "")
    where = target("/containers/create", {"name": options.text("name"), "platform": platform})
    cidfile = options.text("cidfile")
    if cidfile:
        _claim(cidfile, 1 if cli.spelled.endswith("create") else 125)
    try:
        if policy == "always" and not image.startswith(_BUILTIN):
            _pull(cli, image, platform, quiet=options.on("quiet"))
        try:
            reply = cli.connection.post(where, json=body, meanwhile=meanwhile)
        except ApiError as error:
            missing = error.status == 404 and "image" in error.message.lower()
            if not missing or policy != "missing":
                raise
            if not options.on("quiet"):
                err(f"Unable to find image '{_tagged(image)}' locally\n")
            _pull(cli, image, platform, quiet=options.on("quiet"))
            reply = cli.connection.post(where, json=body)
        if not isinstance(reply, dict) or not isinstance(reply.get("Id"), str):
            raise CommandError("the daemon's answer names no container", 125)
        container = str(reply["Id"])
        if cidfile:
            with open(cidfile, "w", encoding="ascii") as file:
                file.write(container)
    except BaseException:
        if cidfile:
            os.unlink(cidfile)
        raise
    warnings = reply.get("Warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        err(f"WARNING: {warning}\n")
    return container, body


def _claim(path: str, code: int) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except FileExistsError:
        raise CommandError(
            f"container ID file found, make sure the other container isn't running or delete {path}",
            code,
        ) from None
    except OSError as error:
        raise CommandError(
            f"failed to create the container ID file: open {path}: {error.strerror}", code
        ) from None


def _tagged(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def _pull(cli: Cli, image: str, platform: str, *, quiet: bool) -> None:
    from dockpy.client import progress

    progress.pull(cli, image, platform, to=2, quiet=quiet)
