"""`system reset`: the end of a store and of all that runs from it. The work is role `reset`'s (daemon.reset)."""

from __future__ import annotations

import os

from dockpy import localdisk, reexec
from dockpy.client.commands.enable import disable
from dockpy.client.commands.prune import agreed
from dockpy.client.errors import CommandError
from dockpy.client.output import out
from dockpy.paths import Paths, store_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli


def system_reset_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    if not cli.own_daemon:
        raise CommandError(f"{cli.host} is not a daemon of this user's store: unset DOCKER_HOST")
    store = store_of(cli.environ, os.geteuid())
    paths = Paths(store, localdisk.known(store))
    kinds = (
        "containers, also those that run",
        "images",
        "images pushed to 'registry serve'",
        "volumes",
        "networks",
        "settings and logs",
    )
    lines = "".join(f"  - all {kind}\n" for kind in kinds)
    if not agreed(options, f"WARNING! This will remove {store} with:\n{lines}\n"):
        return 0
    if not os.path.isdir(store):
        out(f"There is no store {store}\n")
        return 0
    argv = reexec.argv("reset", f"--store={store}", f"--data={paths.data}")
    child = os.posix_spawn(argv[0], argv, cli.environ)
    status = os.waitpid(child, 0)[1]
    if status:
        return 1
    disable(cli.environ)
    out(f"Removed {store}\n")
    return 0
