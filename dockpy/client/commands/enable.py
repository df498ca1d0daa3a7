"""`daemon enable|disable`: whether the daemon starts with the machine, and with it what `restart: always` asks for."""

from __future__ import annotations

import os
import subprocess

from dockpy.client import boot, service
from dockpy.client.errors import CommandError
from dockpy.client.output import err, out
from dockpy.paths import NoHome, home, job_of, store_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

_NEITHER = (
    "neither is possible here: no systemd runs that would start a daemon of this user's, and there is no crontab; "
    "have something else run 'dockpy daemon start' when the machine starts"
)


def daemon_enable_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    uid, environ = os.geteuid(), cli.environ
    if not cli.own_daemon:
        raise CommandError(f"{cli.host} is not a daemon of this user's store: unset DOCKER_HOST")
    if job_of(environ):
        raise CommandError(
            "the daemon of a batch job ends with it, and does not start with the machine"
        )
    store, file = store_of(environ, uid), _file(environ)
    manager = service.manager(environ, uid)
    if manager is not None:
        name, folder = boot.unit_name(store), boot.unit_folder(environ, uid, home(environ, uid))
        boot.enable_unit(folder, name, boot.unit_text(file, store, environ, uid), uid)
        _reload(manager)
        out(f"Enabled by {folder}/{name}\n")
        if uid != 0:
            _tell_of_linger(uid)
        return 0
    table = _crontab()
    if table is None:
        raise CommandError(_NEITHER)
    _write_crontab(boot.with_line(table, store, boot.cron_line(file, store, environ)))
    out("Enabled by a line @reboot of the crontab; see it with 'crontab -l'\n")
    if not _cron_runs():
        err("WARNING: no cron daemon runs at present: without one nothing is started\n")
    return 0


def daemon_disable_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    out("Disabled\n" if disable(cli.environ) else "It was not enabled\n")
    return 0


def disable(environ: Mapping[str, str]) -> bool:
    """Whether something was there; both are looked for: the manager may have gone since."""
    uid = os.geteuid()
    store = store_of(environ, uid)
    try:
        folder = boot.unit_folder(environ, uid, home(environ, uid))
    except NoHome:
        there = False
    else:
        there = boot.disable_unit(folder, boot.unit_name(store), uid)
    manager = service.manager(environ, uid) if there else None
    if manager is not None:
        _reload(manager)
    table = _crontab()
    if table is not None and (without := boot.with_line(table, store, "")) != table:
        _write_crontab(without)
        there = True
    return there


def _file(environ: Mapping[str, str]) -> str:
    """The file that the person has run; it must be there at the next start of the machine."""
    named = environ.get("DOCKPY_FILE", "")  # dockpy.unpack, at the first command of a build
    if not named:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        # As build/preamble.sh starts it: python3 -IS -c CODE FILE APP …
        named = os.fsdecode(words[4]) if words[2:3] == [b"-c"] and len(words) > 5 else ""
    path = os.path.abspath(named)
    if not named or not os.path.isfile(path):
        raise CommandError("only the built file can be started with the machine, not its sources")
    return path


def _tell_of_linger(uid: int) -> None:
    import pwd

    user = pwd.getpwuid(uid).pw_name
    if os.path.exists(f"/var/lib/systemd/linger/{user}"):
        return
    out(
        "systemd starts it at your first login and ends it at your last logout, containers too. To have it from "
        f"the machine's start to its end, whether you are logged in or not:\n  loginctl enable-linger {user}\n"
    )


def _reload(manager: service.Manager) -> None:
    command, environ = manager
    # systemctl lies beside systemd-run.
    program = os.path.join(os.path.dirname(command[0]), "systemctl")
    subprocess.run(
        [program, *command[1:], "daemon-reload"],
        env=dict(environ),
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _program() -> str | None:
    import shutil

    return shutil.which("crontab")


def _crontab() -> str | None:
    """The user's table; None where there is no crontab, or the user may have none."""
    program = _program()
    if program is None:
        return None
    done = subprocess.run([program, "-l"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    return "" if "no crontab for" in done.stderr else None


def _write_crontab(table: str) -> None:
    program = _program() or "crontab"
    words = [program, "-"] if table else [program, "-r"]
    done = subprocess.run(words, input=table, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"crontab: {done.stderr.strip()}")


def _cron_runs() -> bool:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/comm", "rb") as file:
                    if file.read().strip() in (b"cron", b"crond", b"fcron", b"busybox-crond"):
                        return True
            except OSError:
                continue
    return False
