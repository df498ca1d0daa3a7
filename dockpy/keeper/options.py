"""What a keeper is told by whoever starts it, `--name=value` each.

`--store=PATH [--data=PATH] [--tier=T] --lock=FD --ready=FD` is a birth (client/birth.py); `--service
--ready=FIFO --environ=NAMES` one by systemd (client/service.py), which hands down no descriptor; with
`--takeover --run= --daemon= --link= --listen= --lock=FD` a daemon replaces its keeper (keeper/takeover.py).
"""

from __future__ import annotations

import fcntl
import os

from dockpy.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Options:
    def __init__(self, argv: Sequence[str]) -> None:
        pairs = dict(word[2:].partition("=")[::2] for word in argv if word.startswith("--"))
        self.paths = Paths(pairs["store"], pairs.get("data", ""))
        if "service" in pairs:
            pairs.update(_settle(self.paths, pairs))
        self.lock_fd = int(pairs["lock"])
        self.ready_fd = int(pairs.get("ready") or -1)
        self.tier = pairs.get("tier") or None
        self.takeover = "takeover" in pairs
        self.run = pairs.get("run", "")
        self.daemon = int(pairs.get("daemon") or 0)
        self.link_fd = int(pairs.get("link") or -1)
        self.listen_fd = int(pairs.get("listen") or -1)


def _settle(paths: Paths, pairs: Mapping[str, str]) -> dict[str, str]:
    """In a service: log, lock and the way to report are opened here, and of the environment only what
    the client chose stays. BlockingIOError: another keeper has the store.
    """
    kept = pairs["environ"].split(",")
    for name in list(os.environ):
        if name not in kept:
            del os.environ[name]
    log = os.open(paths.daemon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # First of all: whoever waits at the other end knows then that we live.
    ready = os.open(pairs["ready"], os.O_WRONLY | os.O_CLOEXEC)
    lock = os.open(paths.lock, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return {"lock": str(lock), "ready": str(ready)}
