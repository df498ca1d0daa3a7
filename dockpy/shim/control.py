"""The shim's side of its control sockets: any number of daemons, of which at most one is alive."""

from __future__ import annotations

import _socket
import errno
import os
from collections import deque

from dockpy import files
from dockpy.shim.loop import POLLIN, POLLOUT
from dockpy.shim.packets import BadMessage, receive_packet, send_packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from dockpy.shim.loop import Loop

# A daemon that has not read so many messages is given up; its successor asks for the state.
MOST_UNREAD = 1000


class Control:
    """One connected daemon; requests go to `serve`, which owns the descriptors it gets."""

    def __init__(
        self,
        loop: Loop,
        fd: int,
        serve: Callable[[Control, dict[str, Any], list[int]], None],
        on_change: Callable[[Control], None],
    ) -> None:
        self._loop = loop
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        self._sock.setblocking(False)
        self._serve = serve
        self._on_change = on_change
        self._unsent: deque[Mapping[str, object]] = deque()
        self.closed = False
        loop.watch(fd, POLLIN, self._ready)

    @property
    def flushed(self) -> bool:
        return not self._unsent

    def send(self, message: Mapping[str, object]) -> None:
        if self.closed:
            return
        self._unsent.append(message)
        if len(self._unsent) > MOST_UNREAD:
            self.close()
        elif len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                send_packet(self._sock, self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            self._loop.watch(self._sock.fileno(), POLLIN | POLLOUT, self._ready)
            return
        except OSError:
            self.close()

    def _ready(self, events: int) -> None:
        if events & POLLOUT:
            self._loop.watch(self._sock.fileno(), POLLIN, self._ready)
            self._flush()
            self._on_change(self)
        if self.closed or not events & ~POLLOUT:
            return
        try:
            packet = receive_packet(self._sock)
        except BlockingIOError:
            return
        except (BadMessage, OSError):
            packet = None
        if packet is None:
            self.close()
            return
        self._serve(self, *packet)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._unsent.clear()
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._on_change(self)


def listening(path: str) -> _socket.socket | None:
    """The socket that later daemons connect to, 0600; None where it cannot be made (SIGHUP: again)."""
    for _ in range(2):
        sock = _socket.socket(
            _socket.AF_UNIX,
            _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK,
        )
        try:
            os.fchmod(sock.fileno(), 0o600)
            sock.bind(path)
            sock.listen(16)
            return sock
        except OSError as error:
            sock.close()
            number = error.errno
        if number == errno.EADDRINUSE:  # of a shim before us
            files.unlink_if_exists(path)
        elif number != errno.ENOENT or not _made(os.path.dirname(path)):
            break
    return None


def _made(folder: str) -> bool:
    """Folder and run folder, 0700 both; they may be deleted, or made by others, at any moment."""
    for path in (os.path.dirname(folder), folder):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        except OSError:
            break
    return os.path.isdir(folder)


class Listener:
    """Accepts daemons; makes the socket again when somebody has deleted it."""

    def __init__(
        self, loop: Loop, path: str, fd: int | None, accept: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._path = path
        self._accept = accept
        self._sock: _socket.socket | None = None
        if fd is not None:
            self._watch(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd))

    def _watch(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._loop.watch(sock.fileno(), POLLIN, self._ready)

    def ensure(self) -> None:
        """Errors stay silent: the next SIGHUP asks again."""
        if self._sock is not None and os.access(self._path, os.F_OK):
            return
        try:
            sock = listening(self._path)
        except OSError:
            return
        if sock is not None:
            if self._sock is not None:
                self._loop.forget(self._sock.fileno())
                self._sock.close()
            self._watch(sock)

    def _ready(self, _events: int) -> None:
        assert self._sock is not None
        try:
            fd, _ = self._sock._accept()  # type: ignore[attr-defined]  # absent from the stubs
        except OSError:
            return
        self._accept(fd)

    def close(self) -> None:
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            self._sock.close()

    def remove(self) -> None:
        """At the end of the shim."""
        if self._sock is not None:
            files.unlink_if_exists(self._path)
