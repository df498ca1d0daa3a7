"""A daemon as a transient service of the user's own systemd (root: the system's), where one runs.

There it has a place of its own beside the login sessions and control groups that it may divide
(Delegate); the containers' processes stay when the service is stopped (KillMode=process). Imported
only by whoever starts a daemon. What systemd cannot do leads to the start of a plain process.
"""

from __future__ import annotations

import os
import select
import time

from dockpy import reexec
from dockpy.client.peer import credentials, unix
from dockpy.paths import job_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dockpy.paths import Paths

    # systemd-run's command, and the environment that it needs.
    Manager = tuple[list[str], dict[str, str]]

# OOMPolicy: a container that runs out of memory must not take the service with it.
PROPERTIES = (
    "Type=exec",
    "KillMode=process",
    "Delegate=yes",
    "OOMPolicy=continue",
    "TasksMax=infinity",
    "IgnoreSIGPIPE=no",
    "UMask=0022",
)
PATIENCE = 10.0  # seconds until the service must have opened its end of the FIFO


def manager(environ: Mapping[str, str], uid: int) -> Manager | None:
    """The manager that may hold our daemon; None where there is none, or where it lives in other
    namespaces than we do, and in a job, with which our daemon ends. DOCKPY_SERVICE=no: none is wanted.
    """
    if environ.get("DOCKPY_SERVICE") == "no" or job_of(environ):
        return None
    program = _program("systemd-run")
    if program is None:
        return None
    if uid == 0:
        found = os.path.isdir("/run/systemd/system") and _sees_what_we_see(1)
        return ([program, "--system"], {}) if found else None
    for runtime in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        pid = _listener(f"{runtime}/systemd/private", uid) if runtime.startswith("/") else 0
        if pid and _sees_what_we_see(pid):
            return [program, "--user"], {"XDG_RUNTIME_DIR": runtime}
    return None


def start(paths: Paths, by: Manager, words: Sequence[str], kept: Mapping[str, str]) -> int | None:
    """Starts a keeper with those `words` and that environment, which takes the store's lock itself.

    Answers the descriptor on which it will say that it is ready, or why not; None: the manager would
    not, and nothing has been started.
    """
    command, own = by
    fifo = f"{paths.data}/birth.fifo"
    try:
        os.unlink(fifo)
    except FileNotFoundError:
        pass
    os.mkfifo(fifo, 0o600)
    try:
        ready = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        argv = reexec.argv(
            "keeper", *words, "--service", f"--ready={fifo}", f"--environ={','.join(kept)}"
        )
        for unit in units(paths.store):
            if _run([*command, *_arguments(unit, paths.store, argv, kept)], own) == 0:
                if _opened(ready):
                    return ready
                break
        os.close(ready)
        return None
    finally:
        os.unlink(fifo)


def _arguments(
    unit: str, store: str, argv: Sequence[str], kept: Mapping[str, str]
) -> Iterator[str]:
    yield from ("--quiet", "--collect", f"--unit={unit}", f"--description=dockpy of {store}")
    yield from (f"--property={line}" for line in PROPERTIES)
    yield from (f"--setenv={name}={value}" for name, value in kept.items())
    yield "--"
    yield argv[0]
    # The manager puts variables into the words that follow the program.
    yield from (word.replace("$", "$$") for word in argv[1:])


def units(store: str) -> tuple[str, str]:
    """The name this store's service always has, so that its control group is the same one again;
    another, where a unit of that name is still being put away.
    """
    import zlib

    name = f"dockpy-{zlib.crc32(os.fsencode(os.path.realpath(store))):08x}"
    return f"{name}.service", f"{name}-{time.time_ns():x}.service"


def _run(argv: list[str], environ: Mapping[str, str]) -> int:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
        return os.waitpid(pid, 0)[1]
    finally:
        os.close(null)


def _opened(fifo: int) -> bool:
    """Whether the other end has been opened in time; reading blocks from then on."""
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    heard = bool(poll.poll(PATIENCE * 1000))
    os.set_blocking(fifo, True)
    return heard


def _program(name: str) -> str | None:
    for folder in ("/usr/bin", "/bin", "/run/current-system/sw/bin"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    return None


def _listener(path: str, uid: int) -> int:
    """The pid of this user's process that listens at `path`; 0 where none does."""
    try:
        if os.lstat(path).st_uid != uid:
            return 0
        sock = unix(path)
    except OSError:
        return 0
    pid, owner = credentials(sock)
    sock.close()
    return pid if owner == uid else 0


def _sees_what_we_see(pid: int) -> bool:
    """Whether a process started by `pid` would meet the same files, network and ids as we do."""
    theirs = _namespaces(pid)
    return bool(theirs) and theirs == _namespaces(os.getpid())


def _namespaces(pid: int) -> list[str]:
    try:
        return [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "pid", "user", "net")]
    except OSError:
        return []  # it has ended, or may not be looked at
