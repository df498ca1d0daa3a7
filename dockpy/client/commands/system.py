"""`version` and `info`."""

from __future__ import annotations

import os
import sys

from dockpy import API_VERSION, __version__
from dockpy.client import units
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import err, out
from dockpy.errors import DockpyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

_ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
}


def version_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    machine = os.uname().machine
    client = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "PythonVersion": ".".join(map(str, sys.version_info[:3])),
        "Os": "linux",
        "Arch": _ARCH.get(machine, machine),
        "Context": "default",
    }
    server: object = None
    failure: DockpyError | None = None
    try:
        server = cli.connection.get("/version")
    except DockpyError as error:
        failure = error
    if options.text("format"):
        from dockpy.client.commands.inspect import print_value

        sides = {"Client": client, "Server": server}
        if options.text("format") != "json":  # templates see docker's Go names
            sides = {name: _with_go_names(side) for name, side in sides.items()}
        print_value(sides, options.text("format"))
    else:
        out(_version_text(client, server))
    if failure is not None:
        raise CommandError(str(failure))
    return 0


def _with_go_names(side: object) -> object:
    if not isinstance(side, dict):
        return side
    return {
        **side,
        "APIVersion": side.get("ApiVersion"),
        "MinAPIVersion": side.get("MinAPIVersion"),
    }


def _version_text(client: Mapping[str, str], server: object) -> str:
    lines = ["Client:"]
    for title, key in (
        ("Version", "Version"),
        ("API version", "ApiVersion"),
        ("Python version", "PythonVersion"),
    ):
        lines.append(f" {title + ':':<18} {client[key]}")
    lines.append(f" {'OS/Arch:':<18} {client['Os']}/{client['Arch']}")
    lines.append(f" {'Context:':<18} {client['Context']}")
    if isinstance(server, dict):
        platform = server.get("Platform")
        name = platform.get("Name") if isinstance(platform, dict) else ""
        lines += ["", f"Server: {name}".rstrip()]
        components = server.get("Components")
        for component in components if isinstance(components, list) else []:
            lines += _component(component)
    return "\n".join(lines) + "\n"


def _component(component: dict[str, object]) -> list[str]:
    details = component.get("Details")
    table = details if isinstance(details, dict) else {}
    lines = [f" {component.get('Name')}:", f"  {'Version:':<17} {component.get('Version')}"]
    if component.get("Name") == "Engine":
        lines.append(
            f"  {'API version:':<17} {table.get('ApiVersion')} (minimum version {table.get('MinAPIVersion')})"
        )
        for title, key in (
            ("Go version", "GoVersion"),
            ("Python version", "PythonVersion"),
            ("Git commit", "GitCommit"),
            ("Built", "BuildTime"),
        ):
            if table.get(key):
                lines.append(f"  {title + ':':<17} {table[key]}")
        lines.append(f"  {'OS/Arch:':<17} {table.get('Os')}/{table.get('Arch')}")
        lines.append(f"  {'Experimental:':<17} {table.get('Experimental', 'false')}")
    else:
        lines += [f"  {key + ':':<17} {value}" for key, value in table.items()]
    return lines


def info_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    client = {
        "Debug": cli.debug,
        "Context": "default",
        "Version": __version__,
        "Plugins": [],
        "Warnings": None,
    }
    failure = ""
    server: object = None
    try:
        server = cli.connection.get("/info")
    except ApiError:
        raise
    except DockpyError as error:
        failure = str(error)
    if options.text("format"):
        from dockpy.client.commands.inspect import print_value

        value = {**(server if isinstance(server, dict) else {}), "ClientInfo": client}
        if failure:
            value["ServerErrors"] = [failure]
        print_value(value, options.text("format"))
        if failure:
            raise CommandError(failure)
        return 0
    out(
        f"Client:\n Version:    {__version__}\n Context:    default\n Debug Mode: {str(cli.debug).lower()}\n\nServer:\n"
    )
    if not isinstance(server, dict):
        err(f"ERROR: {failure}\nerrors pretty printing info\n")
        return 1
    out("\n".join(_info_lines(server)) + "\n")
    warnings = server.get("Warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        err(f"{warning}\n")
    return 0


def _info_lines(info: dict[str, object]) -> list[str]:
    lines = []
    for title, key, indent in (
        ("Containers", "Containers", 1),
        ("Running", "ContainersRunning", 2),
        ("Paused", "ContainersPaused", 2),
        ("Stopped", "ContainersStopped", 2),
        ("Images", "Images", 1),
        ("Server Version", "ServerVersion", 1),
        ("Storage Driver", "Driver", 1),
    ):
        lines.append(f"{' ' * indent}{title}: {info.get(key, '')}")
    status = info.get("DriverStatus")
    lines += [f"  {pair[0]}: {pair[1]}" for pair in (status if isinstance(status, list) else [])]
    for title, key in (
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ):
        if info.get(key):
            lines.append(f" {title}: {info[key]}")
    plugins = info.get("Plugins")
    if isinstance(plugins, dict):
        lines.append(" Plugins:")
        for kind in ("Volume", "Network", "Authorization", "Log"):
            if plugins.get(kind):
                lines.append(f"  {kind}: {' '.join(plugins[kind])}")
    runtimes = info.get("Runtimes")
    if isinstance(runtimes, dict):
        lines.append(f" Runtimes: {' '.join(sorted(runtimes))}")
    options = info.get("SecurityOptions")
    if isinstance(options, list) and options:
        lines.append(" Security Options:")
        for option in options:
            fields = dict(part.partition("=")[::2] for part in str(option).split(","))
            lines.append(f"  {fields.pop('name', option)}")
            lines += [f"   {name.capitalize()}: {value}" for name, value in fields.items()]
    for title, key in (
        ("Default Runtime", "DefaultRuntime"),
        ("Init Binary", "InitBinary"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ):
        if info.get(key):
            lines.append(f" {title}: {info[key]}")
    memory = info.get("MemTotal")
    if isinstance(memory, int):
        lines.append(f" Total Memory: {binary_size(memory)}")
    for title, key in (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")):
        if info.get(key):
            lines.append(f" {title}: {info[key]}")
    lines.append(f" Debug Mode: {str(bool(info.get('Debug'))).lower()}")
    lines.append(f" Experimental: {str(bool(info.get('ExperimentalBuild'))).lower()}")
    lines.append(f" Live Restore Enabled: {str(bool(info.get('LiveRestoreEnabled'))).lower()}")
    return lines


def binary_size(count: float) -> str:
    names = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    at = 0
    while count >= 1024 and at < len(names) - 1:
        count /= 1024
        at += 1
    return f"{units.significant(count, 4)}{names[at]}"
