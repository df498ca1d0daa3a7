"""`system limit`: how much disk images may take."""

from __future__ import annotations

from dockpy.client import units
from dockpy.client.errors import CommandError
from dockpy.client.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def system_limit_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    if arguments:
        raw = cli.connection.post("/dockpy/limit", json={"Limit": _bytes(arguments[0])})
    else:
        raw = cli.connection.get("/dockpy/limit")
    if not isinstance(raw, dict):
        raise CommandError("the daemon's answer tells of no limit")
    limit, used = raw.get("Limit"), raw.get("Used")
    told = units.size(limit) if isinstance(limit, int) else "none"
    out(f"Limit: {told}\nImages: {units.size(used if isinstance(used, int) else 0)}\n")
    return 0


def _bytes(text: str) -> int | None:
    if text == "none":
        return None
    try:
        size = units.ram_bytes(text)
    except ValueError as error:
        raise CommandError(f"{error}; a size is such as 20G, or 'none'") from None
    if size <= 0:  # no limit, where docker has such a value; here it would take every image
        raise CommandError("a limit of 0 would remove every image: 'none' means no limit")
    return size
