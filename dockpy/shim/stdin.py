"""Towards the container: what its clients type or send, into its pipe or pty (see shim.stdio)."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import stat
import termios
from collections import deque

from dockpy.linux.pipes import SPLICE_F_NONBLOCK, splice
from dockpy.shim.loop import POLLERR, POLLHUP, POLLIN, POLLOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.shim.clients import Client
    from dockpy.shim.loop import Loop
    from dockpy.shim.packets import Attachment

BLOCK = 1 << 20  # moved or read at once, at most
# Four times the default is where throughput stops growing (measured); a megabyte would use up a user's
# pipe-user-pages-soft (64 MiB) with a few dozen busy containers and leave everyone one-page pipes.
BUSY_PIPE = 1 << 18
F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ comes with 3.10
DONTWAIT = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
NOT_NOW = (errno.EAGAIN, errno.EINTR)
VEOF = b"\x04"


def enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, BUSY_PIPE)
    except OSError:
        pass  # the user's pipe pages are used up: it goes on as it is


class Stdin:
    """The writing end of the process's stdin: a pipe, or the pty."""

    def __init__(self, loop: Loop, fd: int, *, tty: bool, once: bool) -> None:
        os.set_blocking(fd, False)
        self.loop = loop
        self.fd = fd
        self.tty = tty
        self.is_pipe = not tty
        self._once = once
        self._pending: deque[memoryview] = deque()
        self._armed = False
        self._ending = False
        self._sources: list[Source] = []
        self.closed = False

    def join(self, source: Source) -> None:
        self._sources.append(source)

    def leave(self, source: Source, *, gone: bool) -> None:
        """A source is over; for stdin_once that is the end of stdin. Not so at a terminal whose
        client is gone, or has detached: there somebody may attach again, as docker has it.
        """
        if source in self._sources:
            self._sources.remove(source)
            if self._once and not (gone and self.tty):
                self._ending = True
                self._finish()

    @property
    def full(self) -> bool:
        return self._armed

    def put(self, data: bytes) -> None:
        if self.closed or not data:
            return
        self._pending.append(memoryview(data))
        self._writable(0)

    def wait_room(self) -> None:
        if not self._armed and not self.closed:
            self._armed = True
            self.loop.watch(self.fd, POLLOUT, self._writable)

    def _writable(self, _events: int) -> None:
        if self.closed:
            return
        try:
            while self._pending:
                taken = os.write(self.fd, self._pending[0])
                if taken == len(self._pending[0]):
                    self._pending.popleft()
                else:
                    self._pending[0] = self._pending[0][taken:]
        except OSError as error:
            if error.errno not in NOT_NOW:
                self.close()
                return
            self.wait_room()
            return
        if self._armed:
            self.loop.forget(self.fd)
            self._armed = False
        self._finish()
        for source in tuple(self._sources):
            source.resume()

    def _finish(self) -> None:
        if not self._ending or self._pending or self.closed:
            return
        if self.tty:
            # A terminal has no end; in canonical mode its end-of-file character says the same.
            self._ending = False
            if _canonical(self.fd):
                self.put(VEOF)
        else:
            self.close()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.loop.forget(self.fd)
        os.close(self.fd)
        self._pending.clear()
        sources, self._sources = self._sources, []
        for source in sources:
            source.end()


def _canonical(pty: int) -> bool:
    try:
        return bool(termios.tcgetattr(pty)[3] & termios.ICANON)
    except termios.error:
        return False


class Source:
    """What a client sends as stdin: bytes of its connection, or a descriptor of its own."""

    def __init__(
        self, stdin: Stdin, client: Client, attachment: Attachment, conn: _socket.socket
    ) -> None:
        self._stdin = stdin
        self._client = client
        self._keys = DetachKeys(attachment.detach_keys) if stdin.tty else None
        self._reading = False
        self._over = False
        self._full_moves = 0
        sink = attachment.sinks.stdin
        self.reads_conn = sink is None
        self._fd = conn.fileno() if sink is None else sink
        self._socket: _socket.socket | None = conn if sink is None else None
        self._spliced = False
        if sink is not None:
            kind = os.fstat(sink).st_mode
            self._spliced = not stdin.tty and (stat.S_ISFIFO(kind) or stat.S_ISREG(kind))
            if stat.S_ISSOCK(kind):
                self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, sink)
        stdin.join(self)

    def begin(self, early: bytes) -> None:
        if early:
            self._take(early)
        self.resume()

    def resume(self) -> None:
        if not self._over and not self._reading and not self._stdin.full:
            self._reading = True
            self._stdin.loop.watch(self._fd, POLLIN, self._readable)

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._stdin.loop.forget(self._fd)
            if self.reads_conn:
                self._client.source_paused()

    def _readable(self, events: int) -> None:
        if self.reads_conn and events & (POLLHUP | POLLERR):
            self.take_rest()
            self._client.drop()
            return
        try:
            moved = self._splice() if self._spliced else self._copy()
        except OSError as error:
            if error.errno not in NOT_NOW:
                self.end()
            elif not self._over and self._stdin.full:
                self.pause()
            return
        if not moved:
            self.end()
            return
        if not self._over and self._stdin.full:
            self.pause()
        if moved >= 65536 and not self._stdin.tty and self._full_moves < 8:
            self._full_moves += 1
            if self._full_moves == 8:
                enlarge(self._stdin.fd)
                if self._spliced:
                    enlarge(self._fd)  # a file refuses it

    def take_rest(self) -> None:
        """The last bytes of a client that has hung up: they are in the socket, a buffer of it at
        most.
        """
        if self.reads_conn:
            try:
                while not self._over and self._copy():
                    pass
            except OSError:
                pass

    def _copy(self) -> int:
        if self._socket is not None:
            data = self._socket.recv(65536, DONTWAIT)
        else:
            data = os.read(self._fd, 65536)
        self._take(data)
        return len(data)

    def _splice(self) -> int:
        try:
            return splice(self._fd, self._stdin.fd, BLOCK, SPLICE_F_NONBLOCK)
        except BlockingIOError:
            # Poll said that there are bytes: it is the container that does not read.
            self._stdin.wait_room()
            raise
        except BrokenPipeError:
            self._stdin.close()
            raise BlockingIOError from None
        except OSError:
            self._spliced = False
            return self._copy()

    def _take(self, data: bytes) -> None:
        if self._keys is None:
            self._stdin.put(data)
            return
        data, detached = self._keys.filter(data)
        self._stdin.put(data)
        if detached:
            self._client.detach()

    def end(self) -> None:
        """The client's stdin is at its end; the client stays."""
        if not self._over:
            self.close()
            self._client.source_over()

    def close(self, *, gone: bool = False) -> None:
        if self._over:
            return
        self._over = True
        self._stdin.loop.forget(self._fd)
        if not self.reads_conn:
            if self._socket is not None:
                self._socket.close()
            else:
                os.close(self._fd)
        self._stdin.leave(self, gone=gone)


class DetachKeys:
    """Finds docker's detach sequence (`ctrl-p,ctrl-q`) in what is typed; a wrong key gives back the
    held ones.
    """

    def __init__(self, spec: str) -> None:
        self._keys = parse_keys(spec)
        self._held = 0

    def filter(self, data: bytes) -> tuple[bytes, bool]:
        """What the container shall see, and whether the sequence is complete."""
        keys = self._keys
        if not keys or (not self._held and keys[0] not in data):
            return data, False
        out = bytearray()
        for value in data:
            if value == keys[self._held]:
                self._held += 1
                if self._held == len(keys):
                    self._held = 0
                    return bytes(out), True
                continue
            out += keys[: self._held]
            self._held = 0
            if value == keys[0]:
                self._held = 1
            else:
                out.append(value)
        return bytes(out), False


def parse_keys(spec: str) -> bytes:
    """`a`, `ctrl-x` separated by commas, x one of a-z @ [ \\ ] ^ _; empty for one that is neither."""
    keys = bytearray()
    for word in spec.split(",") if spec else ():
        if len(word) == 1 and word.isascii():
            keys += word.encode("ascii")
        elif word.startswith("ctrl-") and len(word) == 6 and "@" <= word[5].upper() <= "_":
            keys.append(ord(word[5].upper()) - 64)
        else:
            return b""
    return bytes(keys)
