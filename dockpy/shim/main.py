"""The shim: has the container's process made, and then is one poll loop until all is delivered.

Called in a fork of the keeper, single-threaded, with the control socket and the clients' descriptors.
The order at the end is the promise: log complete, exit file, exit event, and only then the waiting
for clients that read slowly. A daemon is never waited for.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums; no stub
import gc
import os
import time

from dockpy.linux.processes import PR_SET_CHILD_SUBREAPER, prctl
from dockpy.shim.birth import bear, expect
from dockpy.shim.clients import send_away
from dockpy.shim.control import Control, Listener
from dockpy.shim.ending import Ending
from dockpy.shim.exit import write_exit
from dockpy.shim.kill import kill, kill_children
from dockpy.shim.logwriter import resume_writer, rfc3339_nano
from dockpy.shim.loop import POLLIN, Loop
from dockpy.shim.packets import Attachment, BadMessage, close_all, receive_raw
from dockpy.shim.stdio import Buffer, ProcessIO
from dockpy.shim.worker import WORKER_DIED, execute, in_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from dockpy.linux.title import Title
    from dockpy.shim.logwriter import LogWriter
    from dockpy.shim.worker import Launcher

# docker gives the processes that outlive an exec's first one so long to let go of its pipes.
PATIENCE = 2.0
PAST = 8  # so many ended execs are remembered
# After so many ms without an event a shim takes its rest (linux.samepage: 2 ms of work): not while more
# containers are being started, and not at all for one that is soon over. The longer one keeps a container
# that says a line every few seconds from having it done as often.
QUIET, LONG_QUIET = 2000, 5000
RETRY = 0.5  # seconds, between attempts to write the exit file on a full disk


class Running:
    """A process of the container: its own first one (exec None) or an exec's. `about` is kept for
    the next daemon.
    """

    def __init__(self, exec_id: str | None, io: ProcessIO, pid: int, about: str = "") -> None:
        self.exec = exec_id
        self.about = about
        self.io = io
        self.pid = pid
        self.code: int | None = None
        self.told = False  # a daemon was there to hear its exit
        self.finished = False  # everything delivered


class Refused(Exception):
    def __init__(self, kind: str, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


class Shim:
    """Ready for a container when made; `start` is its beginning, `run` its life."""

    def __init__(self, launcher: Launcher, title: Title, *, expecting: bool) -> None:
        """`expecting`: a worker, too, is made ready (shim.birth)."""
        self._launcher = launcher
        self._title = title
        self._loop = Loop()
        self._buffer = Buffer(self._loop)
        self._controls: list[Control] = []
        self._init: Running | None = None
        self._execs: dict[str, Running] = {}
        self._past: dict[str, tuple[int, int, str]] = {}  # pid, code and about, of the last execs
        self._childless = False
        self._recorded = True
        self._followers: list[tuple[Control, int]] = []
        self._log: LogWriter | None = None
        # Before there is a child whose end could be missed.
        self._signals = signal_pipe()
        self._loop.watch(self._signals, POLLIN, self._signalled)
        self._worker = expect(launcher) if expecting else None

    def start(self, packet: bytes, fds: Sequence[int]) -> None:
        """The container of that start message, as it came (shim.packets.decode)."""
        born = bear(packet, fds, self._launcher, self._worker)
        self._worker = None
        if born is None:
            return
        start, pid = born.start, born.pid
        self._title.set("dockpy-shim", start["id"][:12])
        self._connected(fds[0])
        told = {"pid": pid, "start": born.ticks, "shim": os.getpid()}
        self._tell({"event": "started", **told})
        self._init_start = born.ticks
        self._started = born.time
        self._bundle: str = start["bundle"]
        self._boot: str = start["boot"]
        self._listener = Listener(self._loop, start["socket"], born.listener, self._connected)
        self._log = resume_writer(born.state, born.log)
        io = self._process_io(None, tty=start["tty"], log=self._log)
        self._init = init = Running(None, io, pid)
        self._ending = Ending(self._loop, start, pid, lambda: init.code is None)
        io.begin(born.streams, open_stdin=start["open_stdin"], stdin_once=start["stdin_once"])
        for item in start["attachments"]:
            io.attach(Attachment.from_json(item, fds[1:]))
        self._ending.hold(io)

    def _connected(self, fd: int) -> None:
        self._controls.append(Control(self._loop, fd, self._serve, self._control_changed))

    def _control_changed(self, control: Control) -> None:
        if control.closed and control in self._controls:
            self._controls.remove(control)

    def _tell(self, event: Mapping[str, object]) -> None:
        """See shim.protocol for what events there are."""
        for control in tuple(self._controls):
            control.send(event)

    def _process_io(self, exec_id: str | None, *, tty: bool, log: LogWriter | None) -> ProcessIO:
        return ProcessIO(
            self._loop,
            self._buffer,
            tty=tty,
            log=log,
            on_log=self._log_grew,
            on_detach=lambda: self._tell({"event": "detached", "exec": exec_id}),
            on_finished=lambda: self._finished(exec_id),
        )

    # ----------------------------------------------------------------------------------- exits

    def _signalled(self, _events: int) -> None:
        try:
            numbers = os.read(self._signals, 512)
        except BlockingIOError:
            return
        if _signal.SIGHUP in numbers:
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
                code = _exit_code(status)
                running.code = self._ending.code(code) if running is self._init else code
                ended.append(running)
        # Execs first: the container's exit is the last that is heard of it.
        for running in sorted(ended, key=lambda running: running.exec is None):
            self._ended(running)
        if self._init is not None and self._init.code is not None:
            kill_children()

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
            started = rfc3339_nano(self._started)
            self._record_exit(running.code, started, finished)
            told = {"code": running.code, "finished": finished, "error": self._ending.reason}
            self._tell({"event": "exit", **told, "oom": False})
            self._log_grew()  # and will not any more
            kill_children()
        else:
            self._tell({"event": "exec-exit", "exec": running.exec, "code": running.code})
        running.io.settle()

    def _record_exit(self, code: int, started: str, finished: str) -> None:
        """Until it is written this process stays and answers `state`: the code is nowhere else."""
        self._recorded = True
        try:
            write_exit(self._bundle, self._boot, code, started, finished, self._ending.reason)
        except FileNotFoundError:
            return  # the container has been removed
        except OSError:  # no room, for now
            self._recorded = False
            self._loop.after(RETRY, lambda: self._record_exit(code, started, finished))

    def _finished(self, exec_id: str | None) -> None:
        if exec_id is None:
            assert self._init is not None
            self._init.finished = True
        else:
            running = self._execs[exec_id]
            running.finished = True
            if running.told:
                self._forget(running)
            del running
            # The collector is off (it would touch, and so copy, the keeper's pages): frozen objects
            # are not looked at, and an exec leaves a few cycles.
            gc.collect()

    def _forget(self, exec_: Running) -> None:
        """A daemon has heard of its end; one that was killed since may be asked for it all the same."""
        assert exec_.exec is not None and exec_.code is not None
        del self._execs[exec_.exec]
        if exec_.about:
            self._past[exec_.exec] = exec_.pid, exec_.code, exec_.about
            if len(self._past) > PAST:
                del self._past[next(iter(self._past))]

    @property
    def done(self) -> bool:
        if not all(control.flushed for control in self._controls):
            return False
        if self._init is None:
            return True  # it could not be started
        if not self._init.finished or not self._childless or not self._recorded:
            return False
        return all(running.finished for running in self._execs.values())

    def run(self, rest: Callable[[], None], quiet: int) -> None:
        """`rest` is called when nothing has happened for `quiet` ms, later for LONG_QUIET."""
        wait: int | None = quiet
        while not self.done:
            if self._loop.turn(wait):
                wait = wait or LONG_QUIET
            else:
                rest()
                wait = None
        if self._init is not None:
            self._listener.remove()

    def turn(self) -> None:
        """One round of `run`, at most a tenth of a second: for a rehearsal."""
        self._loop.after(0.1, _nothing)
        self._loop.turn()

    def close(self) -> None:
        """What the end of the process does for all but a rehearsal."""
        if self._init is not None:
            self._listener.close()
            self._init.io.abandon()
        for control in tuple(self._controls):
            control.close()
        if self._log is not None:
            self._log.close()
        self._loop.forget(self._signals)
        os.close(self._signals)
        os.close(_signal.set_wakeup_fd(-1))

    # -------------------------------------------------------------------------------- requests

    def _serve(self, control: Control, raw: dict[str, Any], fds: list[int]) -> None:
        seq = raw.get("seq")
        try:
            answer = self._request(control, raw, fds)
        except Refused as refused:
            answer = {"seq": seq, "error": str(refused), "kind": refused.kind}
            control.send(answer if refused.code is None else {**answer, "code": refused.code})
        except (BadMessage, KeyError, TypeError, ValueError) as error:
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
        close_all(fds)
        if op == "state":
            return self._state(about=bool(raw.get("about")))
        if op == "grown":
            return self._grown(control, raw)
        running = self._running(raw.get("exec"))
        if op == "resize":
            running.io.resize(*(min(max(int(raw[key]), 0), 65535) for key in ("h", "w")))
            return {}
        if op == "kill":
            if raw.get("all") and running.exec is not None:
                os.killpg(running.pid, int(raw["signal"]))  # an exec leads a session
            else:
                kill(running.pid, int(raw["signal"]), bool(raw.get("all")))
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
            attachment = Attachment.from_json(raw["attachment"], fds)
            running = self._running(None)
        except (Refused, KeyError, TypeError, ValueError):
            close_all(fds)
            raise
        running.io.attach(attachment)

    def _exec(self, raw: dict[str, Any], fds: list[int]) -> int:
        exec_id = str(raw["exec"])
        try:
            attachments = [Attachment.from_json(item, fds) for item in raw.get("attachments") or ()]
            init = self._running(None)
            if exec_id in self._execs:
                raise Refused("invalid", f"exec {exec_id} exists")
            wants_stdin = any(attachment.stdin for attachment in attachments)
            if "process" not in raw:
                raise KeyError("process")
        except (Refused, KeyError, TypeError, ValueError):
            close_all(fds)
            raise
        try:
            outcome = in_worker(
                lambda: execute(self._bundle, raw, init.pid, wants_stdin, self._launcher),
                raw.get("group"),
            )
        except OSError as error:
            outcome = (0, 126, f"the exec cannot be started: {error}"), []
        (pid, code, message), streams = outcome or ((0, 128, WORKER_DIED), [])
        if not pid:
            failed = {"event": "exec-failed", "exec": exec_id, "code": code, "message": message}
            self._tell(failed)
            for attachment in attachments:
                send_away(attachment, f"{message}\r\n".encode())  # as docker, into the stream
            raise Refused("failed", message, code)
        io = self._process_io(exec_id, tty=bool(raw.get("tty")), log=None)
        self._execs[exec_id] = Running(exec_id, io, pid, str(raw.get("about") or ""))
        io.begin(streams, open_stdin=wants_stdin, stdin_once=True)
        for attachment in attachments:
            io.attach(attachment)
        self._tell({"event": "exec-started", "exec": exec_id, "pid": pid})
        return pid

    def _state(self, *, about: bool) -> dict[str, object]:
        init = self._init
        execs: dict[str, dict[str, object]] = {
            exec_id: {"pid": running.pid, "code": running.code, "about": running.about}
            for exec_id, running in self._execs.items()
        }
        if about:
            for exec_id, (pid, code, text) in self._past.items():
                execs[exec_id] = {"pid": pid, "code": code, "about": text}
        for running in tuple(self._execs.values()):
            running.told = True
            if running.finished:
                self._forget(running)
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


def _nothing() -> None:
    pass


def _exit_code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def catch_signals() -> None:
    """In the keeper, so that a shim has nothing more to do for it than to open its own pipe.

    SIGCHLD, SIGHUP and the deadly ones only wake the loop: a shim ends when its container has, not
    before. Handlers, not SIG_IGN: execve resets handlers, and would hand ignored signals on to the
    container.
    """
    for number in (
        _signal.SIGCHLD,
        _signal.SIGHUP,
        _signal.SIGINT,
        _signal.SIGTERM,
        _signal.SIGQUIT,
        _signal.SIGUSR1,
        _signal.SIGUSR2,
    ):
        _signal.signal(number, _noticed)


def _noticed(_number: int, _frame: object) -> None:
    pass


def signal_pipe() -> int:
    """Where the numbers of caught signals can be read, one byte each."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def main(
    line: _socket.socket,
    launcher: Launcher,
    title: Title,
    rest: Callable[[], None],
    quiet: int = QUIET,
    *,
    expecting: bool = False,
) -> None:
    """In the forked child, which holds that line only and whose signals are caught: from here to the end
    of the container whose start message comes on it, or to the end of the line.
    """
    os.setsid()
    title.set("dockpy-waiting")
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    shim = Shim(launcher, title, expecting=expecting)
    packet = receive_raw(line)
    line.close()
    if packet is not None:
        title.set("dockpy-shim")
        shim.start(*packet)
        shim.run(rest, quiet)
