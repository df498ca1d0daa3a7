"""`ps`: the list of containers."""

from __future__ import annotations

import time

from dockpy.api.times import ago
from dockpy.client import listing, units
from dockpy.client.errors import CommandError
from dockpy.client.output import err, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

CHECKS = {"filter": listing.check_filter}
SHORT = 12
COMMAND_WIDTH = 20
DEFAULT = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
HEADERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
    "HealthStatus": "HEALTH STATUS",
}


def ps_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    form = options.text("format")
    if not options.given("format") and not options.on("quiet") and "psFormat" in cli.config:
        form = str(cli.config["psFormat"])
    if form and options.on("quiet"):
        err("WARNING: Ignoring custom format, because both --format and --quiet are set.\n")
        form = ""
    size = options.on("size") or (not options.given("size") and listing.uses(form, "Size"))
    last = options.number("last", -1)
    if options.on("latest") and last == -1:
        last = 1
    query: dict[str, object] = {
        "all": options.on("all"),
        "limit": last if last > 0 else None,
        "size": size,
        "filters": listing.query_filters(options.many("filter")),
    }
    raw = cli.connection.get("/containers/json", query)
    if not isinstance(raw, list):
        raise CommandError("the daemon's answer lists no containers")
    whole = options.on("no-trunc")
    if options.on("quiet"):
        out("".join(f"{item['Id'] if whole else item['Id'][:SHORT]}\n" for item in raw))
        return 0
    now = time.time()
    rows = [_row(item, now, whole=whole) for item in raw]
    listing.show(form, (*DEFAULT, "Size") if options.on("size") else DEFAULT, HEADERS, rows)
    return 0


def row_of(item: dict[str, object]) -> listing.Row:
    """One line as `ps` shows it, for `system df -v`."""
    return _row(item, time.time(), whole=False)


def _row(item: dict[str, object], now: float, *, whole: bool) -> listing.Row:
    def text(name: str) -> str:
        value = item.get(name)
        return value if isinstance(value, str) else ""

    created = item.get("Created")
    seconds = float(created) if isinstance(created, (int, float)) else 0.0
    command = text("Command")
    labels = item.get("Labels")
    label_table = labels if isinstance(labels, dict) else {}
    names = item.get("Names")
    spelled = [str(name).lstrip("/") for name in names] if isinstance(names, list) else []
    if not whole:
        # Names of links have a second slash; docker hides them unless --no-trunc.
        spelled = [name for name in spelled if "/" not in name] or spelled
        command = (
            command if len(command) <= COMMAND_WIDTH else command[: COMMAND_WIDTH - 1] + "\u2026"
        )
    settings = item.get("NetworkSettings")
    networks = settings.get("Networks") if isinstance(settings, dict) else None
    mounts = item.get("Mounts")
    row = listing.Row(
        ID=text("Id") if whole else text("Id")[:SHORT],
        Image=_image(text("Image"), text("ImageID"), whole=whole),
        Command=f'"{command}"',
        CreatedAt=_stamp(seconds),
        RunningFor=f"{ago(now - seconds)} ago",
        Ports=ports(item.get("Ports")),
        State=text("State"),
        Status=text("Status"),
        Size=_size(item),
        Names=",".join(spelled),
        Labels=",".join(f"{name}={label_table[name]}" for name in sorted(label_table)),
        Mounts=_mounts(mounts, whole=whole),
        LocalVolumes=str(_local_volumes(mounts)),
        Networks=",".join(networks) if isinstance(networks, dict) else "",
        HealthStatus=_health(text("Status")),
        Platform=_platform(item.get("ImageManifestDescriptor")),
        Label=_label(label_table),
    )
    row.go_type = "*formatter.ContainerContext"
    return row


def _label(table: dict[str, str]) -> Callable[[str], str]:
    return lambda key: table.get(key, "")


def _image(image: str, image_id: str, *, whole: bool) -> str:
    if not image:
        return "<no image>"
    if whole:
        return image
    if image.startswith("sha256:"):
        return image[7 : 7 + SHORT]
    if len(image) == 64 and image_id.endswith(image):
        return image[:SHORT]
    return image.partition("@")[0] if ":" in image.partition("@")[0].rpartition("/")[2] else image


def _stamp(seconds: float) -> str:
    local = time.localtime(seconds)
    offset = local.tm_gmtoff // 60
    sign = "-" if offset < 0 else "+"
    zone = f"{sign}{abs(offset) // 60:02}{abs(offset) % 60:02}"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)} {zone} {local.tm_zone}"


def _size(item: dict[str, object]) -> str:
    own, root = item.get("SizeRw"), item.get("SizeRootFs")
    text = units.size(own if isinstance(own, int) else 0, 3)
    if isinstance(root, int) and root > 0:
        return f"{text} (virtual {units.size(root, 3)})"
    return text


def _mounts(mounts: object, *, whole: bool) -> str:
    names = []
    for mount in mounts if isinstance(mounts, list) else []:
        name = str(mount.get("Name") or mount.get("Source") or "")
        names.append(name if whole or len(name) <= 15 else name[:14] + "\u2026")
    return ",".join(names)


def _local_volumes(mounts: object) -> int:
    return (
        sum(1 for mount in mounts if mount.get("Driver") == "local")
        if isinstance(mounts, list)
        else 0
    )


def _health(status: str) -> str:
    for name in ("healthy", "unhealthy", "starting"):
        if f"({name})" in status or f"(health: {name})" in status:
            return name
    return ""


def _platform(descriptor: object) -> str:
    platform = descriptor.get("platform") if isinstance(descriptor, dict) else None
    if not isinstance(platform, dict):
        return ""
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return "/".join(str(part) for part in parts if part)


def ports(raw: object) -> str:
    """`0.0.0.0:8000-8002->80-82/tcp, 443/tcp`: neighbours are folded into ranges."""
    found: list[tuple[str, str, int, int]] = []
    for port in raw if isinstance(raw, list) else []:
        private, public = int(port.get("PrivatePort") or 0), int(port.get("PublicPort") or 0)
        found.append((str(port.get("IP") or ""), str(port.get("Type") or ""), private, public))
    found.sort(key=lambda entry: (entry[2], entry[0], entry[3], entry[1]))
    groups: list[list[int | str]] = []
    for address, kind, private, public in found:
        for group in groups:
            shift = private - int(group[3])
            same = group[0] == address and group[1] == kind and shift == 1
            if (
                same
                and (public - int(group[5]) == 1 if public else not group[5])
                and (public or not address)
            ):
                group[3], group[5] = private, public
                break
        else:
            groups.append([address, kind, private, private, public, public])
    return ", ".join(_port_group(*group) for group in groups)


def _port_group(
    address: object, kind: object, first: object, last: object, low: object, high: object
) -> str:
    inside = f"{first}" if first == last else f"{first}-{last}"
    if not low:
        return f"{inside}/{kind}"
    outside = f"{low}" if low == high else f"{low}-{high}"
    host = f"[{address}]" if ":" in str(address) else f"{address}"
    return f"{host}:{outside}->{inside}/{kind}"
