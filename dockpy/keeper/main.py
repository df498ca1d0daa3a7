"""The keeper: namespaces, socket, then one loop that forks the daemon, again when it dies, and
shims.

What it is told is in keeper/options: a birth by a client, or a daemon that replaces its keeper.

Shims are direct children: the loop reaps them as it reaps the daemon, which saves a second fork in
the path of every `run`; when the keeper dies they are init's.
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import json
import os
import select
import signal
import time
import traceback

from dockpy import reexec
from dockpy.errors import DockpyError
from dockpy.keeper import place
from dockpy.keeper.home import Home
from dockpy.keeper.options import Options
from dockpy.keeper.protocol import FORMER
from dockpy.keeper.recording import learned, nothing
from dockpy.keeper.rehearsal import rehearse
from dockpy.keeper.starts import Starts, default_signals, flush
from dockpy.linux.memory import fill_holes, give_back
from dockpy.linux.processes import pidfd_open, pidfd_send_signal
from dockpy.linux.title import Title
from dockpy.paths import Paths
from dockpy.rootless.enter import enter, join, tier_of
from dockpy.shim.loop import POLLIN, Loop
from dockpy.shim.main import catch_signals, signal_pipe
from dockpy.shim.packets import (
    BadMessage,
    close_all,
    close_others,
    decode,
    receive_raw,
    send_packet,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from dockpy.shim.worker import Launcher

    # dockpy.daemon.main.serve_inherited(paths, listen_fd, keeper_fd, lock_fd, info)
    Serve = Callable[[Paths, int, int, int, dict[str, str]], int]

# A daemon that lived so long has served: the next one comes at once.
SETTLED = 5.0
# Somebody's kill -9, or the kernel for want of memory, is no fault that would come again by itself.
KILLED_PAUSE = 0.2
LONGEST_PAUSE = 10.0
TELL_AGAIN = 0.1
# A daemon that has died this often in a row (0.2, 0.4, 0.8 s of pause) will die again: clients are told.
REFUSED_FROM = 0.8


def main(argv: Sequence[str]) -> int:
    from dockpy.shim.launch import RuntimeLauncher

    options = Options(argv)
    return run(options, RuntimeLauncher(f"{options.paths.cache}/seccomp"), _serve)


def _serve(paths: Paths, listen: int, keeper: int, lock: int, info: dict[str, str]) -> int:
    """In the daemon's own process only: everything heavy is imported there."""
    from dockpy.daemon.main import serve_inherited

    return serve_inherited(paths, listen, keeper, lock, info)


def run(options: Options, launcher: Launcher, serve: Serve) -> int:
    try:
        if options.takeover:
            # The process that was started ends at once: the daemon reaps it, init gets the keeper.
            if os.fork():
                return 0
            os.setsid()
            keeper = _taken_over(options, launcher, serve)
        else:
            keeper = _born(options, launcher, serve)
    except (DockpyError, OSError) as error:
        if options.ready_fd < 0:
            raise
        os.write(options.ready_fd, str(error).encode())
        return 1
    catch_signals()
    gc.disable()
    # Before there is a child: a shim, rehearsed or not, ends what its container leaves behind.
    rehearse(options.paths, keeper.title)
    gc.collect()
    give_back()
    keeper.ballast = fill_holes()
    gc.freeze()
    keeper.start(options)
    keeper.learn_rest()
    keeper.loop()
    return 0


def _born(options: Options, launcher: Launcher, serve: Serve) -> Keeper:
    paths = options.paths
    run_folder = place.choose_run(paths)  # outside: its name has our real uid
    tier = _rejoin(paths) or enter(options.tier)
    listener = place.listen(run_folder)
    return Keeper(paths, run_folder, tier, listener, options.lock_fd, launcher, serve)


def _rejoin(paths: Paths) -> str | None:
    """The tier of the namespaces in which shims live on without daemon and keeper; we are in them
    then.
    """
    for pid in place.living_shims(paths):
        try:
            tier = tier_of(pid)
            join(pid, tier)
        except (OSError, ValueError):
            continue
        return tier
    return None


def _taken_over(options: Options, launcher: Launcher, serve: Serve) -> Keeper:
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, options.listen_fd)
    tier = options.tier or "single"
    return Keeper(options.paths, options.run, tier, listener, options.lock_fd, launcher, serve)


class Keeper:
    def __init__(
        self,
        paths: Paths,
        run_folder: str,
        tier: str,
        listener: _socket.socket,
        lock_fd: int,
        launcher: Launcher,
        serve: Serve,
    ) -> None:
        self._paths = paths
        self._tier = tier
        # A daemon is born with the first and told of the others; the last is where clients come.
        self._listeners = [listener]
        self._told = 1
        self._lock_fd = lock_fd
        self._launcher = launcher
        self._serve = serve
        self._build = reexec.build_id()
        self._loop = Loop()
        self._home = Home(self._loop, paths, run_folder, lock_fd, self._moved)
        self._daemon = 0
        self._pidfd = -1
        self._link: _socket.socket | None = None
        self._born = 0.0
        self._pause = 0.0
        self._stop = False
        self._ended = False
        self._signals = -1
        self.title = Title()
        self.ballast: list[object] = []
        self._starts = Starts(launcher, self.title, nothing)

    def start(self, options: Options) -> None:
        os.set_inheritable(self._lock_fd, False)
        self.title.set("dockpy-keeper", self._paths.store)
        self.listen_to_signals()
        self._home.keep()
        if options.takeover:
            self._adopt(options.daemon, options.link_fd)
        else:
            self._fork_daemon()
        if options.ready_fd >= 0:
            with contextlib.suppress(BrokenPipeError):  # who asked waits no longer
                os.write(options.ready_fd, self._home.untold.encode() or b"ready")
            os.close(options.ready_fd)
        place.offer_symlink(self._home.run, os.environ.get("XDG_RUNTIME_DIR", ""))

    def learn_rest(self) -> None:
        """While the daemon loads: after its fork, so as late as can be."""
        self._starts = Starts(self._launcher, self.title, learned(self._paths, self.title))
        gc.freeze()
        self._starts.prepare()

    def listen_to_signals(self) -> None:
        self._signals = signal_pipe()
        self._loop.watch(self._signals, POLLIN, self._signalled)

    def loop(self) -> None:
        while not self._ended:
            self._fork_shims()
            self._loop.turn()

    def _fork_shims(self) -> None:
        """Serves the daemon's requests for as long as nothing else happens."""
        while self._link is not None:
            packet = self._starts.serve(self._link, self._loop.poll, self._loop.timeout())
            if packet is None:
                return
            if packet[0]:
                self._take(self._link, *packet)
                close_all(packet[1])
            else:
                self._lose_link()

    # -------------------------------------------------------------------------------- the daemon

    def _fork_daemon(self) -> None:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._born = time.monotonic()
        self._stop = False
        pid = os.fork()
        if pid == 0:
            self._be_daemon(theirs.fileno())
        theirs.close()
        self._adopt(pid, ours.detach())

    def _adopt(self, pid: int, link_fd: int) -> None:
        self._daemon = pid
        self._pidfd = pidfd_open(pid)
        self._link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, link_fd)
        self._link.setblocking(False)
        os.set_inheritable(link_fd, False)
        self._loop.watch(link_fd, POLLIN, self._asked)
        self._loop.watch(self._pidfd, POLLIN, self._daemon_ended)
        self._home.record(self._tier, self._build, pid)
        self._told = 1
        self._tell_listeners()

    def _be_daemon(self, keeper_fd: int) -> NoReturn:
        status = 70
        try:
            default_signals()
            listen_fd = self._listeners[0].fileno()
            close_others([keeper_fd, listen_fd, self._lock_fd])
            gc.unfreeze()
            gc.enable()
            self.title.set("dockpy-daemon", self._paths.store)
            info = {
                "run": self._home.run,
                "tier": self._tier,
                "build": self._build,
                "store": self._paths.store,
            }
            status = self._serve(self._paths, listen_fd, keeper_fd, self._lock_fd, info)
        except BaseException:
            traceback.print_exc()
        finally:
            flush()
            os._exit(status)

    def _daemon_ended(self, _events: int) -> None:
        if self._link is not None:
            self._take_requests()  # its last word may be that its end was meant
        self._lose_link()
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        try:
            _, status = os.waitpid(self._daemon, 0)
        except ChildProcessError:
            status = 1  # after a takeover it was not our child: only the stop message tells
        meant = self._stop or status == 0 or not self._home.is_there()
        self._daemon = 0
        if meant and self._end():
            return
        if meant or time.monotonic() - self._born > SETTLED:
            self._pause = 0.0
        elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self._pause = min(self._pause, KILLED_PAUSE)
        elif self._pause >= REFUSED_FROM:
            self._refuse_waiting()
        self._loop.after(self._pause, self._fork_daemon)
        self._pause = min(max(self._pause * 2, 0.2), LONGEST_PAUSE)

    def _end(self) -> bool:
        """Everything is put away, unless a client has come at the last moment of an idle exit."""
        if not self._home.is_there():
            self._ended = True  # what is at our paths is another keeper's
            return True
        self._home.hide()
        if not self._stop and self._waited_at():
            self._home.make_again()
            return False
        place.forget(self._paths, self._home.run)
        for listener in self._listeners:
            listener.close()
        self._ended = True
        return True

    def _waited_at(self) -> list[_socket.socket]:
        """Listeners in whose queue there is a client."""
        queues = select.poll()
        for listener in self._listeners:
            queues.register(listener.fileno(), POLLIN)
        ready = [fd for fd, _ in queues.poll(0)]
        return [listener for listener in self._listeners if listener.fileno() in ready]

    def _refuse_waiting(self) -> None:
        """Tells clients in the queue that there is no daemon, instead of letting them wait for one."""
        body = json.dumps(
            {"message": f"the dockpy daemon does not start: see {self._paths.daemon_log}"}
        ).encode()
        head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        while waiting := self._waited_at():
            fd, _ = waiting[0]._accept()  # type: ignore[attr-defined]  # the raw socket's accept
            client = _socket.socket(fileno=fd)
            with contextlib.suppress(OSError):  # a client that has left needs no answer
                client.setblocking(False)
                client.recv(1 << 16)  # unread bytes would make the close a reset
            with contextlib.suppress(OSError):
                client.send(head.encode() + body)
            client.close()

    def _moved(self, listener: _socket.socket) -> None:
        self._listeners.append(listener)
        self._tell_listeners()
        self._loop.after(FORMER, self._close_former)

    def _tell_listeners(self) -> None:
        while self._link is not None and self._told < len(self._listeners):
            try:
                send_packet(self._link, {"op": "listen"}, [self._listeners[self._told].fileno()])
            except BlockingIOError:
                self._loop.after(TELL_AGAIN, self._tell_listeners)
                return
            except OSError:
                return  # dying: the next one is told
            self._told += 1

    def _close_former(self) -> None:
        """Not at once: a daemon that is killed now has not accepted all that wait at what it was told of."""
        if self._link is None or self._told == 1:
            self._loop.after(FORMER, self._close_former)
            return
        self._listeners.pop(0).close()
        self._told -= 1

    def _lose_link(self) -> None:
        if self._link is not None:
            self._loop.forget(self._link.fileno())
            self._link.close()
            self._link = None

    # ---------------------------------------------------------------------------------- requests

    def _take(self, link: _socket.socket, data: bytes, fds: list[int]) -> None:
        """A stop, or a start message too long for a datagram."""
        raw, rest = decode(data, [os.dup(fd) for fd in fds])
        if raw.get("op") == "stop":
            self._stop = True
        elif raw.get("op") == "shim":
            self._starts.start(link, b"%d" % int(raw["seq"]), data, fds)
        close_all(rest)

    def _asked(self, _events: int) -> None:
        """Together with something else; `_fork_shims` takes it next."""

    def _take_requests(self) -> None:
        """All that are there."""
        while self._link is not None:
            try:
                packet = receive_raw(self._link)
            except (BadMessage, OSError):
                return
            if packet is None:
                return
            self._take(self._link, *packet)
            close_all(packet[1])

    def _signalled(self, _events: int) -> None:
        try:
            numbers = os.read(self._signals, 512)
        except BlockingIOError:
            return
        if signal.SIGTERM in numbers:
            # A shutdown of the host: the daemon ends in its own way, and then we do.
            self._stop = True
            self._signal_daemon(signal.SIGTERM)
        self._reap()

    def _signal_daemon(self, number: int) -> None:
        try:
            pidfd_send_signal(self._pidfd, number)
        except OSError:
            pass  # it has just ended, or there is none

    def _reap(self) -> None:
        """Shims that have ended. The daemon's zombie waits for its own handler, which wants its
        status.
        """
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid == self._daemon:
                return
            os.waitpid(found.si_pid, 0)
