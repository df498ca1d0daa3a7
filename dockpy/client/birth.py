"""A daemon for this store when none answers: imported only then, so that a warm client does not pay
for it.

Whoever holds birth.lock looks again, and then either starts a keeper or waits for the one there is.
The
keeper gets daemon.lock by the open file that locked it, so at no instant two can be born.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import time

from dockpy import fastjson, ids, reexec
from dockpy.client.peer import is_ours
from dockpy.errors import Unavailable
from dockpy.files import locked, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockpy.paths import Paths

PATIENCE = 10.0
# What the daemon keeps of the caller's environment: proxies, credentials and the rest come by
# request.
KEPT = (
    "HOME",
    "USER",
    "LOGNAME",
    "XDG_RUNTIME_DIR",
    "XDG_DATA_HOME",
    "DOCKPY_STORE",
    "TMPDIR",
    "LANG",
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def ensure(paths: Paths, environ: Mapping[str, str]) -> str:
    """The socket of this store's daemon, which is started when there is none. Unavailable: why it
    cannot be.
    """
    _make_store(paths)
    with locked(paths.birth_lock):
        socket = answering(paths)
        if socket is not None:
            return socket
        deadline = time.monotonic() + PATIENCE
        while True:
            lock = _try_lock(paths.daemon_lock)
            if lock is not None:
                try:
                    _spawn(paths, environ, lock)
                finally:
                    os.close(lock)
            socket = answering(paths)
            if socket is not None:
                return socket
            if time.monotonic() > deadline:
                raise Unavailable(_held_by(paths))
            time.sleep(0.01)


def answering(paths: Paths) -> str | None:
    """The recorded socket when a daemon of ours listens there."""
    try:
        record = fastjson.loads(read_bytes(paths.daemon_json))
    except (OSError, ValueError):
        return None
    path = record.get("socket") if isinstance(record, dict) else None
    if not isinstance(path, str):
        return None
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
        return path if is_ours(sock) else None
    except OSError:
        return None
    finally:
        sock.close()


def _make_store(paths: Paths) -> None:
    try:
        for folder in (paths.store, paths.containers, paths.tmp):
            os.makedirs(folder, 0o700, exist_ok=True)
        if not os.access(paths.store, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        status = os.stat(paths.store)
        if status.st_uid != os.geteuid():
            raise PermissionError(1, "it is another user's")
        if status.st_mode & 0o022:
            # Made by somebody else's hand, with a umask of 0: records and set-id files are in it.
            os.chmod(paths.store, status.st_mode & 0o7700)
    except OSError as error:
        raise Unavailable(
            f"the store {paths.store} cannot be written ({error.strerror}); "
            "set XDG_DATA_HOME to a folder of yours on a local disk"
        ) from None


def _try_lock(path: str) -> int | None:
    """An open file that holds the lock; None when keeper or daemon (or one of another host) holds
    it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


def _held_by(paths: Paths) -> str:
    try:
        record = fastjson.loads(read_bytes(paths.daemon_json))
    except (OSError, ValueError):
        record = None
    machine = record.get("machine") if isinstance(record, dict) else None
    if machine is not None and machine != ids.machine_id():
        return f"the store {paths.store} is in use by another host ({machine}); use another XDG_DATA_HOME here"
    return f"the daemon of {paths.store} does not answer; its log is {paths.daemon_log}"


def _spawn(paths: Paths, environ: Mapping[str, str], lock: int) -> None:
    """Starts a keeper and returns once it listens; raises what it says when it cannot."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ready)
            _become_keeper(paths, environ, lock, tell)
        finally:
            os._exit(127)
    os.close(tell)
    os.waitpid(child, 0)
    said = b""
    while True:
        part = os.read(ready, 4096)
        if not part:
            break
        said += part
        if said == b"ready":
            break
    os.close(ready)
    if said != b"ready":
        reason = (
            said.decode("utf-8", "replace") or f"it ended at once; its log is {paths.daemon_log}"
        )
        raise Unavailable(f"the daemon cannot be started: {reason}" if not said else reason)


def _become_keeper(paths: Paths, environ: Mapping[str, str], lock: int, tell: int) -> None:
    """In a child: away from the caller's session, folder, descriptors and environment."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o022)
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(paths.daemon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    low = 3
    for fd in sorted((lock, tell)):
        os.closerange(low, fd)
        os.set_inheritable(fd, True)
        low = fd + 1
    os.closerange(low, 1 << 16)
    _calm_down()
    kept = {name: environ[name] for name in KEPT if name in environ}
    arguments = [f"--store={paths.store}", f"--lock={lock}", f"--ready={tell}"]
    if environ.get("DOCKPY_TIER"):
        arguments.append(f"--tier={environ['DOCKPY_TIER']}")
    argv = reexec.argv("keeper", *arguments)
    os.execve(argv[0], argv, {**kept, "PATH": PATH})


def _calm_down() -> None:
    """The caller's niceness and oom score are not the daemon's, where they may be changed back."""
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) != 0:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    except OSError:
        pass
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, b"0")
        os.close(fd)
    except OSError:
        pass
    _default_signals()


def _default_signals() -> None:
    """nohup and shells leave signals ignored, and an ignored one would be the containers' for ever."""
    import signal

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
