"""`stats`: what containers use, a table that is drawn again each second."""

from __future__ import annotations

import time

from dockpy.client import listing, units
from dockpy.client.commands.system import binary_size
from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

ROUND = 1.0  # seconds
SHORT = 12
HOME, CLEAR, REST_OF_LINE, BELOW = "\033[H", "\033[2J", "\033[K", "\033[J"
DEFAULT = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
HEADERS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}


def stats_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    """A share of the processors needs two moments; so the first round only looks."""
    form = options.text("format")
    if not form and "statsFormat" in cli.config:
        form = str(cli.config["statsFormat"])
    whole = options.on("no-trunc")
    before: dict[str, object] = {}
    names = arguments or _all(cli, options.on("all"))
    for name in names:
        _ask(cli, name, before, missing=not arguments)
    if names:
        time.sleep(ROUND)
    if options.on("no-stream"):
        _show(form, _rows(cli, names, before, whole=whole, gone=not arguments))
        return 0
    out(CLEAR + HOME)
    while True:
        begun = time.monotonic()
        rows = _rows(cli, names, before, whole=whole, gone=True)
        if arguments and not rows:
            return 0  # all of them have been removed
        out(HOME)
        _show(form, rows, redraw=True)
        time.sleep(max(ROUND - (time.monotonic() - begun), 0))
        if not arguments:
            names = _all(cli, options.on("all"))


def _all(cli: Cli, every: bool) -> list[str]:
    raw = cli.connection.get("/containers/json", {"all": every})
    if not isinstance(raw, list):
        raise CommandError("the daemon's answer lists no containers")
    return [str(item["Id"])[:SHORT] for item in raw]


def _ask(cli: Cli, name: str, before: dict[str, object], *, missing: bool) -> object:
    """One sample; None for a container that is gone where `missing` ones may be."""
    query: dict[str, object] = {"stream": "false", "one-shot": "true"}
    try:
        sample = cli.connection.get(f"/containers/{quote(name)}/stats", query)
    except ApiError as error:
        if error.status == 404 and missing:
            return None
        raise
    if not isinstance(sample, dict):
        raise CommandError("the daemon's answer holds no statistics")
    sample["precpu_stats"] = before.get(name)
    before[name] = sample.get("cpu_stats")
    return sample


def _rows(
    cli: Cli, names: list[str], before: dict[str, object], *, whole: bool, gone: bool
) -> list[listing.Row]:
    samples = [(name, _ask(cli, name, before, missing=gone)) for name in names]
    return [_row(name, sample, whole=whole) for name, sample in samples if isinstance(sample, dict)]


def _show(form: str, rows: list[listing.Row], *, redraw: bool = False) -> None:
    if not redraw:
        listing.show(form, DEFAULT, HEADERS, rows)
        return
    text = listing.text(form, DEFAULT, HEADERS, rows)
    out(text.replace("\n", REST_OF_LINE + "\n") + BELOW)


def _row(name: str, sample: dict[str, object], *, whole: bool) -> listing.Row:
    identity = str(sample.get("id") or "")
    memory = _table(sample.get("memory_stats"))
    used, limit = _used(memory), _number(memory, "limit")
    networks = _table(sample.get("networks")).values()
    received = sum(_number(_table(entry), "rx_bytes") for entry in networks)
    sent = sum(_number(_table(entry), "tx_bytes") for entry in networks)
    read, written = _block(sample)
    row = listing.Row(
        Container=name,
        ID=identity if whole else identity[:SHORT],
        Name=str(sample.get("name") or "").lstrip("/"),
        CPUPerc=f"{_cpu(sample):.2f}%",
        MemUsage=f"{binary_size(used)} / {binary_size(limit)}",
        MemPerc=f"{used / limit * 100 if limit else 0:.2f}%",
        NetIO=f"{units.size(received, 3)} / {units.size(sent, 3)}",
        BlockIO=f"{units.size(read, 3)} / {units.size(written, 3)}",
        PIDs=str(_number(_table(sample.get("pids_stats")), "current")),
    )
    row.go_type = "*container.statsContext"
    return row


def _table(raw: object) -> dict[str, object]:
    return raw if isinstance(raw, dict) else {}


def _number(table: dict[str, object], name: str) -> int:
    value = table.get(name)
    return value if isinstance(value, int) else 0


def _used(memory: dict[str, object]) -> int:
    """Without what the kernel can take back at any time: total_inactive_file of cgroup v1, else v2's."""
    usage, details = _number(memory, "usage"), _table(memory.get("stats"))
    idle = _number(
        details, "total_inactive_file" if "total_inactive_file" in details else "inactive_file"
    )
    return usage - idle if idle < usage else usage


def _cpu(sample: dict[str, object]) -> float:
    now, before = _table(sample.get("cpu_stats")), _table(sample.get("precpu_stats"))
    used = _number(_table(now.get("cpu_usage")), "total_usage")
    used -= _number(_table(before.get("cpu_usage")), "total_usage")
    whole = _number(now, "system_cpu_usage") - _number(before, "system_cpu_usage")
    cpus = _number(now, "online_cpus") or len(
        _list(_table(now.get("cpu_usage")).get("percpu_usage"))
    )
    return used / whole * cpus * 100 if used > 0 and whole > 0 else 0.0


def _list(raw: object) -> list[object]:
    return raw if isinstance(raw, list) else []


def _block(sample: dict[str, object]) -> tuple[int, int]:
    entries = _list(_table(sample.get("blkio_stats")).get("io_service_bytes_recursive"))
    totals = {"r": 0, "w": 0}
    for entry in entries:
        kind = str(_table(entry).get("op"))[:1].lower()
        if kind in totals:
            totals[kind] += _number(_table(entry), "value")
    return totals["r"], totals["w"]
