"""A container of nothing, started and ended a few times in the keeper itself, before it forks shims.

The interpreter writes into code and caches when they are first used. What is written once here lies
in pages that all shims share; else each shim would write, and so own, them: some 300 KB (CPython 3.11).
Nothing depends on it: a rehearsal that fails is told to the log, and that is all.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import signal
import time
import traceback

from dockpy import ids
from dockpy.fastjson import dumps
from dockpy.linux.processes import CLONE_PARENT, PR_SET_PDEATHSIG, clone, prctl
from dockpy.runtime.conversation import EXEC
from dockpy.shim.main import Shim
from dockpy.shim.protocol import Attachment, ExecExit, LogConfig, ShimLink, Start
from dockpy.shim.worker import Launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from dockpy.linux.title import Title
    from dockpy.paths import Paths

# CPython 3.11 writes its specialised code after eight calls.
TIMES = 9
MOST_TURNS = 200
PATIENCE = 2.0
FRESH = ("pid", "ipc", "uts", "network", "mount")


class Extra(Launcher):
    """A process that says a line, and stays if it is a container's first."""

    def become(
        self,
        line: int,
        made: int,
        folders: list[int],
        bundle: str,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> NoReturn:
        os.write(line, EXEC)
        _play(stdio, stays=True)

    def create(
        self, bundle: str, stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
    ) -> tuple[int, int | None]:
        return _extra(stdio, stays=True), None

    def exec(
        self,
        bundle: str,
        process: Mapping[str, Any],
        init_pid: int,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> tuple[int, int | None]:
        return _extra(stdio, stays=False), None


def _extra(stdio: tuple[int, int, int] | None, *, stays: bool) -> int:
    pid, pidfd = clone(CLONE_PARENT)
    if pid == 0:
        _play(stdio, stays=stays)
    if pidfd >= 0:
        os.close(pidfd)
    return pid


def _play(stdio: tuple[int, int, int] | None, *, stays: bool) -> NoReturn:
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if stdio is not None:
            os.write(stdio[1], b"rehearsal\n")
        # As an execve would: the end of the shim's line says that it runs.
        os.closerange(3, 1024)
        if stays:
            time.sleep(PATIENCE)
    finally:
        os._exit(0)


def rehearse(paths: Paths, title: Title) -> None:
    """Leaves the signals' pipe closed: the caller opens its own again."""
    folder = f"{paths.tmp}/rehearsal-{os.getpid()}"
    _sweep(paths)
    try:
        os.makedirs(folder, 0o700)
        for _ in range(TIMES):
            _once(folder, title)
    except (OSError, ValueError):
        with contextlib.suppress(OSError):  # the log, too, may be on a full disk
            traceback.print_exc()
    finally:
        remove(folder)


def _sweep(paths: Paths) -> None:
    """What keepers have left that were killed at it: a store has one at a time."""
    with contextlib.suppress(OSError):
        for name in os.listdir(paths.tmp):
            if name.startswith(("rehearsal-", "recording-")):
                remove(f"{paths.tmp}/{name}")


def remove(folder: str) -> None:
    with contextlib.suppress(OSError):
        for path, folders, names in os.walk(folder, topdown=False):
            for name in names:
                os.unlink(f"{path}/{name}")
            for name in folders:
                os.rmdir(f"{path}/{name}")
        os.rmdir(folder)


def _once(folder: str, title: Title) -> None:
    client, conn = _socket.socketpair()
    link, control = ShimLink.pair()
    fds: list[int] = []
    start = Start(
        "0" * 64,
        folder,
        f"{folder}/s",
        ids.boot_id(),
        LogConfig("local", f"{folder}/log"),
        attachments=(Attachment(conn.detach()),),
    )
    head = {"op": "shim", "seq": 1, "group": None, "fresh": FRESH}
    message = dumps({**head, "start": start.to_json(fds)})
    shim = Shim(Extra(), title, expecting=True)
    shim.start(message, [control, *fds])
    second, conn = _socket.socketpair()
    link.exec("0", {}, attachments=(Attachment(conn.fileno()),))
    conn.close()
    turns = 0
    while not shim.done and turns < MOST_TURNS:
        shim.turn()
        turns += 1
        with contextlib.suppress(BlockingIOError):
            while not isinstance(link.receive(), ExecExit):
                pass
            link.kill(signal.SIGKILL)
    shim.close()
    link.close()
    client.close()
    second.close()
