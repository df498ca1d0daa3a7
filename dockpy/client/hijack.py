"""Attached streams: the hijacked connection of attach and exec, and the hand-over of the client's
own descriptors.

    client                          daemon                          shim
      POST …/attach?fds=stdout,…  -->
      <-- 101, Upgrade: dockpy-fds
      one byte F + descriptors    -->  connection + descriptors  -->  writes to them itself
      poll: connection, terminal keys, signals, the answer of /wait

What has no descriptor of ours comes as frames (raw with a tty), and stdin goes as raw bytes. A
docker daemon answers with Upgrade: tcp; then everything goes over the connection. A descriptor is
handed over only in a state that the far end cannot spoil: files and devices as they are, pipes and
terminals opened once more with O_NONBLOCK (a new open file description: the shell's own flags
stay), other users' pipes as they are (splice can be told not to wait), else the client pumps.
"""

from __future__ import annotations

import _socket
import os
import select
import sys

from dockpy.client.connection import Connection, Stream, target
from dockpy.client.errors import ApiError, Disconnected
from dockpy.client.output import err, write_all
from dockpy.client.terminal import DetachDetector
from dockpy.errors import DockpyError
from dockpy.http import stdcopy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.client.signals import Signals

READ = 256 << 10
PATIENCE = 15.0  # for a daemon that is started anew
UNAVAILABLE = 503
UPGRADE = "dockpy-fds"
NAMES = ("stdin", "stdout", "stderr")


# S_IFMT and its values: the stat module is one more file to read.
PIPE, CHARACTER, BLOCK, REGULAR, SOCKET = 0o010000, 0o020000, 0o060000, 0o100000, 0o140000


def _kind(fd: int) -> int:
    return os.fstat(fd).st_mode & 0o170000


def lendable(fd: int, write: bool) -> int | None:
    """A descriptor for the same file that may be handed to the shim; None when the client must
    pump.
    """
    try:
        kind = _kind(fd)
        if kind in (REGULAR, BLOCK) or (kind == CHARACTER and not os.isatty(fd)):
            return os.dup(fd)
        if kind == SOCKET:
            return None
        if kind == CHARACTER and not write:
            return None  # keys are read here: only this process knows who is in the foreground
        flags = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (os.O_WRONLY if write else os.O_RDONLY)
        try:
            return os.open(f"/proc/self/fd/{fd}", flags)
        except PermissionError:  # somebody else's, as after sudo
            return os.dup(fd) if kind == PIPE else None
    except OSError:
        return None


class Attachment:
    """An attach or exec-start request under way: sent at once, completed by `finish`."""

    def __init__(
        self,
        connection: Connection,
        path: str,
        query: dict[str, object],
        *,
        json: object = None,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
        keys: bytes,
        fresh: bool = True,
    ) -> None:
        self.tty = tty
        self._keys = keys
        self._wanted = dict(zip(NAMES, (stdin, stdout, stderr and not tty)))
        self._lent: dict[str, int] = {}
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        if connection.endpoint.own:
            for number, name in enumerate(NAMES):
                if self._wanted[name] and not (name == "stdin" and tty):
                    fd = lendable(number, write=number > 0)
                    if fd is not None:
                        self._lent[name] = fd
            headers["Upgrade"] = UPGRADE
            query = {**query, "fds": ",".join(self._lent)}
        self._opened = connection.open(
            "POST", target(path, query), json=json, headers=headers, fresh=fresh
        )

    def finish(self) -> Streams:
        stream = self._opened.stream()
        upgraded = stream.head.headers.get("upgrade", "").lower()
        if stream.head.status not in (101, 200):
            stream.close()
            raise Disconnected(f"unable to upgrade to tcp, received {stream.head.status}")
        if upgraded == UPGRADE:
            if self._lent:
                descriptors = b"".join(fd.to_bytes(4, sys.byteorder) for fd in self._lent.values())
                stream.socket.sendmsg(
                    [b"F"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)]
                )
            lent = frozenset(self._lent)
        else:
            lent = frozenset()
        self.release()
        return Streams(
            stream.socket,
            stream.leftover(),
            framed=not self.tty,
            stdin=self._wanted["stdin"] and "stdin" not in lent,
            detach=DetachDetector(self._keys if self.tty else b""),
            outputs={1: "stdout" in lent, 2: "stderr" in lent},
            dockpy=upgraded == UPGRADE,
        )

    def release(self) -> None:
        """Closes the client's copies: only the shim's may keep a pipe open."""
        for fd in self._lent.values():
            os.close(fd)
        self._lent = {}


class Streams:
    """Both directions of an attached connection, and whatever else is to be waited for meanwhile."""

    def __init__(
        self,
        sock: _socket.socket,
        leftover: bytes,
        *,
        framed: bool,
        stdin: bool,
        detach: DetachDetector,
        outputs: dict[int, bool],
        dockpy: bool,
    ) -> None:
        self._socket = sock
        self._frames = stdcopy.FrameReader() if framed else None
        self._stdin = stdin
        self._detach = detach
        self._dockpy = dockpy
        self._pending = b""
        self._half_closed = False
        self._watched = [fd for fd, lent in outputs.items() if lent and _kind(fd) == PIPE]
        self.output_over = False
        self.exit_code: int | None = None  # when the stream's end told it
        self.lost = False  # output that could not be written
        self._deliver(leftover)

    @property
    def detached(self) -> bool:
        return self._detach.detached

    def _deliver(self, data: bytes) -> None:
        if not data:
            return
        if self._frames is None:
            write_all(1, data)
            return
        for stream, piece in self._frames.feed_grouped(data):
            if stream == stdcopy.EXIT:
                self.exit_code = piece[0]
                continue
            if stream == stdcopy.SYSTEM_ERROR:
                self.lost = True
                err(piece.decode("utf-8", "replace"))
                continue
            write_all(2 if stream == stdcopy.STDERR else 1, piece)

    def run(
        self, waiter: Waiter | None, signals: Signals | None, on_signal: Callable[[int], None]
    ) -> None:
        """Until the output is over and `waiter` has its answer, or the detach keys were typed."""
        while not self.detached and not (self.output_over and (waiter is None or waiter.over)):
            poll = select.poll()
            if not self.output_over:
                poll.register(
                    self._socket, select.POLLIN | (select.POLLOUT if self._pending else 0)
                )
                if self._stdin and not self._pending:
                    poll.register(0, select.POLLIN)
            if waiter is not None and not waiter.over:
                poll.register(waiter.fileno(), select.POLLIN)
            if signals is not None:
                poll.register(signals.fd, select.POLLIN)
            for fd in self._watched:
                poll.register(fd, 0)
            for fd, events in poll.poll():
                if fd == self._socket.fileno():
                    if events & select.POLLOUT:
                        self._send()
                    if events & ~select.POLLOUT:
                        self._receive()
                elif signals is not None and fd == signals.fd:
                    for number in signals.read():
                        on_signal(number)
                elif waiter is not None and fd == waiter.fileno():
                    waiter.receive()
                elif fd in self._watched and events & select.POLLERR:
                    # The shim writes there in our stead, so the end that its
                    # reader made is ours too.
                    raise BrokenPipeError
                elif fd == 0 and self._stdin:
                    self._typed()
        if self.detached:
            self._socket.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(READ)
        except ConnectionError:
            data = b""
        if data:
            self._deliver(data)
        else:
            self.output_over = True
            self._socket.close()

    def _typed(self) -> None:
        try:
            data = os.read(0, READ)
        except OSError:
            data = b""  # EIO: the terminal hung up
        if data:
            passed = self._detach.feed(data)
            # The shim watches for the keys too: seeing them, it knows a farewell from a broken line.
            self._pending = data if self._dockpy else passed
            self._send()
            return
        self._stdin = False
        self._half_close()

    def _half_close(self) -> None:
        try:
            self._socket.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # it is over already

    def _send(self) -> None:
        if not self._pending:
            return
        try:
            sent = self._socket.send(self._pending, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
            self._pending = self._pending[sent:]
        except BlockingIOError:
            pass
        except OSError:
            # Nobody reads any more; what is still to come of the output is read all the same.
            self._pending, self._stdin = b"", False


class Waiter:
    """The answer of POST /containers/{id}/wait, asked anew when the daemon dies meanwhile."""

    def __init__(self, connection: Connection, container: str, condition: str) -> None:
        self._connection = connection
        self._path = f"/containers/{container}/wait"
        self._condition = condition
        self.over = False
        self.status = -1
        self.message = ""
        self._body = b""
        self._opened = connection.open(
            "POST", target(self._path, {"condition": condition}), fresh=True
        )
        self._stream: Stream | None = None

    def begun(self) -> None:
        """Returns when the daemon has said that it waits: from then on no exit is missed."""
        self._stream = self._opened.stream()
        self._take()

    def fileno(self) -> int:
        assert self._stream is not None
        return self._stream.socket.fileno()

    def receive(self) -> None:
        assert self._stream is not None
        try:
            self._stream.receive()
            self._take()
        except (Disconnected, OSError):
            self._ask_again()

    def _take(self) -> None:
        assert self._stream is not None
        self._body += self._stream.buffered()
        if self._stream.over:
            self._stream.close()
            self._finish()

    def _finish(self) -> None:
        from dockpy.client.connection import decoded

        raw = decoded(self._body)
        self.over = True
        if isinstance(raw, dict) and isinstance(raw.get("StatusCode"), int):
            self.status = raw["StatusCode"]
            error = raw.get("Error")
            if isinstance(error, dict):
                self.message = str(error.get("Message") or "")

    def _ask_again(self) -> None:
        """The new daemon knows from the exit file what happened meanwhile; it may take a moment to come."""
        import time

        assert self._stream is not None
        self._stream.close()
        self._body = b""
        # `next-exit` would wait for ever for a container that has ended by now.
        condition = "removed" if self._condition == "removed" else "not-running"
        deadline, pause = time.monotonic() + PATIENCE, 0.02
        while True:
            try:
                self._stream = self._connection.stream("POST", self._path, {"condition": condition})
                break
            except (DockpyError, OSError) as error:
                final = isinstance(error, ApiError) and error.status != UNAVAILABLE
                if final or time.monotonic() > deadline:
                    self.over = True
                    self.message = error.message if isinstance(error, ApiError) else str(error)
                    return
            time.sleep(pause)
            pause = min(pause * 2, 0.5)
        self._take()

    def finish(self) -> int:
        """Blocks until the answer is there."""
        while not self.over:
            self.receive()
        return self.status

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        else:
            self._opened.socket.close()
