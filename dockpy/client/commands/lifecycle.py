"""Verbs on named containers: wait stop restart kill rm pause unpause; and rename, port, top."""

from __future__ import annotations

from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import columns, err, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def each(names: list[str], act: Callable[[str], str]) -> int:
    """`act` for every name, told one by one; 1 when any of them failed, after all had their turn."""
    code = 0
    for name in names:
        try:
            out(act(name) + "\n")
        except ApiError as error:
            err(f"{error}\n")
            code = 1
    return code


def _posts(cli: Cli, verb: str, query: dict[str, object] | None = None) -> Callable[[str], str]:
    def act(name: str) -> str:
        cli.connection.request("POST", f"/containers/{quote(name)}/{verb}", query)
        return name

    return act


def wait_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    from dockpy.client.hijack import Waiter

    def act(name: str) -> str:
        waiter = Waiter(cli.connection, quote(name), "not-running")
        waiter.begun()
        while not waiter.over:
            waiter.receive()
        if waiter.status < 0:
            raise ApiError(500, waiter.message or "the answer holds no exit code")
        return str(waiter.status)

    return each(arguments, act)


def _stop_query(options: Options) -> dict[str, object]:
    query: dict[str, object] = {"signal": options.text("signal")}
    for name in ("time", "timeout"):
        if options.given(name):
            query["t"] = str(options.number(name))
    return query


def stop_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    return each(arguments, _posts(cli, "stop", _stop_query(options)))


def restart_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    return each(arguments, _posts(cli, "restart", _stop_query(options)))


def kill_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    return each(arguments, _posts(cli, "kill", {"signal": options.text("signal") or "KILL"}))


def pause_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    return each(arguments, _posts(cli, "pause"))


def unpause_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    return each(arguments, _posts(cli, "unpause"))


def rm_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    if options.on("link"):
        raise CommandError(
            "--link is not served by this build: container networks are not there yet", 125
        )
    force = options.on("force")
    query: dict[str, object] = {"v": options.on("volumes"), "force": force}

    def act(name: str) -> str:
        name = name.strip("/")
        if not name:
            raise ApiError(400, "Container name cannot be empty")
        cli.connection.request("DELETE", f"/containers/{quote(name)}", query)
        return name

    code = 0
    for name in arguments:
        try:
            out(act(name) + "\n")
        except ApiError as error:
            err(f"{error}\n")
            if not (force and error.status == 404):  # what is not there need not be removed
                code = 1
    return code


def rename_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    old, new = (word.strip() for word in arguments)
    if not old or not new:
        raise CommandError("Error: Neither old nor new names may be empty")
    cli.connection.request("POST", f"/containers/{quote(old)}/rename", {"name": new})
    return 0


def top_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    query: dict[str, object] = {"ps_args": " ".join(arguments[1:])}
    raw = cli.connection.get(f"/containers/{quote(arguments[0])}/top", query)
    if not isinstance(raw, dict):
        raise CommandError("the daemon's answer lists no processes")
    titles, processes = raw.get("Titles") or [], raw.get("Processes") or []
    rows = [[str(cell) for cell in row] for row in [titles, *processes]]
    out(columns(rows, 3, 20))
    return 0


def port_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    raw = cli.connection.get(f"/containers/{quote(arguments[0])}/json")
    settings = raw.get("NetworkSettings") if isinstance(raw, dict) else None
    ports = settings.get("Ports") if isinstance(settings, dict) else None
    table = ports if isinstance(ports, dict) else {}
    if len(arguments) > 1:
        number, _, protocol = arguments[1].partition("/")
        if not number.isdigit():
            raise CommandError(f"Error: invalid port ({arguments[1]})")
        bindings = table.get(f"{number}/{protocol or 'tcp'}")
        if not bindings:
            raise CommandError(
                f"Error: No public port '{number}/{protocol or 'tcp'}' published for {arguments[0]}"
            )
        out("".join(f"{_address(binding)}\n" for binding in bindings))
        return 0
    lines = [
        f"{port} -> {_address(binding)}\n"
        for port, found in table.items()
        for binding in found or []
    ]
    out("".join(sorted(lines)))
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding.get("HostIp", "")
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{binding.get('HostPort', '')}"
