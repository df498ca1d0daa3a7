"""What the memory of a shim at rest looks like, recorded from one with a container of nothing.

For linux.samepage: later shims share with each other what they have in common with it. So it is
forked by the same code, as late as can be, and lives through what most shims do: a container's
start, some lines of log, an exec, and then nothing.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import gc
import os
import select
import signal
import sys

from dockpy import ids
from dockpy.keeper.protocol import Born, KeeperLink
from dockpy.keeper.rehearsal import FRESH, Extra, remove
from dockpy.keeper.starts import Starts
from dockpy.linux.samepage import Samepage
from dockpy.shim.loop import POLLIN, Loop
from dockpy.shim.protocol import Attachment, LogConfig, ShimLink, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.linux.title import Title
    from dockpy.paths import Paths

# The keeper's own code and caches settle when they are first used; the last recording counts.
TIMES = 3
QUIET, PATIENCE = 10, 2000  # ms


def nothing() -> None:
    """The rest of a shim that shares no pages."""


def learned(paths: Paths, title: Title) -> Callable[[], None]:
    """What a shim of this keeper shall do when it comes to rest."""
    try:
        return _record(paths, title).merge
    except OSError as error:  # an optimisation
        with contextlib.suppress(OSError):  # the log is on the same full disk
            print(f"shims at rest share no pages: {error}", file=sys.stderr)
        return nothing


def _record(paths: Paths, title: Title) -> Samepage:
    folder = f"{paths.tmp}/recording-{os.getpid()}"
    samepage = Samepage()

    def rest() -> None:
        samepage.record()
        os._exit(0)

    starts = Starts(Extra(), title, rest, QUIET, (samepage.file,))
    for _ in range(TIMES):
        gc.freeze()
        os.makedirs(folder, 0o700)
        try:
            _once(folder, starts)
        finally:
            starts.close()
            remove(folder)
    samepage.adopt()
    return samepage


def _once(folder: str, starts: Starts) -> None:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    daemon = KeeperLink(ours.detach())
    link, control = ShimLink.pair()
    client, conn = _socket.socketpair()
    try:
        log = LogConfig("local", f"{folder}/log")
        start = Start("0" * 64, folder, f"{folder}/s", ids.boot_id(), log, fresh=FRESH)
        starts.prepare()
        daemon.start_shim(start, control)
        link.exec("0", {}, attachments=(Attachment(conn.fileno(), exit=True),))
        os.close(control)
        conn.close()
        once = Loop()
        once.watch(theirs.fileno(), POLLIN, lambda _: None)
        starts.serve(theirs, once.poll, 0)
        born = daemon.receive()
        if not isinstance(born, Born):
            raise OSError(errno.ECHILD, "it could not be started")
        _wait(born)
    finally:
        daemon.close()
        theirs.close()
        link.close()
        client.close()


def _wait(shim: Born) -> None:
    ended = select.poll()
    ended.register(shim.pidfd, POLLIN)
    if not ended.poll(PATIENCE):
        os.kill(shim.pid, signal.SIGKILL)
    os.close(shim.pidfd)
    _, status = os.waitpid(shim.pid, 0)
    if status:
        raise OSError(errno.ECHILD, f"it has failed (status {status})")
