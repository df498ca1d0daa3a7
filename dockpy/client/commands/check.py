"""`system check`: a line for each thing in the store that is not as it should be."""

from __future__ import annotations

import os

from dockpy.client import units
from dockpy.client.errors import CommandError
from dockpy.client.output import err, out
from dockpy.client.progress import objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

_CLEAR = "\r\x1b[K"


def system_check_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    """1 when something is left that is not as it should be."""
    form = options.text("format")
    if form not in ("", "json"):
        raise CommandError(f"--format {form} is not served here: the only one is json")
    repair = options.on("repair")
    terminal = os.isatty(2) and not form
    query = {name: 1 for name in ("repair", "content") if options.on(name)}
    stream = cli.connection.stream("POST", "/dockpy/check", query)
    found = left = 0
    try:
        for line in objects(stream.pieces()):
            if line.get("error"):
                raise CommandError(str(line["error"]))
            progress = line.get("progress")
            if isinstance(progress, dict):
                if terminal:
                    err(_CLEAR + _so_far(progress))
                continue
            found += 1
            left += not line.get("Repaired")
            if terminal:
                err(_CLEAR)
            out(_json(line) if form else _line(line, repair))
    finally:
        if terminal:
            err(_CLEAR)
        stream.close()
    if not form:
        err(_summary(found, left, repair))
    return 1 if left else 0


def _so_far(progress: Mapping[str, object]) -> str:
    done, total = progress.get("current"), progress.get("total")
    if not isinstance(done, int) or not isinstance(total, int):
        return ""
    return f"Checking: {units.size(done)} of {units.size(total)}"


def _json(line: Mapping[str, object]) -> str:
    from dockpy import fastjson

    return fastjson.dumps(dict(line)).decode() + "\n"


def _line(line: Mapping[str, object], repair: bool) -> str:
    text = f"{line.get('Kind')} {line.get('Subject')}: {line.get('Problem')}"
    remedy = line.get("Remedy")
    if line.get("Repaired"):
        return f"{text}; repaired: {remedy}\n"
    if line.get("Error"):
        return f"{text}; not repaired: {line['Error']}\n"
    if line.get("Automatic") and not repair:
        return f"{text}; with --repair {remedy}\n"
    return f"{text}; {remedy}\n"


def _summary(found: int, left: int, repair: bool) -> str:
    if not found:
        return "Everything is as it should be.\n"
    if repair:
        return f"{found - left} of {found} findings are repaired.\n"
    return f"{found} findings: 'dockpy system check --repair' repairs what can be.\n"
