"""`top`: the host's ps, with the options that were asked for, cut down to a container's processes.

As docker does it, so that every format of ps works; without a ps on the host, a table of our own for
ps's `-ef`. Blocks: for a worker thread.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Collection

from dockpy.errors import DockpyError, InvalidParameter, NotServed
from dockpy.linux.proctable import TICKS, Process

PATIENCE = 10.0  # seconds that ps may take
FULL = "-ef"


def show(processes: Collection[Process], options: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows. InvalidParameter: options that ps refuses, or that hide the PID."""
    options = options or FULL
    # Another column that is called PID would be taken for it.
    for key, value in re.findall(r"\s+([^\s]*)=\s*(PID[^\s]*)", options, re.ASCII):
        if key != "pid":
            raise InvalidParameter(f'specifying "{key}={value}" is not allowed')
    program = shutil.which("ps", path="/usr/local/bin:/usr/bin:/bin")
    if program is not None:
        pids = {one.pid for one in processes}
        return parsed(_ask(program, options.split(" "), pids), pids)
    if options != FULL:
        raise NotServed(f"this host has no ps, so `top` serves the options {FULL} only")
    return own(processes)


def _ask(program: str, options: list[str], pids: Collection[int]) -> str:
    """Some options (f) do not go with -q; then ps shows all there is."""
    chosen = f"-q{','.join(map(str, sorted(pids)))}"
    for words in ([program, *options, chosen], [program, *options]):
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd="/",
                env={"LC_ALL": "C.UTF-8"},
                timeout=PATIENCE,
                check=False,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL among the options
            raise InvalidParameter(f"ps: {error}") from None
        except subprocess.TimeoutExpired:
            raise DockpyError(f"ps did not end within {PATIENCE:.0f} s") from None
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "replace")
    first = done.stderr.decode("utf-8", "replace").partition("\n")[0]
    raise InvalidParameter(f"ps: {first or f'exit status {done.returncode}'}")


def parsed(output: str, pids: Collection[int]) -> tuple[list[str], list[list[str]]]:
    """Of what ps has printed, the rows of those processes and of their threads."""
    head, *lines = output.split("\n")
    titles = _fields(head)
    if "PID" not in titles:
        raise InvalidParameter("Couldn't find PID field in ps output")
    at = titles.index("PID")
    rows = []
    ours = False
    for line in lines:
        fields = _fields(line)
        if len(fields) <= at:
            continue
        if fields[at] != "-":  # else a thread of the process above
            if not fields[at].isdigit():
                raise InvalidParameter(f"Unexpected pid '{fields[at]}' in the output of ps")
            ours = int(fields[at]) in pids
        if ours:
            last = len(titles) - 1
            rows.append([*fields[:last], " ".join(fields[last:])])
    return titles, rows


def _fields(line: str) -> list[str]:
    """By ASCII's spaces only: a command may hold others."""
    return [field for field in re.split(r"[ \t\n\v\f\r]+", line) if field]


def own(processes: Collection[Process]) -> tuple[list[str], list[list[str]]]:
    """As `ps -ef` shows them."""
    with open("/proc/uptime", encoding="ascii") as file:
        up = float(file.read().split()[0])
    rows = []
    for one in sorted(processes, key=lambda found: found.pid):
        try:
            uid = os.stat(f"/proc/{one.pid}").st_uid
            with open(f"/proc/{one.pid}/cmdline", "rb") as file_:
                command = file_.read().rstrip(b"\0").replace(b"\0", b" ")
            with open(f"/proc/{one.pid}/stat", "rb") as file_:
                tty = int(file_.read().rpartition(b")")[2].split()[4])
        except (OSError, IndexError):
            continue  # it has ended
        age = max(up - one.start / TICKS, 0.01)
        used = one.user + one.system
        begun = time.time() - age
        day = age < 86400
        rows.append(
            [
                _name(uid),
                str(one.pid),
                str(one.parent),
                str(min(int(used * 100 / age), 99)),
                time.strftime("%H:%M" if day else "%b%d", time.localtime(begun)),
                f"pts/{tty & 0xFF}" if tty else "?",
                time.strftime("%H:%M:%S", time.gmtime(used)),
                (command or b"[%s]" % one.name).decode("utf-8", "replace"),
            ]
        )
    return ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], rows


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
