"""`push`: names of the store into a repository."""

from __future__ import annotations

from dockpy.client import credentials, progress
from dockpy.client.connection import quote
from dockpy.client.errors import CommandError
from dockpy.client.output import out
from dockpy.errors import DockpyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def push_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    from dockpy.oci.platform import parse_platform
    from dockpy.oci.reference import parse_reference

    reference = parse_reference(arguments[0])
    every, quiet = options.on("all-tags"), options.on("quiet")
    if every and (reference.tag or reference.digest):
        raise CommandError("tag can't be used with --all-tags/-a")
    if not every and not reference.tag and not reference.digest:
        reference = reference.tagged()
        if not quiet:
            out(f"Using default tag: {reference.tag}\n")
    query: dict[str, object] = {"tag": reference.tag}
    if options.text("platform"):
        from dockpy import fastjson

        try:
            platform = parse_platform(options.text("platform"))
        except DockpyError as error:
            raise CommandError(f"Invalid platform {options.text('platform')}: {error}") from None
        query["platform"] = fastjson.dumps(platform.to_json()).decode()
    name = reference.familiar_name
    if reference.digest:
        name = reference.familiar()
    stream = cli.connection.stream(
        "POST",
        f"/images/{quote(name, '/:@')}/push",
        query,
        headers={**progress.proxies(cli), **credentials.headers(cli, arguments[0])},
    )
    try:
        progress.show(stream.pieces(), 1, quiet=quiet)
    finally:
        stream.close()
    if quiet:
        out(f"{reference}\n")
    return 0
