"""A runtime without namespaces: the bundle's process as a plain child, so that the shim is tested
alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import termios
from typing import TYPE_CHECKING, Any

from dockpy.linux.processes import CLONE_PARENT, clone
from dockpy.shim.protocol import NotStarted
from dockpy.shim.worker import Launcher

if TYPE_CHECKING:
    from collections.abc import Mapping


class PlainLauncher(Launcher):
    """`process.args` of config.json, found in PATH, nothing else of it."""

    def create(
        self, bundle: str, stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
    ) -> tuple[int, int | None]:
        with open(f"{bundle}/config.json") as file:
            process = json.load(file)["process"]
        return _spawn(process["args"], stdio, size)

    def exec(
        self,
        bundle: str,
        process: Mapping[str, Any],
        init_pid: int,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> tuple[int, int | None]:
        return _spawn(process["args"], stdio, size)


def _spawn(
    args: list[str], stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
) -> tuple[int, int | None]:
    master, slave = pty.openpty() if stdio is None else (-1, -1)
    if stdio is None:
        stdio = (slave, slave, slave)
        if size:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    fault, tell = os.pipe()
    pid, _ = clone(CLONE_PARENT)
    if pid == 0:
        try:
            os.setsid()
            for number in range(1, 65):
                if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                    try:
                        signal.signal(number, signal.SIG_DFL)
                    except (OSError, ValueError):
                        pass
            for target, fd in enumerate(stdio):
                os.dup2(fd, target)
            if slave >= 0:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            os.execvp(args[0], args)
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(tell)
    failed = os.read(fault, 100)
    os.close(fault)
    if slave >= 0:
        os.close(slave)
    if failed:
        raise NotStarted(
            127, f'OCI runtime exec failed: exec: "{args[0]}": executable file not found in $PATH'
        )
    return pid, (master if master >= 0 else None)
