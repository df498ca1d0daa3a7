"""Who starts this user's daemon when the machine starts: a unit of systemd's, or a line of the crontab.

The unit runs `dockpy daemon start`, so that the daemon is born as by any other command. Texts and places
here; what is told to the person is in commands.enable.
"""

from __future__ import annotations

import os

from dockpy.client import service
from dockpy.files import unlink_if_exists, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# What decides which store, and what daemon of it.
VARIABLES = ("DOCKPY_STORE", "DOCKPY_LOCAL", "DOCKPY_STORES", "DOCKPY_TIER", "XDG_DATA_HOME")


def unit_name(store: str) -> str:
    return service.units(store)[0].replace(".service", "-boot.service")


def unit_text(file: str, store: str, environ: Mapping[str, str], uid: int) -> str:
    """What has forked from it stays when it has done its work: a daemon that is no service of its own."""
    kept = "".join(
        f"Environment={_quoted(f'{name}={environ[name]}')}\n"
        for name in VARIABLES
        if name in environ
    )
    return (
        f"[Unit]\nDescription=dockpy of {store.replace('%', '%%')}\n"
        f"{'After=network.target local-fs.target' + chr(10) if uid == 0 else ''}"
        f"\n[Service]\nType=oneshot\nKillMode=process\n{kept}ExecStart={_quoted(file)} daemon start\n"
        f"\n[Install]\nWantedBy={target(uid)}\n"
    )


def target(uid: int) -> str:
    return "multi-user.target" if uid == 0 else "default.target"


def _quoted(text: str) -> str:
    """One word of a unit file (systemd.syntax(7), systemd.service(5))."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + escaped.replace("%", "%%") + '"'


def unit_folder(environ: Mapping[str, str], uid: int, home: str) -> str:
    if uid == 0:
        return "/etc/systemd/system"
    config = environ.get("XDG_CONFIG_HOME", "")
    return f"{config if config.startswith('/') else f'{home}/.config'}/systemd/user"


def enable_unit(folder: str, name: str, text: str, uid: int) -> None:
    """As `systemctl enable` does it, which needs a manager that runs."""
    wants = f"{folder}/{target(uid)}.wants"
    os.makedirs(wants, exist_ok=True)
    write_atomic(f"{folder}/{name}", text.encode(), 0o644)
    unlink_if_exists(f"{wants}/{name}")
    os.symlink(f"{folder}/{name}", f"{wants}/{name}")


def disable_unit(folder: str, name: str, uid: int) -> bool:
    """Whether there was one."""
    there = os.path.lexists(f"{folder}/{name}")
    for path in (f"{folder}/{target(uid)}.wants/{name}", f"{folder}/{name}"):
        unlink_if_exists(path)
    return there


# ------------------------------------------------------------------------------- crontab


def cron_line(file: str, store: str, environ: Mapping[str, str]) -> str:
    import shlex

    kept = [f"{name}={shlex.quote(environ[name])}" for name in VARIABLES if name in environ]
    command = " ".join([*kept, shlex.quote(file), "daemon start", _mark(store)])
    # A % ends the command for cron, and begins its input.
    return f"@reboot {command}".replace("%", "\\%").replace("\n", " ")


def _mark(store: str) -> str:
    return f"# {unit_name(store)}"


def with_line(table: str, store: str, line: str) -> str:
    """`table` with `line` in place of what was there for this store; none for ""."""
    kept = [old for old in table.splitlines() if not old.endswith(_mark(store))]
    if line:
        kept.append(line)
    return "".join(f"{text}\n" for text in kept)
