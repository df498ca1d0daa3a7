"""`--platform` of commands on images that are here: each of them has one platform in this build."""

from __future__ import annotations

from dockpy import fastjson
from dockpy.client.connection import quote
from dockpy.client.errors import CommandError
from dockpy.errors import DockpyError
from dockpy.oci.platform import Platform, host_platform, parse_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.main import Cli


def parsed(text: str) -> Platform:
    try:
        return parse_platform(text)
    except DockpyError as error:
        raise CommandError(f"invalid platform: {error}") from None


def query(cli: Cli, names: list[str], words: list[str]) -> list[str]:
    """What another daemon is asked, as JSON; our own is asked nothing, once each of `names` is of such a platform."""
    wanted = [parsed(text) for text in words]
    if cli.own_daemon and wanted:
        for name in names:
            _check(cli, name, wanted)
        return []
    return [fastjson.dumps(platform.to_json()).decode() for platform in wanted]


def _check(cli: Cli, name: str, wanted: list[Platform]) -> None:
    raw = cli.connection.get(f"/images/{quote(name, '/:@')}/json")
    image = raw if isinstance(raw, dict) else {}
    have = Platform(*(str(image.get(key) or "") for key in ("Os", "Architecture", "Variant")))
    for platform in wanted:
        if have.rank_for(platform) is None:
            raise CommandError(
                f"image with reference {name} was found but does not provide the specified platform ({platform})"
            )


def query_of_archive(cli: Cli, text: str) -> str:
    """Of an archive with several our own daemon takes the one of this host."""
    if not text:
        return ""
    wanted = parsed(text)
    if not cli.own_daemon:
        return fastjson.dumps(wanted.to_json()).decode()
    if host_platform().rank_for(wanted) is None:
        raise CommandError(
            f"--platform {text} is not served by this build: of an archive with several platforms"
            f" {host_platform()} is loaded"
        )
    return ""
