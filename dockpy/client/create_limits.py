"""The flags of `run` and `create` that set limits and have a grammar of their own. Imported when one is given."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options

    Body = dict[str, object]

# Not `as`: docker's client refuses it, and what a daemon does with it is the daemon's to say.
_ULIMITS = frozenset(
    [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


def ulimits(words: list[str]) -> list[dict[str, object]]:
    """Sorted by name; of two for one name the last holds."""
    limits = {str(limit["Name"]): limit for limit in map(ulimit, words)}
    return [limits[name] for name in sorted(limits)]


def ulimit(text: str) -> dict[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = value.split(":")
    if len(parts) > 2:
        raise ValueError(
            f"too many limit value arguments - {value}, can only have up to two, `soft[:hard]`"
        )
    soft, hard = _limit(parts[0]), _limit(parts[-1])
    if hard != -1 and (soft == -1 or soft > hard):
        told = f"soft: -1 (unlimited), hard: {hard}" if soft == -1 else f"{soft} > {hard}"
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {told}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def _limit(text: str) -> int:
    if not text[text[:1] in ("-", "+") :].isdecimal():
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def block_io(options: Options, host: Body) -> None:
    for flag, field in (
        ("device-read-bps", "BlkioDeviceReadBps"),
        ("device-write-bps", "BlkioDeviceWriteBps"),
        ("device-read-iops", "BlkioDeviceReadIOps"),
        ("device-write-iops", "BlkioDeviceWriteIOps"),
        ("blkio-weight-device", "BlkioWeightDevice"),
    ):
        entries = []
        for word in options.many(flag):
            path, colon, value = word.partition(":")
            if not colon or not path.startswith("/dev/"):
                raise ValueError(f"bad format: {word}")
            from dockpy.client import units

            rate = units.ram_bytes(value) if flag.endswith("bps") else int(value)
            entries.append({"Path": path, "Weight" if "weight" in flag else "Rate": rate})
        if entries:
            host[field] = entries
