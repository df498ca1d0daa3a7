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

    folder = options.text("store")
    if not folder:
        if not cli.own_daemon:
            raise CommandError("--store DIR is wanted where DOCKER_HOST names another daemon")
        paths = birth.make_store(Paths(store_of(cli.environ, os.geteuid())), cli.environ)
        folder = f"{paths.data}/registry"
    settings = {
        "store": os.path.abspath(folder),
        "listen": options.text("listen", "127.0.0.1:5000"),
        "readOnly": options.on("read-only"),
        "insecure": options.on("insecure"),
    }
    for flag, key in (("tls-cert", "certificate"), ("tls-key", "key"), ("htpasswd", "htpasswd")):
        if options.text(flag):
            settings[key] = os.path.abspath(options.text(flag))
    argv = reexec.argv("registry", fastjson.dumps(settings).decode())
    os.execve(argv[0], argv, dict(cli.environ))
