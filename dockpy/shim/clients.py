"""Towards the clients: their connections, their descriptors, and what waits for these (see shim.stdio)."""

from __future__ import annotations

import _socket
import errno
import os
import stat
import struct
from collections import deque

from dockpy.linux.pipes import SPLICE_F_NONBLOCK, splice, tee
from dockpy.shim.loop import POLLOUT
from dockpy.shim.stdin import BLOCK, DONTWAIT, NOT_NOW, Source, enlarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.shim.loop import Loop
    from dockpy.shim.packets import Attachment
    from dockpy.shim.stdio import ProcessIO

QUEUE_LIMIT = 1 << 20
LOSSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Queue:
    """What is to be written to one descriptor, which it owns. Ready-made for sockets and for the
    rest.
    """

    def __init__(self, loop: Loop, fd: int, on_room: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._on_room = on_room
        self._parts: deque[memoryview] = deque()
        self._size = 0
        self._armed = False
        self.closed = False
        self.error = 0  # why it could not be written
        kind = os.fstat(fd).st_mode
        self.is_pipe = stat.S_ISFIFO(kind)
        self._socket = (
            _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
            if stat.S_ISSOCK(kind)
            else None
        )
        # Handed over by a client that could not open it again. A terminal: a page at a time when poll
        # says so is what the kernel takes without waiting. A pipe that others fill, too, may be full
        # again by then, but splice from a pipe of ours does not wait.
        blocking = (self.is_pipe or stat.S_ISCHR(kind)) and os.get_blocking(fd) and not _is_null(fd)
        self._timid = blocking and not self.is_pipe
        self._relay = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if blocking and self.is_pipe else None
        self._staged = 0  # bytes in the relay; they still are the first of `_parts`, too

    @property
    def full(self) -> bool:
        return self._size >= QUEUE_LIMIT or (self._armed and not self._parts)

    @property
    def empty(self) -> bool:
        return not self._parts

    def put(self, header: bytes, data: memoryview) -> None:
        """All of it, now or later; `data` is the caller's again on return."""
        if self.closed:
            return
        taken = 0
        if not self._parts and not self._timid:
            try:
                taken = self._write([header, data] if header else [data])
            except OSError as error:
                if error.errno not in NOT_NOW:
                    self.error = error.errno or 0
                    self.close()
                    return
            if taken == len(header) + len(data):
                return
        rest = header[taken:] + bytes(data[max(taken - len(header), 0) :])
        self._parts.append(memoryview(rest))
        self._size += len(rest)
        self._arm()

    def splice_from(self, source: int) -> int:
        """Moves bytes from a pipe to this pipe; BlockingIOError arms it, so that `full` turns true."""
        try:
            return splice(source, self._fd, BLOCK, SPLICE_F_NONBLOCK)
        except BlockingIOError:
            self._arm()
            raise

    def tee_from(self, source: int) -> int:
        """The same with tee(2): the bytes stay in the source, too."""
        try:
            return tee(source, self._fd, BLOCK, SPLICE_F_NONBLOCK)
        except BlockingIOError:
            self._arm()
            raise

    def enlarge(self) -> None:
        enlarge(self._fd)

    def _write(self, parts: list[bytes | memoryview]) -> int:
        if self._socket is not None:
            return self._socket.sendmsg(parts, [], DONTWAIT)
        if self._relay is not None:
            if not self._staged:
                self._staged = os.writev(self._relay[1], parts)
            moved = splice(self._relay[0], self._fd, self._staged, SPLICE_F_NONBLOCK)
            self._staged -= moved
            return moved
        return os.writev(self._fd, parts)

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.watch(self._fd, POLLOUT, self._writable)

    def _writable(self, _events: int) -> None:
        try:
            while self._parts:
                part = self._parts[0]
                taken = self._write([part[:4096] if self._timid else part])
                self._size -= taken
                if taken == len(part):
                    self._parts.popleft()
                else:
                    self._parts[0] = part[taken:]
                if self._timid and self._parts:
                    break
        except OSError as error:
            if error.errno not in NOT_NOW:
                self.error = error.errno or 0
                self.close()
                return
        if not self._parts:
            self._loop.forget(self._fd)
            self._armed = False
        if self._size < QUEUE_LIMIT // 2:
            self._on_room()

    def close(self) -> None:
        """At once: what is queued is lost."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self._fd)
        self._parts.clear()
        self._size = 0
        self._armed = False
        for end in self._relay or ():
            os.close(end)
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)
        self._on_room()


def _is_null(fd: int) -> bool:
    return os.fstat(fd).st_rdev == os.makedev(1, 3)


class Client:
    """One attachment: its connection is its life."""

    def __init__(self, process: ProcessIO, attachment: Attachment) -> None:
        self._process = process
        self._loop = process.loop
        self._conn: _socket.socket | None = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_STREAM, 0, attachment.conn
        )
        self._framed = attachment.framed
        self._tells_exit = attachment.exit and attachment.framed
        self._queues: dict[int, Queue] = {}
        self._on_conn: Queue | None = None
        self._source: Source | None = None
        sinks = attachment.sinks
        for stream, wanted, sink in (
            (1, attachment.stdout, sinks.stdout),
            (2, attachment.stderr, sinks.stderr),
        ):
            if sink is not None:
                self._queues[stream] = Queue(self._loop, sink, process.settle)
            elif wanted:
                if self._on_conn is None:
                    self._on_conn = Queue(self._loop, os.dup(attachment.conn), process.settle)
                self._queues[stream] = self._on_conn
        if attachment.stdin and process.stdin is not None and not process.stdin.closed:
            self._source = Source(process.stdin, self, attachment, self._conn)
        elif sinks.stdin is not None:
            os.close(sinks.stdin)
        process.clients.append(self)
        if self._source is None or not self._source.reads_conn:
            self._watch_conn()
        if self._source is not None:
            self._source.begin(attachment.early)

    def _watch_conn(self) -> None:
        # With no events poll(2) still reports a hang-up, which ends the client.
        if self._conn is not None:
            self._loop.watch(self._conn.fileno(), 0, self._hung_up)

    def _hung_up(self, _events: int) -> None:
        if self._source is not None:
            self._source.take_rest()
        self.drop()

    def source_paused(self) -> None:
        self._watch_conn()

    def source_over(self) -> None:
        self._source = None
        self._watch_conn()

    def detach(self) -> None:
        self._process.on_detach()
        self.drop()

    def stream_full(self, stream: int) -> bool:
        queue = self._queues.get(stream)
        return queue is not None and queue.full

    @property
    def delivered(self) -> bool:
        return all(queue.empty for queue in self._queues.values())

    def takes(self, stream: int) -> bool:
        queue = self._queues.get(stream)
        return queue is not None and not queue.closed

    def raw_pipe(self, stream: int) -> Queue | None:
        """The pipe that stream goes to unframed, with nothing queued: one that splice can serve."""
        queue = self._queues.get(stream)
        if queue is None or not queue.is_pipe or not queue.empty or queue.closed:
            return None
        return queue

    def put(self, stream: int, data: memoryview) -> None:
        queue = self._queues.get(stream)
        if queue is not None:
            framed = self._framed and queue is self._on_conn
            queue.put(struct.pack(">BxxxL", stream, len(data)) if framed else b"", data)

    def enlarge(self, stream: int) -> None:
        queue = self._queues.get(stream)
        if queue is not None and queue.is_pipe and not queue.closed:
            queue.enlarge()

    def tell_exit(self, code: int) -> None:
        """The frame stdcopy.EXIT; a client that has not read so far that it fits asks the daemon."""
        if self._tells_exit and self._conn is not None:
            try:
                self._conn.send(struct.pack(">BxxxLB", 4, 1, code), DONTWAIT)
            except OSError:
                pass  # it has gone itself

    def _tell_losses(self, conn: _socket.socket) -> None:
        """As docker: output that a full disk did not take is told, and is the client's failure."""
        for stream, queue in self._queues.items():
            if self._framed and queue.error in LOSSES:
                name = "stderr" if stream == 2 else "stdout"
                text = f"write /dev/{name}: {os.strerror(queue.error).lower()}\n".encode()
                try:
                    conn.send(struct.pack(">BxxxL", 3, len(text)) + text, DONTWAIT)
                except OSError:
                    pass  # it has gone itself

    def drop(self) -> None:
        """Gone, or to be sent away: everything of it is closed at once."""
        conn, self._conn = self._conn, None
        if conn is None:
            return
        self._loop.forget(conn.fileno())
        self._process.dropped(self)
        source, self._source = self._source, None
        if source is not None:
            source.close(gone=True)
        self._tell_losses(conn)
        _close_politely(conn)
        for queue in set(self._queues.values()):
            queue.close()
        self._process.settle()


def _close_politely(conn: _socket.socket) -> None:
    """So that the peer reads an end, not ECONNRESET, which unread bytes at close would make of it."""
    try:
        conn.shutdown(_socket.SHUT_RDWR)
        while conn.recv(65536, DONTWAIT):
            pass
    except OSError:
        pass
    conn.close()


def send_away(attachment: Attachment, message: bytes = b"") -> None:
    """A client of a process that could not be started: told why, if so, and closed with all it
    brought.
    """
    conn = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, attachment.conn)
    if message:
        framed = struct.pack(">BxxxL", 1, len(message)) if attachment.framed else b""
        try:
            conn.send(framed + message, DONTWAIT)
        except OSError:
            pass  # it has gone itself
    _close_politely(conn)
    for sink in (attachment.sinks.stdin, attachment.sinks.stdout, attachment.sinks.stderr):
        if sink is not None:
            os.close(sink)
