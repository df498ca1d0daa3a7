"""`container prune`, `image prune`, `system prune`: docker's warnings, its question, its report."""

from __future__ import annotations

import os

from dockpy.client import listing, units
from dockpy.client.errors import CommandError
from dockpy.client.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

CHECKS = {"filter": listing.check_filter}
_SURE = "Are you sure you want to continue? [y/N] "
_CONTAINERS = "WARNING! This will remove all stopped containers.\n"
_DANGLING = "WARNING! This will remove all dangling images.\n"
_UNUSED = (
    "WARNING! This will remove all images without at least one container associated to them.\n"
)


def agreed(options: Options, warning: str) -> bool:
    """docker asks on standard output, and takes anything but y for no."""
    if options.on("force"):
        return True
    out(warning + _SURE)
    answer = bytearray()
    while not answer.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            break
        answer += piece
    return answer.strip().lower() == b"y"


def container_prune_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    if agreed(options, _CONTAINERS):
        _total(_containers(cli, options))
    return 0


def image_prune_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    if agreed(options, _UNUSED if options.on("all") else _DANGLING):
        _total(_images(cli, options))
    return 0


def system_prune_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    words = options.many("filter")
    if options.on("volumes") and any(word.startswith("until=") for word in words):
        raise CommandError('ERROR: The "until" filter is not supported with "--volumes"')
    kinds = ["all stopped containers", "all networks not used by at least one container"]
    if options.on("volumes"):
        kinds.append("all anonymous volumes not used by at least one container")
    kinds.append(
        "all images without at least one container associated to them"
        if options.on("all")
        else "all dangling images"
    )
    kinds.append("all build cache" if options.on("all") else "unused build cache")
    lines = "".join(f"  - {kind}\n" for kind in kinds)
    warning = f"WARNING! This will remove:\n{lines}\n"
    if words:
        listed = "".join(f"  - {word}\n" for word in words)
        warning += f"  Items to be pruned will be filtered with:\n{listed}\n"
    if agreed(options, warning):
        space = _containers(cli, options)
        _post(cli, "/networks/prune", listing.query_filters(words))
        if options.on("volumes"):
            space += _space(_post(cli, "/volumes/prune", ""))
        _total(space + _images(cli, options))
    return 0


def _post(cli: Cli, path: str, filters: str) -> dict[str, object]:
    from dockpy.client.connection import decoded

    raw = decoded(cli.connection.request("POST", path, {"filters": filters}).body)
    return raw if isinstance(raw, dict) else {}


def _space(raw: dict[str, object]) -> int:
    space = raw.get("SpaceReclaimed")
    return space if isinstance(space, int) else 0


def _total(space: int) -> None:
    out(f"Total reclaimed space: {units.size(space)}\n")


def _containers(cli: Cli, options: Options) -> int:
    raw = _post(cli, "/containers/prune", listing.query_filters(options.many("filter")))
    deleted = raw.get("ContainersDeleted")
    if isinstance(deleted, list) and deleted:
        out("Deleted Containers:\n" + "".join(f"{name}\n" for name in deleted) + "\n")
    return _space(raw)


def _images(cli: Cli, options: Options) -> int:
    words = [*options.many("filter"), f"dangling={str(not options.on('all')).lower()}"]
    raw = _post(cli, "/images/prune", listing.query_filters(words))
    deleted = raw.get("ImagesDeleted")
    if isinstance(deleted, list) and deleted:
        out("Deleted Images:\n")
        for entry in deleted:
            word = "untagged" if entry.get("Untagged") else "deleted"
            out(f"{word}: {entry.get('Untagged') or entry.get('Deleted')}\n")
        out("\n")
    return _space(raw)
