"""Runs commands and times them, as little else as can be: `python3 launcher.py`, as the user that is measured.

A request is a line of JSON, [command, environment, seconds]; the answer one, [milliseconds, exit status, last line on
stderr]. A process of its own because the bench is large and root: to fork it and to change the user takes milliseconds
that no shell takes, and that would be counted as the engine's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time


def timed(command: list[str], environ: dict[str, str], seconds: float) -> tuple[float, int, str]:
    """Raises OSError when it cannot be started; one that takes longer is killed."""
    errors = os.memfd_create("stderr")
    null = os.devnull
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, errors, 2),
    ]
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, environ, file_actions=actions)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _, status = os.waitpid(pid, 0)
    taken = (time.perf_counter() - start) * 1e3
    signal.setitimer(signal.ITIMER_REAL, 0)
    text = os.pread(errors, 1 << 16, 0).decode(errors="replace").strip()
    os.close(errors)
    return taken, os.waitstatus_to_exitcode(status), text.rpartition("\n")[2]


def main() -> None:
    for line in sys.stdin:
        command, environ, seconds = json.loads(line)
        print(json.dumps(timed(command, environ, seconds)), flush=True)


if __name__ == "__main__":
    main()
