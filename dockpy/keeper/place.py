"""Where the sockets are: the run folder, its daemon.json, and what is done when somebody deletes
them.
"""

from __future__ import annotations

import _socket
import hashlib
import json
import os
import stat

from dockpy import files, ids
from dockpy.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.paths import Paths

# sockaddr_un has 108 bytes; the longest name below the folder is "/s/<16 hex>.sock" or netd's.
LONGEST = 107 - 32
BACKLOG = 1024
# Their locks, sockets or renames are not a local disk's.
REMOTE = frozenset(
    "nfs nfs4 cifs smb3 smbfs afs 9p ceph lustre gpfs beegfs orangefs glusterfs coda vboxsf".split()
)


def choose_run(paths: Paths) -> str:
    """`<store>/run` where a socket can be, else a folder of ours below /tmp; made, 0700, owner
    checked.
    """
    inside = f"{paths.store}/run"
    if len(os.fsencode(inside)) <= LONGEST and not is_remote(paths.store):
        make_private(inside)
        return inside
    digest = hashlib.sha256(os.fsencode(paths.store)).hexdigest()[:8]
    below_tmp = f"/tmp/dockpy-{os.geteuid()}-{digest}"
    make_private(below_tmp)
    return below_tmp


def make_private(path: str) -> None:
    """A folder that is ours alone, or a sentence: below /tmp somebody else may have been first."""
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise Unavailable(
            f"cannot make {path}: {error.strerror}; set XDG_DATA_HOME to a folder of yours"
        ) from None
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise Unavailable(f"{path} is not a folder of yours; remove it or set XDG_DATA_HOME")
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)


def is_remote(path: str) -> bool:
    """Whether `path` lies on a network file system (by its device number in mountinfo)."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            if left.split(" ", 3)[2] == wanted:
                kind = right.split(" ", 1)[0]
                return kind in REMOTE or kind.startswith("fuse.")
    return False


def listen(run: str) -> _socket.socket:
    """The daemon's socket, 0600 in a 0700 folder, in place of whatever was there."""
    path = socket_path(run)
    make_private(run)
    make_private(f"{run}/s")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    # Bound under another name and renamed: a client never meets a socket that does not listen yet.
    temporary = f"{path}.{os.getpid()}"
    files.unlink_if_exists(temporary)
    sock.bind(temporary)
    os.chmod(temporary, 0o600)
    sock.listen(BACKLOG)
    os.rename(temporary, path)
    return sock


def socket_path(run: str) -> str:
    return f"{run}/dockpy.sock"


def write_daemon_json(
    paths: Paths, run: str, tier: str, build: str, keeper: int, daemon: int
) -> bytes:
    """What was written."""
    record = {
        "version": 1,
        "machine": ids.machine_id(),
        "boot": ids.boot_id(),
        "socket": socket_path(run),
        "run": run,
        "keeper": _process(keeper),
        "daemon": _process(daemon),
        "build": build,
        "tier": tier,
    }
    data = json.dumps(record).encode()
    files.write_atomic(paths.daemon_json, data, durable=False)
    return data


def _process(pid: int) -> dict[str, int] | None:
    try:
        return {"pid": pid, "start": ids.start_time(pid)}
    except ProcessLookupError:
        return None


def living_shims(paths: Paths) -> list[int]:
    """Pids of the shims of this boot that are alive, by the records in the containers' folders."""
    pids = []
    boot = ids.boot_id()
    try:
        names = os.listdir(paths.containers)
    except FileNotFoundError:
        return []
    for name in names:
        try:
            record = json.loads(files.read_bytes(f"{paths.containers}/{name}/shim.json"))
            if record["boot"] == boot and ids.alive(record["pid"], record["start"]):
                pids.append(record["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return pids


def offer_symlink(run: str, environ_runtime: str) -> None:
    """$XDG_RUNTIME_DIR/dockpy.sock for other clients, where that folder is ours; never needed by
    us.
    """
    if not environ_runtime.startswith("/"):
        return
    link = f"{environ_runtime}/dockpy.sock"
    try:
        if os.stat(environ_runtime).st_uid != os.geteuid():
            return
        if os.path.islink(link):
            os.unlink(link)
        os.symlink(socket_path(run), link)
    except OSError:
        pass
