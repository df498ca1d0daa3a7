"""`images`, `history`, `rmi`, `tag`, `pull`."""

from __future__ import annotations

import time

from dockpy.api.times import ago
from dockpy.client import listing, progress, units
from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import err, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

CHECKS = {"filter": listing.check_filter}
SHORT = 12
NONE = "<none>"
CREATED_BY_WIDTH = 45
DEFAULT = ("Repository", "Tag", "ID", "CreatedSince", "Size")
HEADERS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
HISTORY = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
HISTORY_HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}


def split_reference(name: str) -> tuple[str, str]:
    """(repository, tag or ""); a colon before a slash is a port."""
    head, colon, tag = name.rpartition(":")
    twice = ":" in head.rpartition("/")[2] and "@" not in head and "/" not in tag
    if not name or (colon and not tag) or twice:
        raise CommandError("invalid reference format")
    return (head, tag) if colon and "/" not in tag else (name, "")


def short_id(identity: str, *, whole: bool) -> str:
    return identity if whole else identity.partition(":")[2][:SHORT] or identity[:SHORT]


def images_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    if options.on("tree"):
        raise CommandError("--tree is not served by this build", 125)
    words = [*options.many("filter"), *(f"reference={name}" for name in arguments)]
    query: dict[str, object] = {"all": options.on("all"), "filters": listing.query_filters(words)}
    raw = cli.connection.get("/images/json", query)
    if not isinstance(raw, list):
        raise CommandError("the daemon's answer lists no images")
    whole = options.on("no-trunc")
    form = options.text("format")
    if not options.given("format") and not options.on("quiet") and "imagesFormat" in cli.config:
        form = str(cli.config["imagesFormat"])
    rows = [row for item in raw for row in rows_of(item, whole=whole)]
    if options.on("quiet") and not form:
        out("".join(f"{row['ID']}\n" for row in rows))
        return 0
    default = ("Repository", "Tag", "Digest", *DEFAULT[2:]) if options.on("digests") else DEFAULT
    listing.show(form, default, HEADERS, rows)
    return 0


def rows_of(item: dict[str, object], *, whole: bool) -> list[listing.Row]:
    """One row per tag; an image without any is one row of <none>."""
    tags = item.get("RepoTags")
    names = (
        [split_reference(str(tag)) for tag in tags if tag != f"{NONE}:{NONE}"]
        if isinstance(tags, list)
        else []
    )
    repo_digests = item.get("RepoDigests")
    by_name: dict[str, str] = {}
    for word in repo_digests if isinstance(repo_digests, list) else []:
        name, _, digest = str(word).partition("@")
        by_name.setdefault(name, digest)
    if not names:
        names = [(name, NONE) for name in by_name if name != NONE] or [(NONE, NONE)]
    created, size = item.get("Created"), item.get("Size")
    seconds = float(created) if isinstance(created, (int, float)) else 0.0
    rows = []
    for repository, tag in names:
        row = listing.Row(
            ID=short_id(str(item.get("Id")), whole=whole),
            Repository=repository,
            Tag=tag,
            Digest=by_name.get(repository, NONE),
            CreatedSince=f"{ago(time.time() - seconds)} ago" if seconds > 0 else "N/A",
            CreatedAt=stamp(seconds),
            Size=units.size(size if isinstance(size, int) else 0, 3),
            VirtualSize=units.size(size if isinstance(size, int) else 0, 4),
            Containers=_known(item.get("Containers")),
            SharedSize=_known_size(item.get("SharedSize")),
            UniqueSize="N/A",
        )
        row.go_type = "*formatter.imageContext"
        rows.append(row)
    return rows


def _known(value: object) -> str:
    return str(value) if isinstance(value, int) and value >= 0 else "N/A"


def _known_size(value: object) -> str:
    return units.size(value, 3) if isinstance(value, int) and value >= 0 else "N/A"


def stamp(seconds: float) -> str:
    local = time.localtime(seconds)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", local)


def history_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    query: dict[str, object] = {}
    if options.text("platform"):
        from dockpy.client import platforms

        query["platform"] = platforms.query(cli, arguments, [options.text("platform")])
    raw = cli.connection.get(f"/images/{quote(arguments[0], '/:@')}/history", query)
    if not isinstance(raw, list):
        raise CommandError("the daemon's answer holds no history")
    whole, human = options.on("no-trunc"), options.on("human", True)
    rows = [_history_row(item, whole=whole, human=human) for item in raw]
    form = options.text("format")
    if options.on("quiet") and not form:
        out("".join(f"{row['ID']}\n" for row in rows))
        return 0
    listing.show(form, HISTORY, HISTORY_HEADERS, rows)
    return 0


def _history_row(item: dict[str, object], *, whole: bool, human: bool) -> listing.Row:
    created, size = item.get("Created"), item.get("Size")
    seconds = float(created) if isinstance(created, (int, float)) else 0.0
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + _zone(seconds)
    command = str(item.get("CreatedBy") or "").replace("\t", " ")
    if not whole and len(command) > CREATED_BY_WIDTH:
        command = command[: CREATED_BY_WIDTH - 1] + "\u2026"
    since = f"{ago(time.time() - seconds)} ago" if human else moment
    identity = str(item.get("Id"))
    row = listing.Row(
        ID=identity if identity == "<missing>" else short_id(identity, whole=whole),
        CreatedAt=moment,
        CreatedSince=since if seconds > 0 else "N/A",
        CreatedBy=command,
        Size=units.size(size if isinstance(size, int) else 0, 3) if human else str(size),
        Comment=str(item.get("Comment") or ""),
    )
    row.go_type = "*image.historyContext"
    return row


def _zone(seconds: float) -> str:
    offset = time.localtime(seconds).tm_gmtoff // 60
    if not offset:
        return "Z"
    return f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"


def rmi_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    force, words = options.on("force"), options.many("platform")
    query: dict[str, object] = {"force": force, "noprune": options.on("no-prune")}
    code = 0
    for name in arguments:
        try:
            if words:
                from dockpy.client import platforms

                query["platforms"] = platforms.query(cli, [name], words)
            response = cli.connection.request("DELETE", f"/images/{quote(name, '/:@')}", query)
        except (ApiError, CommandError) as error:
            err(f"{error}\n")
            if not (force and isinstance(error, ApiError) and error.status == 404):
                code = 1
            continue
        from dockpy.client.connection import decoded

        raw = decoded(response.body)
        for entry in raw if isinstance(raw, list) else []:
            if entry.get("Deleted"):
                out(f"Deleted: {entry['Deleted']}\n")
            else:
                out(f"Untagged: {entry.get('Untagged')}\n")
    return code


def tag_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    split_reference(arguments[0])
    repository, tag = split_reference(arguments[1])
    query: dict[str, object] = {"repo": repository, "tag": tag}
    cli.connection.request("POST", f"/images/{quote(arguments[0], '/:@')}/tag", query)
    return 0


def pull_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    name, all_tags, quiet = arguments[0], options.on("all-tags"), options.on("quiet")
    if all_tags and (split_reference(name)[1] or "@" in name):
        raise CommandError("tag can't be used with --all-tags/-a")
    if not quiet and not all_tags and not split_reference(name)[1] and "@" not in name:
        out("Using default tag: latest\n")
    platform = options.text("platform") or cli.environ.get("DOCKER_DEFAULT_PLATFORM", "")
    progress.pull(cli, name, platform, to=1, quiet=quiet, all_tags=all_tags)
    out(f"{full_name(name, bare=all_tags)}\n")
    return 0


def full_name(name: str, *, bare: bool) -> str:
    """A reference that the daemon has understood, whole: with its domain and, if not `bare`, its tag.

    As oci.reference has it, which would double the time that this command takes to load.
    """
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first in ("localhost", first.upper())):
        first, rest = "docker.io", name
    if first in ("docker.io", "index.docker.io"):
        first, rest = "docker.io", rest if "/" in rest.partition("@")[0] else f"library/{rest}"
    if not bare and "@" not in rest and not split_reference(rest)[1]:
        rest += ":latest"
    return f"{first}/{rest}"
