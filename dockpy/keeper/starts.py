"""One fork for each start message: the shims' birth, and all that a keeper does while it has nothing
else to do. The fork comes before the message: who waits for a container does not wait for it.

By as few objects as can be: a page that the keeper writes to between two forks is one that the shims
cannot share, each keeps its own old copy. So nothing is parsed here.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import signal
import sys
import traceback

from dockpy.fastjson import dumps
from dockpy.linux.processes import pidfd_open
from dockpy.shim.loop import POLLIN
from dockpy.shim.main import QUIET
from dockpy.shim.main import main as shim_main
from dockpy.shim.packets import BadMessage, close_others, receive_raw, send_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.linux.title import Title
    from dockpy.shim.worker import Launcher

PIDFD_OPEN = getattr(os, "pidfd_open", pidfd_open)  # ours costs the shims ten pages
SHIM = b'{"op":"shim","seq":'
HEAD = 80
# So many ms after a start the next shim is forked: a start takes ten, and is not to be disturbed.
PAUSE = 15


class Starts:
    """`rest` and `quiet`: see Shim.run. `keep`: further descriptors for the shims."""

    def __init__(
        self,
        launcher: Launcher,
        title: Title,
        rest: Callable[[], None],
        quiet: int = QUIET,
        keep: tuple[int, ...] = (),
    ) -> None:
        self._launcher = launcher
        self._title = title
        self._rest = rest
        self._quiet = quiet
        self._keep = keep
        self._next: tuple[int, _socket.socket] | None = None  # a shim that waits for its message
        self._wanted = False
        self._expecting = True

    def prepare(self) -> None:
        """Forks the next shim."""
        self._wanted = False
        with contextlib.suppress(OSError):  # the start itself will say so
            self._next = self._fork(expecting=self._expecting)

    def close(self) -> None:
        """The one that waits ends."""
        if self._next is not None:
            self._next[1].close()
            self._next = None

    def serve(
        self,
        link: _socket.socket,
        poll: Callable[[int | None], list[tuple[int, int]]],
        timeout: int | None,
    ) -> tuple[bytes, list[int]] | None:
        """Forks for as long as nothing else happens; None when that does. Else a packet that is no
        start, and its descriptors: no bytes at the link's end.
        """
        start = [(link.fileno(), POLLIN)]
        while True:
            idle = self._wanted and (timeout is None or timeout > PAUSE)
            happened = poll(PAUSE if idle else timeout)
            if idle and not happened:
                self.prepare()
                continue
            if happened != start:
                return None
            try:
                packet = receive_raw(link)
            except (BadMessage, OSError):
                packet = None
            if packet is None:
                return b"", []
            data, fds = packet
            if not data.startswith(SHIM):
                return packet
            # As keeper.protocol writes it: the seq is found unparsed.
            self.start(link, data[len(SHIM) : data.index(b",", len(SHIM))], data, fds)
            for fd in fds:
                os.close(fd)

    def start(self, link: _socket.socket, seq: bytes, data: bytes, fds: list[int]) -> None:
        """The shim of one message, and the answer; the descriptors stay the caller's."""
        pidfd = -1
        try:
            pid = self._hand_over(data, fds)
            pidfd = PIDFD_OPEN(pid)  # its zombie is there until the keeper's own loop reaps it
            answer = b'{"seq":%b,"pid":%d}' % (seq, pid)
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pidfd.to_bytes(4, sys.byteorder))]
        except OSError as error:
            text = f"cannot start a shim: {error.strerror}"
            answer, rights = dumps({"seq": int(seq), "error": text}), []
        with contextlib.suppress(OSError):  # a dying daemon; its successor finds the shim's record
            link.sendmsg([answer], rights)
        if pidfd >= 0:
            os.close(pidfd)

    def _hand_over(self, data: bytes, fds: list[int]) -> int:
        waiting, self._next, self._wanted = self._next, None, True
        # As keeper.protocol writes it; those who are born into a control group are not made beforehand.
        self._expecting = b'"group":null,' in data[:HEAD]
        if waiting is not None:
            try:
                return _send(waiting, data, fds)
            except OSError:
                pass  # somebody has killed it
        return _send(self._fork(expecting=False), data, fds)

    def _fork(self, *, expecting: bool) -> tuple[int, _socket.socket]:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid:
            theirs.close()
            return pid, ours
        status = 70
        try:
            close_others((theirs.fileno(), *self._keep))
            shim_main(
                theirs,
                self._launcher,
                self._title,
                self._rest,
                self._quiet,
                expecting=expecting,
            )
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            flush()
            os._exit(status)


def _send(waiting: tuple[int, _socket.socket], data: bytes, fds: list[int]) -> int:
    pid, line = waiting
    try:
        send_raw(line, data, fds)
    finally:
        line.close()
    return pid


def flush() -> None:
    """Before os._exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass


def default_signals() -> None:
    """For the daemon, a program of its own kind."""
    signal.set_wakeup_fd(-1)
    for number in (
        signal.SIGCHLD,
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):
        signal.signal(number, signal.SIG_DFL)
