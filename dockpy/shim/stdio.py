"""The bytes of one process: its pipes or pty, the log, and the clients attached to it.

  stdin:  conn or sink --Source--> Stdin --> pipe | pty
  output: pipe | pty --Output--> log, then each client's Queue --> sink | conn (framed or raw)

Nothing here waits: a Queue takes what its descriptor does not, up to a bound; then the one stream
that
feeds it is not read from the container, and everything else goes on. The flags of a client's
descriptor are never changed (its shell shares them). A client whose connection hangs up loses its
sinks at once, whatever is still in its queues.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import mmap
import os
import stat
import struct
import termios
import time
from collections import deque

from dockpy.linux.pipes import SPLICE_F_NONBLOCK, splice
from dockpy.linux.terminals import set_winsize
from dockpy.shim.loop import POLLERR, POLLHUP, POLLIN, POLLOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dockpy.shim.logwriter import LogWriter
    from dockpy.shim.loop import Loop
    from dockpy.shim.packets import Attachment

QUEUE_LIMIT = 1 << 20
BUFFER = 1 << 20
# Four times the default is where throughput stops growing (measured); a megabyte would use up a
# user's
# pipe-user-pages-soft (64 MiB) with a few dozen busy containers and leave everyone one-page pipes.
BUSY_PIPE = 1 << 18
F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ comes with 3.10
DONTWAIT = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
NOT_NOW = (errno.EAGAIN, errno.EINTR)
VEOF = b"\x04"


class Buffer:
    """One block to read into for all streams; its memory is given back when the shim is idle."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._map = mmap.mmap(-1, BUFFER)
        self.view = memoryview(self._map)
        self._used = False

    def used(self, size: int) -> None:
        if size > mmap.PAGESIZE and not self._used:
            self._used = True
            self._loop.after(0.5, self._release)

    def _release(self) -> None:
        self._used = False
        self._map.madvise(mmap.MADV_DONTNEED)


# ------------------------------------------------------------------------------- towards clients


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
        kind = os.fstat(fd).st_mode
        self.is_pipe = stat.S_ISFIFO(kind)
        self._socket = (
            _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
            if stat.S_ISSOCK(kind)
            else None
        )
        # A blocking pipe or terminal, handed over by a client that could not open it again: a page
        # at a
        # time when poll says so is what the kernel takes without waiting.
        self._timid = (
            self._socket is None
            and (self.is_pipe or stat.S_ISCHR(kind))
            and os.get_blocking(fd)
            and not _is_null(fd)
        )

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
            return splice(source, self._fd, BUFFER, SPLICE_F_NONBLOCK)
        except BlockingIOError:
            self._arm()
            raise

    def enlarge(self) -> None:
        _enlarge(self._fd)

    def _write(self, parts: list[bytes | memoryview]) -> int:
        if self._socket is not None:
            return self._socket.sendmsg(parts, [], DONTWAIT)
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
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)
        self._on_room()


def _is_null(fd: int) -> bool:
    return os.fstat(fd).st_rdev == os.makedev(1, 3)


def _enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, BUSY_PIPE)
    except OSError:
        pass  # the user's pipe pages are used up: it goes on as it is


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

    def drop(self) -> None:
        """Gone, or to be sent away: everything of it is closed at once."""
        conn, self._conn = self._conn, None
        if conn is None:
            return
        self._loop.forget(conn.fileno())
        self._process.clients.remove(self)
        source, self._source = self._source, None
        if source is not None:
            source.close(gone=True)
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


# ----------------------------------------------------------------------------- from the container


class Output:
    """One output stream of the container: stdout, stderr, or all that a pty shows."""

    def __init__(self, process: ProcessIO, fd: int, stream: int) -> None:
        os.set_blocking(fd, False)
        self._process = process
        self._fd = fd
        self._stream = stream
        self._reading = False
        self._full_reads = 0
        self.ended = False
        self.resume()

    def resume(self) -> None:
        """Reads again as soon as no client's queue is full."""
        if not self.ended and not self._reading and not self._blocked():
            self._reading = True
            self._process.loop.watch(self._fd, POLLIN, self._readable)

    def _blocked(self) -> bool:
        return any(client.stream_full(self._stream) for client in self._process.clients)

    def _pause(self) -> None:
        self._reading = False
        self._process.loop.forget(self._fd)

    def _readable(self, _events: int) -> None:
        self.step()
        if self._reading and self._blocked():
            self._pause()

    def step(self) -> int:
        """Reads once; the number of bytes moved, 0 when there is nothing (or nothing any more)."""
        process = self._process
        try:
            if process.log is None and len(process.clients) == 1 and not process.tty:
                pipe = process.clients[0].raw_pipe(self._stream)
                moved = None if pipe is None else self._splice(pipe)
                if moved is not None:
                    return moved
            size = os.readv(self._fd, [process.buffer.view])
        except OSError as error:
            if error.errno in NOT_NOW:
                return 0
            size = 0  # EIO: the last terminal of this pty is closed
        if not size:
            self.end()
            return 0
        process.buffer.used(size)
        data = process.buffer.view[:size]
        if process.log is not None:
            process.log.append(self._stream, data, time.time_ns())
            process.on_log()
        for client in tuple(process.clients):
            client.put(self._stream, data)
        if size >= 65536 and self._full_reads < 8:
            self._full_reads += 1
            if self._full_reads == 8:
                _enlarge(self._fd)
                for client in process.clients:
                    client.enlarge(self._stream)
        return size

    def _splice(self, queue: Queue) -> int | None:
        """None when this pair of descriptors must be served by read and write."""
        try:
            moved = queue.splice_from(self._fd)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            queue.close()
            return None
        except OSError:
            return None
        if not moved:
            self.end()
        return moved

    def drain(self) -> None:
        """What is there now goes to the log and the queues, full or not: the process is over."""
        left = 2 * BUFFER  # a writer left behind may go on for ever
        while not self.ended and left > 0:
            moved = self.step()
            if not moved:
                return
            left -= moved

    def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._process.loop.forget(self._fd)
        os.close(self._fd)
        if self._process.log is not None:
            self._process.log.end(self._stream)
        self._process.settle()


# ------------------------------------------------------------------------------- to the container


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
                _enlarge(self._stdin.fd)

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
            return splice(self._fd, self._stdin.fd, BUFFER, SPLICE_F_NONBLOCK)
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


# ------------------------------------------------------------------------------------- together


def make_pipes(open_stdin: bool) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """The process's stdin, stdout, stderr; and our ends: (stdin if it is open), stdout, stderr."""
    from_stdout, stdout = os.pipe()
    from_stderr, stderr = os.pipe()
    if open_stdin:
        stdin, to_stdin = os.pipe()
        return (stdin, stdout, stderr), (to_stdin, from_stdout, from_stderr)
    stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return (stdin, stdout, stderr), (from_stdout, from_stderr)


class ProcessIO:
    """All streams of one process, the container's own or an exec.

    Once it runs: `begin`. When it has
    ended: `over`, which empties the pipes into log and queues, and `settle`: as soon as everything
    is
    delivered, the clients are sent away and `on_finished` is called, once.
    """

    def __init__(
        self,
        loop: Loop,
        buffer: Buffer,
        *,
        tty: bool,
        log: LogWriter | None,
        on_log: Callable[[], None],
        on_detach: Callable[[], None],
        on_finished: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.buffer = buffer
        self.tty = tty
        self.log = log
        self.on_log = on_log
        self.on_detach = on_detach
        self._on_finished = on_finished
        self.stdin: Stdin | None = None
        self.clients: list[Client] = []
        self._outputs: list[Output] = []
        self._console = -1
        self._over = False
        self._code = 0
        self._finished = False

    def begin(self, streams: Sequence[int], *, open_stdin: bool, stdin_once: bool) -> None:
        """`streams` is the pty's master, or our ends of the pipes (see make_pipes)."""
        if self.tty:
            (self._console,) = streams
            if open_stdin:
                self.stdin = Stdin(self.loop, os.dup(self._console), tty=True, once=stdin_once)
            self._outputs = [Output(self, self._console, 1)]
            return
        if open_stdin:
            self.stdin = Stdin(self.loop, streams[0], tty=False, once=stdin_once)
        self._outputs = [Output(self, streams[-2], 1), Output(self, streams[-1], 2)]

    def abandon(self) -> None:
        """At once, whatever is left to deliver."""
        for output in self._outputs:
            output.end()
        for client in tuple(self.clients):
            client.drop()

    def attach(self, attachment: Attachment) -> None:
        Client(self, attachment)

    def resize(self, height: int, width: int) -> None:
        """Nothing for a process without a terminal, or whose terminal is gone."""
        if self._outputs and self._console >= 0 and not self._outputs[0].ended:
            set_winsize(self._console, height, width)

    def over(self, code: int, patience: float) -> None:
        """The process has ended. Others may hold its pipes: they get `patience` seconds to let go."""
        if self.stdin is not None:
            self.stdin.close()
        for output in self._outputs:
            output.drain()
        self._over = True
        self._code = code
        if not all(output.ended for output in self._outputs):
            self.loop.after(patience, self._end_outputs)

    def _end_outputs(self) -> None:
        for output in self._outputs:
            output.drain()
            output.end()

    def settle(self) -> None:
        """Something was written, read or closed: go on reading, or finish."""
        for output in self._outputs:
            output.resume()
        if not self._over or self._finished or not all(out.ended for out in self._outputs):
            return
        for client in tuple(self.clients):
            if client.delivered:
                client.tell_exit(self._code)
                client.drop()
        if not self.clients and not self._finished:
            self._finished = True
            self._on_finished()
