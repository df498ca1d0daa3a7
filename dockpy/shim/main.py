"""The shim: creates the container's process, and then one poll loop until all is over and
delivered.

Called in a fork of the keeper, single-threaded, with the control socket and the clients'
descriptors.
The order at the end is the promise: log complete, exit file, exit event, and only then the waiting
for
clients that read slowly. A daemon is never waited for.
"""

from __future__ import annotations

import _socket
import gc
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass

from dockpy.linux.processes import PR_SET_CHILD_SUBREAPER, close_range, prctl
from dockpy.runtime.namespaces import open_of_process
from dockpy.shim import protocol
from dockpy.shim.control import Control, Listener
from dockpy.shim.exit import start_ticks, write_exit, write_shim
from dockpy.shim.log import open_writer, rfc3339_nano
from dockpy.shim.loop import POLLIN, Loop
from dockpy.shim.protocol import NotStarted
from dockpy.shim.stdio import Buffer, ProcessIO, send_away

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn, Protocol

    from dockpy.linux.title import Title
    from dockpy.shim.log import LogWriter

    class Launcher(Protocol):
        """Starts processes as children of the caller's *parent*; (pid, pty master or None).

        Called in a worker process of its own. stdio None: the process gets a pty, of `size` (height,
        width). Raises NotStarted.
        """

        def create(
            self, bundle: str, stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
        ) -> tuple[int, int | None]: ...

        def exec(
            self,
            bundle: str,
            process: Mapping[str, Any],
            init_pid: int,
            stdio: tuple[int, int, int] | None,
            size: tuple[int, int] | None,
        ) -> tuple[int, int | None]: ...


# docker gives the processes that outlive an exec's first one so long to let go of its pipes.
PATIENCE = 2.0


@dataclass
class Running:
    """A process of the container: its own first one (exec None) or an exec's."""

    exec: str | None
    io: ProcessIO
    pid: int
    code: int | None = None
    told: bool = False  # a daemon was there to hear its exit
    finished: bool = False  # everything delivered


class Refused(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Shim:
    def __init__(self, start: protocol.Start, control: int, launcher: Launcher) -> None:
        self._start = start
        self._launcher = launcher
        self._loop = Loop()
        self._buffer = Buffer(self._loop)
        self._controls: list[Control] = []
        self._init: Running | None = None
        self._init_start = 0
        self._execs: dict[str, Running] = {}
        self._started = 0
        self._failed = False
        self._childless = False
        self._followers: list[tuple[Control, int]] = []
        self._signals = signal_pipe()
        self._loop.watch(self._signals, POLLIN, self._signalled)
        self._log: LogWriter | None = None
        self._listener = Listener(self._loop, start.socket, self._connected)
        self._connected(control)

    def _connected(self, fd: int) -> None:
        self._controls.append(Control(self._loop, fd, self._serve, self._control_changed))

    def _control_changed(self, control: Control) -> None:
        if control.closed and control in self._controls:
            self._controls.remove(control)

    def _tell(self, event: protocol.Message) -> None:
        message = protocol.event_to_json(event)
        for control in tuple(self._controls):
            control.send(message)

    # ---------------------------------------------------------------------------------- start

    def start(self) -> None:
        start = self._start
        self._log = open_writer(start.log, start.bundle, start.id)
        # First, so that whoever comes after a crash of daemon and keeper knows of this shim.
        write_shim(start, None, 0)
        io = self._process_io(None, tty=start.tty, log=self._log)
        try:
            pid, console = _launch(
                io,
                start.tty,
                start.open_stdin,
                lambda stdio: self._launcher.create(start.bundle, stdio, start.console_size),
            )
        except NotStarted as failure:
            self._could_not_start(failure.code, str(failure))
            return
        self._init = Running(None, io, pid)
        self._init_start = start_ticks(pid)
        self._started = time.time_ns()
        io.begin(console, open_stdin=start.open_stdin, stdin_once=start.stdin_once)
        for attachment in start.attachments:
            io.attach(attachment)
        write_shim(start, pid, self._init_start)
        self._tell(protocol.Started(pid, self._init_start, os.getpid()))

    def _could_not_start(self, code: int, message: str) -> None:
        self._failed = True
        now = rfc3339_nano(time.time_ns())
        write_exit(self._start, code, "", now, message)
        self._tell(protocol.Failed(code, message))
        for attachment in self._start.attachments:
            send_away(attachment)

    def _process_io(self, exec_id: str | None, *, tty: bool, log: LogWriter | None) -> ProcessIO:
        return ProcessIO(
            self._loop,
            self._buffer,
            tty=tty,
            log=log,
            on_log=self._log_grew,
            on_detach=lambda: self._tell(protocol.Detached(exec_id)),
            on_finished=lambda: self._finished(exec_id),
        )

    # ----------------------------------------------------------------------------------- exits

    def _signalled(self, _events: int) -> None:
        try:
            numbers = os.read(self._signals, 512)
        except BlockingIOError:
            return
        if signal.SIGHUP in numbers:
            self._listener.ensure()
        self._reap()

    def _reap(self) -> None:
        ended = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                break
            if pid == 0:
                break
            running = self._by_pid(pid)
            if running is not None:
                running.code = _exit_code(status)
                ended.append(running)
        # Execs first: the container's exit is the last that is heard of it.
        for running in sorted(ended, key=lambda running: running.exec is None):
            self._ended(running)
        if self._init is not None and self._init.code is not None:
            _kill_children()

    def _by_pid(self, pid: int) -> Running | None:
        for running in (self._init, *self._execs.values()):
            if running is not None and running.pid == pid and running.code is None:
                return running
        return None

    def _ended(self, running: Running) -> None:
        assert running.code is not None
        running.io.over(running.code, PATIENCE)
        running.told = any(not control.closed for control in self._controls)
        if running.exec is None:
            finished = rfc3339_nano(time.time_ns())
            write_exit(self._start, running.code, rfc3339_nano(self._started), finished)
            self._tell(protocol.Exit(running.code, finished))
            self._log_grew()  # and will not any more
            _kill_children()
        else:
            self._tell(protocol.ExecExit(running.exec, running.code))
        running.io.settle()

    def _finished(self, exec_id: str | None) -> None:
        if exec_id is None:
            assert self._init is not None
            self._init.finished = True
        else:
            running = self._execs[exec_id]
            running.finished = True
            if running.told:
                del self._execs[exec_id]
            del running
            # The collector is off (it would touch, and so copy, the keeper's pages): frozen objects
            # are not looked at, and an exec leaves a few cycles.
            gc.collect()

    @property
    def done(self) -> bool:
        if not all(control.flushed for control in self._controls):
            return False
        if self._failed:
            return True
        if self._init is None or not self._init.finished or not self._childless:
            return False
        return all(running.finished for running in self._execs.values())

    def run(self) -> None:
        self.start()
        while not self.done:
            self._loop.turn()
        self._listener.remove()

    # -------------------------------------------------------------------------------- requests

    def _serve(self, control: Control, raw: dict[str, Any], fds: list[int]) -> None:
        seq = raw.get("seq")
        try:
            answer = self._request(control, raw, fds)
        except Refused as refused:
            control.send({"seq": seq, "error": str(refused), "kind": refused.kind})
        except NotStarted as failure:
            control.send(
                {"seq": seq, "error": str(failure), "kind": "failed", "code": failure.code}
            )
        except (protocol.BadMessage, KeyError, TypeError, ValueError) as error:
            control.send({"seq": seq, "error": f"bad request: {error}", "kind": "invalid"})
        except OSError as error:
            control.send({"seq": seq, "error": str(error), "kind": "failed"})
        else:
            if answer is not None:
                control.send({"seq": seq, "ok": True, **answer})

    def _request(
        self, control: Control, raw: dict[str, Any], fds: list[int]
    ) -> dict[str, object] | None:
        op = raw.get("op")
        if op == "attach":
            self._attach(raw, fds)
            return {}
        if op == "exec":
            return {"pid": self._exec(raw, fds)}
        protocol.close_all(fds)
        if op == "state":
            return self._state()
        if op == "grown":
            return self._grown(control, raw)
        running = self._running(raw.get("exec"))
        if op == "resize":
            running.io.resize(*(min(max(int(raw[key]), 0), 65535) for key in ("h", "w")))
            return {}
        if op == "kill":
            _kill(running.pid, int(raw["signal"]), bool(raw.get("all")))
            return {}
        raise Refused("invalid", f"no such request: {op}")

    def _running(self, exec_id: str | None) -> Running:
        running = self._init if exec_id is None else self._execs.get(exec_id)
        if running is None:
            raise Refused("not-found", f"no such exec: {exec_id}")
        if running.code is not None:
            raise Refused("not-running", "the process has ended")
        return running

    def _attach(self, raw: dict[str, Any], fds: list[int]) -> None:
        try:
            attachment = protocol.Attachment.from_json(raw["attachment"], fds)
            running = self._running(None)
        except (Refused, KeyError, TypeError, ValueError):
            protocol.close_all(fds)
            raise
        running.io.attach(attachment)

    def _exec(self, raw: dict[str, Any], fds: list[int]) -> int:
        exec_id = str(raw["exec"])
        tty = bool(raw.get("tty"))
        try:
            attachments = [
                protocol.Attachment.from_json(item, fds) for item in raw.get("attachments") or ()
            ]
            size = protocol.size_from_json(raw.get("console_size"))
            process: dict[str, Any] = raw["process"]
            init = self._running(None)
            if exec_id in self._execs:
                raise Refused("invalid", f"exec {exec_id} exists")
        except (Refused, KeyError, TypeError, ValueError):
            protocol.close_all(fds)
            raise
        wants_stdin = any(attachment.stdin for attachment in attachments)
        io = self._process_io(exec_id, tty=tty, log=None)
        bundle = self._start.bundle
        try:
            pid, console = _launch(
                io,
                tty,
                wants_stdin,
                lambda stdio: self._launcher.exec(bundle, process, init.pid, stdio, size),
            )
        except NotStarted as error:
            self._tell(protocol.ExecFailed(exec_id, error.code, str(error)))
            for attachment in attachments:
                send_away(attachment, f"{error}\r\n".encode())  # as docker, into the stream
            raise
        self._execs[exec_id] = Running(exec_id, io, pid)
        io.begin(console, open_stdin=wants_stdin, stdin_once=True)
        for attachment in attachments:
            io.attach(attachment)
        self._tell(protocol.ExecStarted(exec_id, pid))
        return pid

    def _state(self) -> dict[str, object]:
        init = self._init
        execs = {
            exec_id: {"pid": running.pid, "code": running.code}
            for exec_id, running in self._execs.items()
        }
        for exec_id, running in tuple(self._execs.items()):
            running.told = True
            if running.finished:
                del self._execs[exec_id]
        return {
            "pid": init.pid if init else 0,
            "start": self._init_start,
            "code": init.code if init else None,
            "execs": execs,
        }

    # ------------------------------------------------------------------------------- followers

    def _grown(self, control: Control, raw: dict[str, Any]) -> dict[str, object] | None:
        """Answered as soon as the log is not (or no longer) where that reader stands."""
        position = [int(value) for value in raw["position"]]
        over = self._init is None or self._init.code is not None
        if self._log is None or over or position != list(self._log.position()):
            return {}
        self._followers.append((control, int(raw["seq"])))
        return None

    def _log_grew(self) -> None:
        if self._followers:
            followers, self._followers = self._followers, []
            for control, seq in followers:
                control.send({"seq": seq, "ok": True})


def _launch(
    io: ProcessIO,
    tty: bool,
    open_stdin: bool,
    make: Callable[[tuple[int, int, int] | None], tuple[int, int | None]],
) -> tuple[int, int | None]:
    """Has the process made, with the pipes' other ends or with a pty, by a worker that ends at once.

    A fork costs half a millisecond; in return this process never touches (and so never copies) what
    parses specifications and builds containers.
    """
    ends = None if tty else io.pipes(open_stdin)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        worker = os.fork()
        if worker == 0:
            _work(theirs, lambda: make(ends))
        theirs.close()
        packet = protocol.receive_packet(ours)
        os.waitpid(worker, 0)
        if packet is None:
            raise NotStarted(128, "the process that starts containers was killed")
        answer, fds = packet
        if "code" in answer:
            raise NotStarted(int(answer["code"]), str(answer["message"]))
        return int(answer["pid"]), fds[0] if fds else None
    except BaseException:
        io.abandon()
        raise
    finally:
        ours.close()
        protocol.close_all(ends or ())


def _work(line: _socket.socket, make: Callable[[], tuple[int, int | None]]) -> NoReturn:
    try:
        try:
            signal.set_wakeup_fd(-1)
            pid, console = make()
        except NotStarted as failure:
            protocol.send_packet(line, {"code": failure.code, "message": str(failure)})
        except (OSError, ValueError) as error:
            protocol.send_packet(line, {"code": 128, "message": str(error)})
        else:
            protocol.send_packet(line, {"pid": pid}, () if console is None else (console,))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _exit_code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _kill_children() -> None:
    """What outlived the container's first process: only with the host's pid namespace is there any."""
    for pid in _children():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def _kill(pid: int, number: int, everyone: bool) -> None:
    theirs = _pid_namespace(pid) if everyone and number != signal.SIGKILL else 0
    # The death of a pid namespace's first process is that of all the others.
    if theirs not in (0, os.stat("/proc/self/ns/pid").st_ino):
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and os.stat(f"/proc/{name}/ns/pid").st_ino == theirs:
                    os.kill(int(name), number)
            except OSError:
                pass  # ended meanwhile, or not ours
    os.kill(pid, number)


def _pid_namespace(pid: int) -> int:
    """Its inode; 0 for one that cannot be looked at, and whose end is that of all the others."""
    try:
        fd = open_of_process(pid, "pid")
    except OSError:
        return 0
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def catch_signals() -> None:
    """In the keeper, so that a shim has nothing more to do for it than to open its own pipe.

    SIGCHLD, SIGHUP and the deadly ones only wake the loop: a shim ends when its container has, not
    before. Handlers, not SIG_IGN: execve resets handlers, and would hand ignored signals on to the
    container.
    """
    for number in (
        signal.SIGCHLD,
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):
        signal.signal(number, _noticed)


def _noticed(_number: int, _frame: object) -> None:
    pass


def signal_pipe() -> int:
    """Where the numbers of caught signals can be read, one byte each."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def main(start: protocol.Start, control: int, launcher: Launcher, title: Title) -> None:
    """In the forked child, which holds those descriptors only and whose signals are caught: from
    here to the end of the container.
    """
    os.setsid()
    title.set("dockpy-shim", start.id[:12])
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    Shim(start, control, launcher).run()


def close_others(keep: Sequence[int]) -> None:
    """Every descriptor but those, and 0 to 2."""
    low = 3
    for fd in sorted(keep):
        close_range(low, fd - 1)
        low = max(low, fd + 1)
    close_range(low)
