"""How a line of runtime.init begins, goes on in a sibling, and says what failed.

Of the caller's process nothing is left in the child but its memory: the descriptors are the workload's
and those that are named, the signals are the kernel's, the umask is ours.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed lacks it; signal is its slow wrapper
import fcntl
import os

from dockpy.linux import processes
from dockpy.runtime.conversation import PID
from dockpy.runtime.errors import SetupError, describe, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class Line:
    """Where we are, for the sentence when something fails; and the way to say it."""

    def __init__(self, sock: int) -> None:
        self.sock = sock
        self.stage = "starting"
        self.in_sibling = False  # pids are no answer: they are another namespace's there

    def send(self, message: bytes) -> None:
        os.write(self.sock, message)


class Continued(Exception):
    """A sibling goes on: this process has done its part."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


def in_child(
    sock: int, stdio: tuple[int, int, int] | None, keep: list[int], work: Callable[[Line], None]
) -> NoReturn:
    """Runs `work` in a fresh child; whatever happens, the caller's code is never reached again."""
    line = Line(sock)
    try:
        line.sock = _take_descriptors(sock, stdio, keep)
        _forget_signals()
        # Modes are given in full below; the workload gets its own umask at the end.
        os.umask(0)
        work(line)
    except Continued:
        os._exit(0)
    except BaseException as error:
        try:
            line.send(describe(line.stage, error))
        except OSError:
            pass
    finally:
        os._exit(1)


def in_caller(sock: int, stdio: tuple[int, int, int] | None, work: Callable[[Line], None]) -> int:
    """As in_child, in a caller that ends soon anyway: the sibling's pid, where the workload goes on.

    A child between the two would cost 1.5 ms: a fork, 410 pages copied because they are touched, an exit.
    """
    line = Line(sock)
    try:
        if stdio is not None:
            _put_stdio(stdio)
        _forget_signals()
        os.umask(0)
        work(line)
    except Continued as sibling:
        return sibling.pid
    except BaseException as error:
        if not line.in_sibling:
            raise SetupError(sentence(line.stage, error)) from None
        try:
            line.send(describe(line.stage, error))
        except OSError:
            pass
    finally:
        if line.in_sibling:
            os._exit(1)
    raise AssertionError("the line of exec ends in its sibling")


def continue_in_sibling(line: Line, flags: int) -> None:
    """Returns in another child of our parent, which learns its pid; this process has done its part."""
    pid, _ = processes.clone(processes.CLONE_PARENT | flags)
    if pid:
        line.send(b"%b%d}" % (PID, pid))
        raise Continued(pid)
    line.in_sibling = True


def _take_descriptors(sock: int, stdio: tuple[int, int, int] | None, keep: list[int]) -> int:
    """0, 1, 2 become the workload's; of the caller's others only the socket and `keep` stay open."""
    sock = _above_stdio(sock)
    if stdio is not None:
        _put_stdio(stdio)
    close_others([sock, *keep])
    return sock


def _put_stdio(stdio: tuple[int, int, int]) -> None:
    for number, fd in enumerate([_above_stdio(fd) for fd in stdio]):
        os.dup2(fd, number)


def close_others(keep: list[int]) -> None:
    first = 3
    for fd in sorted(keep):
        processes.close_range(first, fd - 1)
        first = fd + 1
    processes.close_range(first)


def _above_stdio(fd: int) -> int:
    if fd > 2:
        return fd
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _forget_signals() -> None:
    """No handler of the caller's runs here; what Python ignores (SIGPIPE) is not left ignored."""
    # The C module: signal's own functions turn each number into an enum and back, 0.2 ms in all.
    _signal.set_wakeup_fd(-1)
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            _signal.signal(number, _signal.SIG_DFL)
