"""Where the sockets are: the run folder, its daemon.json, and what is done when somebody deletes
them.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import hashlib
import json
import os

from dockpy import files, ids
from dockpy.linux.disk import spread_folders
from dockpy.localdisk import is_remote, make_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.paths import Paths

# sockaddr_un has 108 bytes; the longest name below the folder is "/s/<16 hex>.sock" or netd's.
LONGEST = 107 - 32
BACKLOG = 1024
# Bytes that are kept for daemon.json, so that it can be written on a full disk.
SPARE = 4096


def choose_run(paths: Paths) -> str:
    """`<data>/run` where a socket can be, else a folder of ours below /tmp; made, 0700, owner
    checked.
    """
    inside = f"{paths.data}/run"
    if len(os.fsencode(inside)) <= LONGEST and not is_remote(paths.data):
        spread_folders(paths.data)
        make_private(inside)
        return inside
    below_tmp = run_below_tmp(paths)
    make_private(below_tmp)
    return below_tmp


def run_below_tmp(paths: Paths) -> str:
    digest = hashlib.sha256(os.fsencode(paths.store)).hexdigest()[:8]
    return f"/tmp/dockpy-{os.geteuid()}-{digest}"


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


def is_there(paths: Paths, lock_fd: int) -> bool:
    """Whether the store is still the one that was locked: not deleted or moved away, nor made anew
    by the next command.
    """
    try:
        there = os.stat(paths.lock)
    except (FileNotFoundError, NotADirectoryError):
        there = None
    ours = there is not None and os.path.samestat(there, os.fstat(lock_fd))
    return ours and os.path.isdir(paths.store)


def socket_path(run: str) -> str:
    return f"{run}/dockpy.sock"


def write_daemon_json(
    paths: Paths, run: str, tier: str, build: str, keeper: int, daemon: int
) -> bytes:
    """What was written."""
    record = {
        "version": 1,
        "machine": ids.machine_id(),
        "host": os.uname().nodename,
        "boot": ids.boot_id(),
        "socket": socket_path(run),
        "run": run,
        "data": paths.data,
        "keeper": _process(keeper),
        "daemon": _process(daemon),
        "build": build,
        "tier": tier,
    }
    data = json.dumps(record).encode()
    spare = paths.daemon_spare
    try:
        files.write_atomic(paths.daemon_json, data, durable=False)
        if not os.path.exists(spare):
            files.write_atomic(spare, b" " * SPARE, durable=False)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _write_over(paths, data)
    return data


def _write_over(paths: Paths, data: bytes) -> bytes:
    """Into the room that a file of ours has already, where the disk has no other."""
    for path in (paths.daemon_spare, paths.daemon_json):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            data = data.ljust(os.fstat(fd).st_size)
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)
        os.rename(path, paths.daemon_json)
        return data
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), paths.daemon_json)


def forget(paths: Paths, run: str) -> None:
    """No daemon and no keeper any more; the next one has room for its record all the same."""
    if not run.startswith(f"{paths.data}/"):
        with contextlib.suppress(OSError):  # not empty: there are shims with their sockets
            os.rmdir(f"{run}/s")
            os.rmdir(run)
    if os.path.exists(paths.daemon_spare):
        files.unlink_if_exists(paths.daemon_json)
        return
    try:
        os.rename(paths.daemon_json, paths.daemon_spare)
    except FileNotFoundError:
        pass


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
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
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
