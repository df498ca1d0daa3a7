"""A daemon for this store when none answers, or one of an older build: imported only then, so that a
warm client does not pay for it.

Whoever holds birth.lock looks again, and then either starts a keeper or waits for the one there is.
The keeper gets the store's lock by the open folder that locked it, so at no instant two can be born,
and no file can be deleted to make it happen.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import time

from dockpy import fastjson, ids, localdisk, reexec
from dockpy.client import service
from dockpy.client.peer import is_ours, unix
from dockpy.errors import Unavailable
from dockpy.files import locked, read_bytes
from dockpy.paths import JOBS, Paths, job_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

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
    "DOCKPY_STORES",
    "TMPDIR",
    "LANG",
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def ensure(paths: Paths, environ: Mapping[str, str], *, build: str | None = None) -> str:
    """The socket of this store's daemon, which is started when there is none, and replaced when it is
    older than `build` (None: any will do). Unavailable: why it cannot be.
    """
    paths = make_store(paths, environ)
    with _between_hosts(paths), locked(paths.birth_lock):
        found = _living(paths)
        if found is not None and _fits(paths, build, *found):
            return found[0]
        deadline = time.monotonic() + PATIENCE
        while True:
            lock = _try_lock(paths.lock)
            if lock is not None:
                _spawn(paths, environ, lock)
            found = _living(paths)
            if found is not None and not (build and replaces(build, found[1])):
                return found[0]
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the daemon of {paths.store} does not answer; its log is {paths.daemon_log}"
                )
            time.sleep(0.01)


def answering(paths: Paths) -> str | None:
    """The recorded socket when a daemon of ours listens there."""
    found = _living(paths)
    return None if found is None else found[0]


def _record(paths: Paths) -> dict[str, object]:
    try:
        record = fastjson.loads(read_bytes(paths.daemon_json))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _living(paths: Paths) -> tuple[str, str] | None:
    """(socket, build) of the daemon that answers."""
    record = _record(paths)
    path = record.get("socket")
    if not isinstance(path, str):
        return None
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
        return (path, str(record.get("build"))) if is_ours(sock) else None
    except OSError:
        return None
    finally:
        sock.close()


# ------------------------------------------------------------------------------------ two builds


def _fits(paths: Paths, ours: str | None, socket: str, theirs: str) -> bool:
    """Whether a client of our build may use that daemon; an older one has been told to end when not.

    Its containers go on: the daemon that is born next enters through their shims.
    """
    if ours is None or not (replaces(theirs, ours) or replaces(ours, theirs)):
        return True
    if replaces(theirs, ours):
        raise Unavailable(
            f"the daemon of {paths.store} is of a newer build ({theirs}) than this file ({ours}) and is not "
            "replaced by it: use the newer file, or end that daemon with 'dockpy daemon stop'"
        )
    sock = unix(socket)
    try:
        sock.sendall(
            b"POST /dockpy/stop?successor=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
        )
        sock.settimeout(PATIENCE)
        while sock.recv(4096):
            pass
    except OSError:
        pass  # it has ended: the lock tells
    finally:
        sock.close()
    return not replaces(ours, theirs)


def replaces(build: str, other: str) -> bool:
    """Whether `build` is newer than `other`. A build's id begins with the moment of its commit; one that
    runs from sources has none, and neither replaces another nor is replaced.
    """
    mine, _, rest = build.partition("-")
    theirs, _, others = other.partition("-")
    return bool(rest and others) and mine > theirs


# ------------------------------------------------------------------------------------- the store


def make_store(paths: Paths, environ: Mapping[str, str]) -> Paths:
    """The folders; answers `paths` with the data folder of this host."""
    try:
        os.makedirs(paths.store, 0o700, exist_ok=True)
        if not os.access(paths.store, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        status = os.stat(paths.store)
        if status.st_uid != os.geteuid():
            raise PermissionError(1, "it is another user's")
        if status.st_mode & 0o022:
            # Made by somebody else's hand, with a umask of 0: records and set-id files are in it.
            os.chmod(paths.store, status.st_mode & 0o7700)
        paths = Paths(paths.store, localdisk.settle(paths, environ))
        for folder in (paths.containers, paths.tmp):
            os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the store {paths.store} cannot be written ({error.strerror}); "
            "set XDG_DATA_HOME to a folder of yours on a local disk"
        ) from None
    return paths


class _between_hosts:
    """Where several hosts see the store, one of them serves it: the others are told which.

    daemon.json is the record, and its time the sign of life (daemon.main touches it each minute): a host that lost
    its power has to be believed dead. Two that begin at once meet at a lock, where the network has locks.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._fd = -1

    def __enter__(self) -> None:
        paths = self._paths
        if paths.data == paths.store:
            return
        self._fd = os.open(
            f"{paths.store}/birth.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError:
            pass  # a mount without locks
        record = _record(paths)
        machine, host = record.get("machine"), str(record.get("host"))
        if machine in (None, ids.machine_id()) and host in ("None", os.uname().nodename):
            return
        if localdisk.age(paths.daemon_json) < localdisk.SILENT:
            os.close(self._fd)
            raise Unavailable(
                f"the store {paths.store} is in use by the host {host}: use it there, end its daemon there with "
                "'dockpy daemon stop', or set XDG_DATA_HOME to another folder here"
            )

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _try_lock(path: str) -> int | None:
    """An open folder that is locked; None when keeper or daemon holds the lock."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


# ----------------------------------------------------------------------------------- the process


def _spawn(paths: Paths, environ: Mapping[str, str], lock: int) -> None:
    """Starts a keeper and returns once it listens; raises what it says when it cannot. Closes `lock`."""
    ready = None
    manager = service.manager(environ, os.geteuid())
    if manager is not None:
        # A service inherits nothing: until it has locked, birth.lock keeps others away.
        os.close(lock)
        ready = service.start(paths, manager, arguments(paths, environ), environment(environ))
        again = _try_lock(paths.lock) if ready is None else None
        if ready is None and again is None:
            return  # it was late: the next look finds it
        lock = -1 if again is None else again
    if ready is None:
        ready = _fork(paths, environ, lock)
    said = b""
    while said != b"ready":
        part = os.read(ready, 4096)
        if not part:
            break
        said += part
    os.close(ready)
    if said != b"ready":
        reason = said.decode("utf-8", "replace")
        raise Unavailable(
            reason
            or f"the daemon cannot be started: it ended at once; its log is {paths.daemon_log}"
        )


def _fork(paths: Paths, environ: Mapping[str, str], lock: int) -> int:
    """A keeper where we are, which inherits `lock` (closed here); the end of a pipe on which it reports."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ready)
            _become_keeper(paths, environ, lock, tell)
        finally:
            os._exit(127)
    os.close(tell)
    os.close(lock)
    os.waitpid(child, 0)
    return ready


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
    argv = reexec.argv("keeper", *arguments(paths, environ), f"--lock={lock}", f"--ready={tell}")
    os.execve(argv[0], argv, environment(environ))


def arguments(paths: Paths, environ: Mapping[str, str]) -> list[str]:
    """The keeper's own words, but for inherited descriptors."""
    words = [f"--store={paths.store}"]
    if paths.data != paths.store:
        words.append(f"--data={paths.data}")
    if environ.get("DOCKPY_TIER"):
        words.append(f"--tier={environ['DOCKPY_TIER']}")
    return words


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    # By a job's variables whoever runs it finds what is to end with it.
    kept = (*KEPT, *(name for name, _ in JOBS if job_of(environ)))
    return {**{name: environ[name] for name in kept if name in environ}, "PATH": PATH}


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
