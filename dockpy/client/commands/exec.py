"""`exec`: one more process in a running container."""

from __future__ import annotations

from dockpy.client import key_values, terminal
from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.hijack import Attachment
from dockpy.client.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.connection import Connection
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

CHECKS = {"env": key_values.check_env}
EXIT_PATIENCE = 10.0


def exec_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    connection = cli.connection
    tty, stdin, detach = options.on("tty"), options.on("interactive"), options.on("detach")
    keys, detach_bytes = terminal.detaching(options.text("detach-keys"), cli.config)
    if tty and stdin and not detach and not terminal.is_terminal(0):
        connection.get(
            f"/containers/{quote(arguments[0])}/json"
        )  # that it is not there comes first
        raise CommandError("the input device is not a TTY")
    body: dict[str, object] = {"Cmd": arguments[1:]}
    if not detach:
        body.update({"AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True})
    for flag, field in (("user", "User"), ("workdir", "WorkingDir")):
        if options.text(flag):
            body[field] = options.text(flag)
    for flag, field in (("tty", "Tty"), ("privileged", "Privileged")):
        if options.on(flag):
            body[field] = True
    env = key_values.environment(options.many("env-file"), options.many("env"), cli.environ)
    if env:
        body["Env"] = env
    if cli.own_daemon or keys != terminal.DEFAULT_DETACH_KEYS:
        body["DetachKeys"] = keys
    size = terminal.size(1) if tty else None
    if size is not None:
        body["ConsoleSize"] = list(size)
    reply = connection.post(f"/containers/{quote(arguments[0])}/exec", json=body)
    if not isinstance(reply, dict) or not isinstance(reply.get("Id"), str):
        raise CommandError("the daemon's answer names no exec")
    exec_id = str(reply["Id"])
    start: dict[str, object] = {"Detach": detach, "Tty": tty}
    if size is not None:
        start["ConsoleSize"] = list(size)
    if detach:
        connection.request("POST", f"/exec/{exec_id}/start", json=start)
        return 0
    attachment = Attachment(
        connection,
        f"/exec/{exec_id}/start",
        {"exit": cli.own_daemon},
        json=start,
        stdin=stdin,
        stdout=True,
        stderr=True,
        tty=tty,
        keys=detach_bytes,
        fresh=not cli.own_daemon,
    )
    try:
        attached = Session(
            connection,
            attachment,
            None,
            resize_path=f"/exec/{exec_id}/resize",
            raw=tty and stdin,
            follow_size=tty and terminal.is_terminal(1),
        )
    except ApiError as error:
        raise CommandError(str(error), _start_code(error.message)) from None
    attached.run(lambda: None, size if cli.own_daemon else None)
    if attached.detached:
        raise CommandError("read escape sequence")  # as docker: 1, where run and start -a say 0
    if attached.lost_output:
        return 1  # it has been said
    # Two requests on one connection instead of three on two: 1 ms of 25.
    code = attached.exit_code
    return _exit_code(connection, exec_id) if code is None else code


def _start_code(message: str) -> int:
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    return 126 if "permission denied" in message or "is a directory" in message else 1


def _exit_code(connection: Connection, exec_id: str) -> int:
    """The code stands in the daemon's record; the stream may end a moment before it does."""
    import time

    deadline, pause = time.monotonic() + EXIT_PATIENCE, 0.001
    while True:
        raw = connection.get(f"/exec/{exec_id}/json")
        if not isinstance(raw, dict):
            raise CommandError("the daemon's answer describes no exec")
        code = raw.get("ExitCode")
        if isinstance(code, int) and not raw.get("Running"):
            return code
        if time.monotonic() > deadline:
            return 1
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
