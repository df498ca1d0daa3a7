"""`registry serve`: becomes the server's process."""

from __future__ import annotations

import os

from dockpy.client.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def registry_serve_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    from dockpy import fastjson, reexec
    from dockpy.client import birth
    from dockpy.paths import Paths, store_of

    for flag in ("htpasswd", "listen", "proxy", "store", "tls-cert", "tls-key"):
        # Of a variable that is not set, in a script: served would be another thing than was meant.
        if options.given(flag) and not options.text(flag):
            raise CommandError(f"--{flag} is empty: give it a value, or leave it out")
    settings: dict[str, object] = {
        "listen": options.text("listen", "127.0.0.1:5000"),
        "readOnly": options.on("read-only"),
        "insecure": options.on("insecure"),
    }
    for flag, key in (("tls-cert", "certificate"), ("tls-key", "key"), ("htpasswd", "htpasswd")):
        if options.text(flag):
            settings[key] = os.path.abspath(options.text(flag))
    folder = options.text("store")
    upstream = options.text("proxy")
    if upstream:
        settings.update(_upstream(cli, upstream))
    if options.given("limit"):
        settings["limit"] = _limit(options.text("limit"), upstream)
    if not folder or options.on("images"):
        if not cli.own_daemon:
            raise CommandError(
                "DOCKER_HOST names another daemon: give --store DIR, without --images"
            )
        paths = birth.make_store(Paths(store_of(cli.environ, os.geteuid())), cli.environ)
    if options.on("images"):
        settings["images"] = paths.images
    if not folder:
        # A cache of its own for each upstream: names mean something else there.
        folder = f"{paths.registry_proxy}/{_host(upstream)}" if upstream else paths.registry
    settings["store"] = os.path.abspath(folder)
    # Not on the command line, which everybody can read: there may be a password.
    out, into = os.pipe()
    os.set_inheritable(out, True)
    os.write(into, fastjson.dumps(settings))
    os.close(into)
    argv = reexec.argv("registry", str(out))
    os.execve(argv[0], argv, dict(cli.environ))


def _limit(text: str, upstream: str) -> int:
    from dockpy.client import units

    if not upstream:
        raise CommandError("--limit is for a cache, whose blobs can come again: give --proxy, too")
    size = units.ram_bytes(text)
    if size <= 0:
        raise CommandError("a limit of 0 would keep nothing: leave it out for no limit")
    return size


def _upstream(cli: Cli, url: str) -> dict[str, object]:
    """The settings that --proxy stands for. Blocks in the person's session: a helper may know the password."""
    from dockpy.client.credentials import Credentials
    from dockpy.paths import NoHome, Paths, home, store_of

    uid = os.geteuid()
    scheme, colon, rest = url.rpartition("://")
    user, at, place = rest.rpartition("@")
    if at:
        from urllib.parse import unquote

        name, _, password = user.partition(":")
        credentials = {"username": unquote(name), "password": unquote(password)}
    else:
        host = place.partition("/")[0].lower()
        host = "docker.io" if host == "registry-1.docker.io" else host
        credentials = Credentials(cli).get(host).to_json()
    folders = ["/etc/docker/certs.d", f"{Paths(store_of(cli.environ, uid)).store}/certs.d"]
    try:
        folders.insert(1, f"{home(cli.environ, uid)}/.config/docker/certs.d")
    except NoHome:
        pass
    return {
        "upstream": f"{scheme}{colon}{place}",
        "credentials": credentials,
        "certificates": folders,
    }


def _host(url: str) -> str:
    """The upstream's host and port, as the name of a folder."""
    place = url.rpartition("://")[2].rpartition("@")[2].partition("/")[0].lower()
    name = "".join(letter if letter.isalnum() or letter in ".-:" else "_" for letter in place)
    return name if name.strip(".") else "_"
