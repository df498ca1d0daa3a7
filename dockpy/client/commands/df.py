"""`system df`: what images, containers, volumes and build cache take, and what could be had back."""

from __future__ import annotations

from dockpy.client import listing, units
from dockpy.client.errors import CommandError
from dockpy.client.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

COLUMNS = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
HEADERS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
_RUNS = ("running", "paused", "restarting")


def system_df_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    raw = cli.connection.get("/system/df")
    if not isinstance(raw, dict):
        raise CommandError("the daemon's answer tells no disk usage")
    if options.on("verbose"):
        if options.text("format") not in ("", "table"):
            raise CommandError("the verbose and the format options conflict")
        _verbose(raw)
        return 0
    listing.show(options.text("format"), COLUMNS, HEADERS, _rows(raw))
    return 0


def _items(raw: dict[str, object], name: str) -> list[dict[str, object]]:
    items = raw.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _number(item: dict[str, object], name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) else 0


def _rows(raw: dict[str, object]) -> list[listing.Row]:
    images, containers = _items(raw, "Images"), _items(raw, "Containers")
    layers = _number(raw, "LayersSize")
    active = [image for image in images if _number(image, "Containers") > 0]
    used = sum(_number(image, "Size") - _number(image, "SharedSize") for image in active)
    running = [item for item in containers if item.get("State") in _RUNS]
    written = sum(_number(item, "SizeRw") for item in containers)
    idle = written - sum(_number(item, "SizeRw") for item in running)
    volumes, cache = _items(raw, "Volumes"), _items(raw, "BuildCache")
    return [
        _row("Images", len(images), len(active), layers, max(layers - used, 0)),
        _row("Containers", len(containers), len(running), written, idle),
        _row("Local Volumes", len(volumes), 0, 0, 0),
        _row("Build Cache", len(cache), 0, _number(raw, "BuilderSize"), 0),
    ]


def _row(kind: str, total: int, active: int, size: int, back: int) -> listing.Row:
    share = f" ({back * 100 // size}%)" if size > 0 else ""
    row = listing.Row(
        Type=kind,
        TotalCount=str(total),
        Active=str(active),
        Size=units.size(size),
        Reclaimable=f"{units.size(back)}{share}",
    )
    row.go_type = "*formatter.diskUsageImagesContext"
    return row


def _verbose(raw: dict[str, object]) -> None:
    from dockpy.client.commands import images, ps

    columns = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")  # fmt: skip
    rows = [row for item in _items(raw, "Images") for row in images.rows_of(item, whole=False)[:1]]
    for row, item in zip(rows, _items(raw, "Images")):
        row["UniqueSize"] = units.size(_number(item, "Size") - _number(item, "SharedSize"), 3)
    out("Images space usage:\n\n")
    listing.show("", columns, {**images.HEADERS, "Containers": "CONTAINERS"}, rows)
    out("\nContainers space usage:\n\n")
    names = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    listing.show("", names, ps.HEADERS, [ps.row_of({**item, "SizeRootFs": 0}) for item in _items(raw, "Containers")])  # fmt: skip
    out("\nLocal Volumes space usage:\n\nVOLUME NAME   LINKS     SIZE\n")
    out(f"\nBuild cache usage: {units.size(_number(raw, 'BuilderSize'))}\n\n")
    out("CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n")
