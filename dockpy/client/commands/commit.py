"""What a container has changed, and what can be made of its files: `diff`, `export`, `commit`."""

from __future__ import annotations

import os

from dockpy.client.commands.archive import check_output, write_out
from dockpy.client.commands.images import split_reference
from dockpy.client.connection import quote, target
from dockpy.client.errors import CommandError
from dockpy.client.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

_KINDS = {0: "C", 1: "A", 2: "D"}


def diff_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    raw = cli.connection.get(f"/containers/{quote(arguments[0])}/changes")
    lines = []
    for change in raw if isinstance(raw, list) else ():
        if isinstance(change, dict):
            kind = change.get("Kind")
            letter = _KINDS.get(kind, "") if isinstance(kind, int) else ""
            lines.append(f"{letter} {change.get('Path')}\n")
    out("".join(lines))
    return 0


def export_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    path = options.text("output")
    check_output(path, "export container")
    if path and os.path.isdir(path):
        raise CommandError(
            f'failed to export container: invalid output path: "{path}" must be a regular file'
        )
    write_out(path, cli.connection.stream("GET", f"/containers/{quote(arguments[0])}/export"))
    return 0


def commit_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    name = arguments[1] if len(arguments) > 1 else ""
    if "@" in name:
        raise CommandError("refusing to create a tag with a digest reference")
    repository, tag = split_reference(name) if name else ("", "")
    query = target(
        "/commit",
        {
            "container": arguments[0],
            "repo": repository,
            "tag": tag or ("latest" if repository else ""),
            "comment": options.text("message"),
            "author": options.text("author"),
            "pause": "1" if options.on("pause", True) else "0",
        },
    )
    query += "".join(f"&changes={quote(change)}" for change in options.many("change"))
    raw = cli.connection.post(query)
    if not isinstance(raw, dict):
        raise CommandError("the daemon's answer names no image")
    out(f"{raw.get('Id')}\n")
    return 0
