"""`system reset`, in a process of its own (role `reset`): all that runs from a store is ended, and the store removed.

First outside, where our processes can be signalled: by the daemon where it answers, then by force. Then
in a user namespace with this user's ranges, where files of every owner can be removed. It goes by what it
finds, since the store may be damaged and its daemon unable to start. Everything is imported before the
first file goes: this very code may lie in the store.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from dockpy import files, ids
from dockpy.errors import DockpyError, Unavailable
from dockpy.keeper import place
from dockpy.linux.mounts import MNT_DETACH, umount2
from dockpy.paths import Paths
from dockpy.rootless.enter import enter
from dockpy.storage import remove

FIRST, ANSWER = 3.0, 20.0  # seconds that the daemon may take for its first answer, and for others
GRACE = 1.0  # seconds for a daemon that was told to end
END = 10.0  # seconds that killed processes may take
JOBS = ".jobs"


def main(argv: Sequence[str]) -> int:
    pairs = dict(word[2:].partition("=")[::2] for word in argv)
    try:
        return reset(Paths(pairs["store"], pairs.get("data", "")))
    except (DockpyError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def reset(paths: Paths) -> int:
    """1 when something could not be removed, which is told."""
    if not os.path.isdir(paths.store):
        return 0
    there = [path for path in (paths.store, paths.data) if os.path.isdir(path)]
    roots = tuple(dict.fromkeys(os.path.realpath(path) for path in there))
    if len(there) == 1:
        paths = Paths(paths.store)  # what was elsewhere is gone
    with files.locked(paths.birth_lock):  # whoever wants a daemon waits
        return _reset(paths, roots)


def _reset(paths: Paths, roots: tuple[str, ...]) -> int:
    runs = [run for run in _run_folders(paths) if os.path.isdir(run)]
    try:
        _ask(f"{runs[0]}/dockpy.sock" if runs else "")
    except (OSError, http.client.HTTPException, ValueError):
        _end(roots, paths, grace=0.0)
    else:
        _end(roots, paths, grace=GRACE)
    _unmount(roots)
    link = f"{os.environ.get('XDG_RUNTIME_DIR', '')}/dockpy.sock"
    if os.path.islink(link) and os.path.dirname(os.readlink(link)) in runs:
        os.unlink(link)
    if os.geteuid() != 0 or ids.mapped_ids() == 1:
        with contextlib.suppress(Unavailable):  # without namespaces there never was another owner
            enter()
    wrong = [
        *_remove(paths, roots),
        *_remove_whole([run for run in runs if not _inside(run, roots)]),
    ]
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


def _run_folders(paths: Paths) -> Iterator[str]:
    """Where the sockets may be: the recorded place first, and those that are chosen without a record."""
    candidates = [f"{paths.data}/run", place.run_below_tmp(paths)]
    with contextlib.suppress(OSError, ValueError, RecursionError):
        raw = json.loads(files.read_bytes(paths.daemon_json))
        recorded = raw.get("run") if isinstance(raw, dict) else None
        candidates.sort(key=lambda path: path != recorded)
    for path in candidates:
        with contextlib.suppress(OSError):
            if os.lstat(path).st_uid == os.geteuid():
                yield path


# ------------------------------------------------------------------------------ what runs


class _Daemon(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("d")
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._seconds)
        self.sock.connect(self._path)


def _ask(path: str) -> None:
    """Removes the containers in the daemon's own way, and ends it."""

    def request(method: str, target: str, timeout: float = ANSWER) -> bytes:
        connection = _Daemon(path, timeout)
        try:
            connection.request(method, target)
            return connection.getresponse().read()
        finally:
            connection.close()

    rows = json.loads(request("GET", "/containers/json?all=1", FIRST))
    for row in rows if isinstance(rows, list) else ():
        request("DELETE", f"/containers/{row['Id']}?force=1&v=1")
    request("POST", "/dockpy/stop")


def _end(roots: tuple[str, ...], paths: Paths, *, grace: float) -> None:
    """Whatever of ours still lives, by force; Unavailable when something will not die."""
    begun = time.monotonic()
    while True:
        found = _processes(roots)
        if not found and _free(paths):
            return
        late = time.monotonic() - begun
        if late > END:
            raise Unavailable(
                f"the store {paths.store} is in use by processes that do not end: {found}"
            )
        if late >= grace:
            # Stopped first: none may start its neighbour again.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in _with_children(found):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
        time.sleep(0.05)


def _free(paths: Paths) -> bool:
    import fcntl

    fd = os.open(paths.lock, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    else:
        free = True
    finally:
        os.close(fd)
    return free


def _processes(roots: tuple[str, ...]) -> list[int]:
    """Keepers, daemons, shims and fuse-overlayfs's: by the files that they have open in the store."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            title = files.read_bytes(f"/proc/{name}/comm")
            if title.startswith(b"dockpy-"):
                ours = any(
                    _inside(_link(f"/proc/{name}/fd/{fd}"), roots)
                    for fd in os.listdir(f"/proc/{name}/fd")
                )
            elif title.startswith(b"fuse-overlayfs"):
                line = files.read_bytes(f"/proc/{name}/cmdline")
                ours = any(os.fsencode(f"{root}/snapshots/") in line for root in roots)
            else:
                continue
            if ours:
                found.append(int(name))
    return found


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _inside(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def _with_children(pids: list[int]) -> list[int]:
    """With all that they have started: a container may have no pid namespace that ends with its init."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = files.read_bytes(f"/proc/{name}/stat").rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(name))
    found = dict.fromkeys(pids)
    pending = list(pids)
    while pending:
        for child in children.get(pending.pop(), ()):
            if child not in found and child != os.getpid():
                found[child] = None
                pending.append(child)
    return list(found)


def _unmount(roots: tuple[str, ...]) -> None:
    """Never removes through a mount: root undoes those in the store, others are told."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescaped(line.split(" ", 5)[4]) for line in file]
    for point in reversed(
        [point for point in points if _inside(point, roots) and point not in roots]
    ):
        try:
            umount2(point, MNT_DETACH)
        except PermissionError:
            raise Unavailable(f"something is mounted at {point}: unmount it first") from None


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


# ------------------------------------------------------------------------------ what lies there


def _remove(paths: Paths, roots: tuple[str, ...]) -> Iterator[str]:
    """Everything that is ours, and the folders when nothing else is left in them; what went wrong."""
    ours = {
        os.path.basename(value)
        for value in vars(paths).values()
        if os.path.dirname(value) in (paths.store, paths.data)
    }
    ours |= {"run", "birth.fifo", f"data.{os.uname().nodename}"}
    for root in roots:
        for name in sorted(
            os.listdir(root), key=lambda name: (name == "app", name.endswith(".lock"))
        ):
            path = f"{root}/{name}"
            if name == JOBS:
                yield from _remove_jobs(path)
            elif name in ours or name.endswith(".tmp"):
                yield from _remove_whole([path])
            else:
                yield f"{path} stays: it is not of dockpy"
        with contextlib.suppress(OSError):  # something stays, or the folder above is another user's
            os.rmdir(root)
    if paths.data != paths.store:
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(paths.data))


def _remove_jobs(folder: str) -> Iterator[str]:
    """Those of this host: what runs in them has been ended."""
    for name in os.listdir(folder):
        if name.endswith(f".{os.uname().nodename}"):
            yield from _remove_whole([f"{folder}/{name}"])
        else:
            yield f"{folder}/{name} stays: it is of a job on another host"
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _remove_whole(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        try:
            remove.remove_path(path)
        except OSError as error:
            yield f"{path} cannot be removed: {error.strerror}"
