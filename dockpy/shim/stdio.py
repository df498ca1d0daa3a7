"""The bytes of one process: its pipes or pty, the log, and the clients attached to it.

  stdin:  conn or sink --Source--> Stdin --> pipe | pty
  output: pipe | pty --Output--> log, then each client's Queue --> sink | conn (framed or raw)
          pipe --tee--> the only client's pipe, then --splice--> log, where traffic is heavy

Nothing here waits: a Queue takes what its descriptor does not, up to a bound; then the one stream that
feeds it is not read from the container, and everything else goes on. The flags of a client's
descriptor are never changed (its shell shares them). A client whose connection hangs up loses its
sinks at once, whatever is still in its queues.
"""

from __future__ import annotations

import mmap
import os
import time

from dockpy.linux.terminals import set_winsize
from dockpy.shim.clients import Client, Queue
from dockpy.shim.loop import POLLIN
from dockpy.shim.stdin import BLOCK, NOT_NOW, Stdin, enlarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dockpy.shim.logwriter import LogWriter
    from dockpy.shim.loop import Loop
    from dockpy.shim.packets import Attachment

HEAVY = 8
STALLED = 0.1  # seconds


class Buffer:
    """One block to read into for all streams; its memory is given back when the shim is idle."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        # Private: of shared memory MADV_DONTNEED gives nothing back.
        self._map = mmap.mmap(-1, BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._map)
        self._used = False

    def used(self, size: int) -> None:
        if size > mmap.PAGESIZE and not self._used:
            self._used = True
            self._loop.after(0.5, self._release)

    def _release(self) -> None:
        self._used = False
        self._map.madvise(mmap.MADV_DONTNEED)


class Output:
    """One output stream of the container: stdout, stderr, or all that a pty shows."""

    def __init__(self, process: ProcessIO, fd: int, stream: int) -> None:
        os.set_blocking(fd, False)
        self._process = process
        self._fd = fd
        self._stream = stream
        self._reading = False
        self._weight = 0  # of the traffic: full reads less small ones, 0 to HEAVY
        self._bulk = False  # the weight was HEAVY, and not 0 since
        self._moved = 0
        self._expecting = False
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
        """Moves once; the number of bytes moved, 0 when there is nothing (or nothing any more)."""
        moved = self._pass_on() if self._bulk or self._process.log is None else None
        if moved is None:
            moved = self._copy()
        self._moved += moved
        if moved >= 65536:
            self._weight += self._weight < HEAVY
            if self._weight == HEAVY and not self._bulk:
                self._bulk = True
                enlarge(self._fd)
                for client in self._process.clients:
                    client.enlarge(self._stream)
        elif 0 < moved < 16384 and self._weight:
            self._weight -= 1
            self._bulk = self._bulk and self._weight > 0
        return moved

    def _copy(self) -> int:
        process = self._process
        try:
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
        return size

    def _pass_on(self) -> int | None:
        """Moves without a copy of ours; None when the bytes must be read.

        Into a log only where traffic is heavy: small blocks are read and written in less time.
        """
        process = self._process
        log = process.log
        if process.tty or len(process.clients) > 1:
            return None
        client = process.clients[0] if process.clients else None
        queue = None if client is None else client.raw_pipe(self._stream)
        if queue is None and (log is None or (client is not None and client.takes(self._stream))):
            return None
        try:
            if log is None:
                assert queue is not None
                moved = queue.splice_from(self._fd)
            elif not log.splices:
                return None
            elif queue is not None:
                moved = self._double(queue, log)
            else:
                moved = log.splice(self._stream, self._fd, BLOCK, time.time_ns())
                process.on_log()
        except BlockingIOError:
            if queue is not None and log is not None:
                self._expect_room()
            return 0
        except BrokenPipeError:
            assert queue is not None
            queue.close()
            return None
        except OSError:
            return None
        if not moved:
            self.end()
        return moved

    def _double(self, queue: Queue, log: LogWriter) -> int:
        size = left = queue.tee_from(self._fd)
        now = time.time_ns()
        try:
            while left:
                left -= log.splice(self._stream, self._fd, left, now)
        except OSError:  # the client has them
            rest = self._process.buffer.view[:left]
            os.readv(self._fd, [rest])
            log.append(self._stream, rest, now)
        self._process.on_log()
        return size

    def _expect_room(self) -> None:
        if not self._expecting:
            self._expecting = True
            moved = self._moved
            self._process.loop.after(STALLED, lambda: self._look_for_room(moved))

    def _look_for_room(self, moved: int) -> None:
        """A client that does not read slows its container, but the log does not wait for it."""
        self._expecting = False
        clients = self._process.clients
        if self.ended or self._reading or len(clients) != 1:
            return
        if moved != self._moved:
            self._expect_room()
        elif clients[0].raw_pipe(self._stream) is not None:
            self._copy()  # into its queue
            self.resume()

    def drain(self) -> None:
        """What is there now goes to the log and the queues, full or not: the process is over."""
        left = 2 * BLOCK  # a writer left behind may go on for ever
        while not self.ended and left > 0:
            moved = self._copy()
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

    Once it runs: `begin`. When it has ended: `over`, which empties the pipes into log and queues,
    and `settle`: as soon as everything is delivered, the clients are sent away and `on_finished` is
    called, once.
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
        self.on_drop: Callable[[ProcessIO], None] | None = None  # a client has gone
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

    def dropped(self, client: Client) -> None:
        self.clients.remove(client)
        if self.on_drop is not None:
            self.on_drop(self)

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
