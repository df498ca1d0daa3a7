"""Signals as readable bytes, so that one poll waits for everything. `_signal`: importing signal
costs an enum.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
    from typing import Any
else:
    import _signal

# Docker passes everything on but these: children and pipes are the client's own affair, URG is
# Go's.
# Job control by the terminal (TTIN, TTOU) is left to the kernel: a handler would make the read
# spin.
_KEPT = ("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGPIPE", "SIGURG", "SIGTTIN", "SIGTTOU", "SIGWINCH")
_FAULTS = (
    "SIGSEGV",
    "SIGBUS",
    "SIGFPE",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGSYS",
    "SIGPROF",
    "SIGVTALRM",
)


SIGINT, SIGTERM, SIGWINCH = int(_signal.SIGINT), int(_signal.SIGTERM), int(_signal.SIGWINCH)
ENDING = (int(_signal.SIGHUP), int(_signal.SIGQUIT), SIGTERM)


def die_of_sigpipe() -> None:
    """Python began by ignoring the signal; the end it makes is the one that shells know."""
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGPIPE)


def proxied() -> list[int]:
    kept = {getattr(_signal, name) for name in (*_KEPT, *_FAULTS)}
    return [number for number in range(1, 32) if number not in kept]


def _note(number: int, frame: object) -> None:
    """The wake-up descriptor has told; Python wants a handler for that."""


class Signals:
    """Catches `numbers` until closed; `fd` is readable when one came. What was ignored stays
    ignored.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: list[tuple[int, Any]] = []
        _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in numbers:
            before = _signal.getsignal(number)
            if before == _signal.SIG_IGN:
                continue
            _signal.signal(number, _note)
            self._before.append((number, before))

    def read(self) -> list[int]:
        try:
            return list(dict.fromkeys(os.read(self.fd, 512)))
        except BlockingIOError:
            return []

    def close(self) -> None:
        _signal.set_wakeup_fd(-1)
        for number, before in self._before:
            _signal.signal(number, before)
        self._before = []
        os.close(self.fd)
        os.close(self._write)
