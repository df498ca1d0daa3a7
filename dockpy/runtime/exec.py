"""A further process in a running container, confined as its first one.

Which namespaces to enter is read from /proc/<init>/ns: all that differ from ours, but for the
user namespace: there it is the one that owns the container (its pid or mount namespace), never
the nested one in which a single-uid container's user runs.
"""

from __future__ import annotations

import _socket
import dataclasses
import os

from dockpy.errors import DockpyError
from dockpy.linux import processes
from dockpy.linux.namespaces import get_userns
from dockpy.runtime.conversation import Created, Stdio, converse
from dockpy.runtime.create import workload
from dockpy.runtime.errors import EXEC, SetupError, start_failed, strerror
from dockpy.runtime.init import execute
from dockpy.runtime.line import in_caller, in_child
from dockpy.runtime.namespaces import children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.oci.spec import Process, Spec

# The order of joining; user comes before all of them, mnt last: after it /proc is the container's.
KINDS = ("cgroup", "ipc", "uts", "net", "pid", "mnt")


def exec_process(
    spec: Spec,
    process: Process,
    init_pid: int,
    stdio: Stdio | None,
    *,
    console_size: tuple[int, int] | None = None,
    seccomp_cache: str | None = None,
    sibling: bool = False,
) -> Created:
    """Starts `process` beside `init_pid`, a child of the caller that was not reaped yet (with
    `sibling` of the caller's parent, whose child the new process is then, too).

    The caller of a `sibling` is spent: it has joined the container and can only end.

    Who: `process.user.username` when set, else the container's own user by its annotation, else
    numbers. Capabilities, oom score and rlimits that `process` leaves out are the container's, and
    no_new_privileges of the container cannot be left out.
    """
    own = spec.process
    if process.capabilities is None:
        process = dataclasses.replace(process, capabilities=own.capabilities)
    if process.oom_score_adj is None:
        process = dataclasses.replace(process, oom_score_adj=own.oom_score_adj)
    process = dataclasses.replace(
        process,
        rlimits=process.rlimits or own.rlimits,
        no_new_privileges=process.no_new_privileges or own.no_new_privileges,
    )
    terminal = stdio is None and process.terminal
    try:
        work = workload(
            spec, process, terminal=terminal, console_size=console_size, seccomp_cache=seccomp_cache
        )
        joined = open_namespaces(init_pid)
    except (DockpyError, SetupError) as error:
        raise start_failed(EXEC, str(error)) from None
    ours, theirs = _socket.socketpair(
        _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    )
    try:
        fds = None if stdio is None else (stdio.stdin, stdio.stdout, stdio.stderr)
        if sibling:
            mine, joined = joined, []  # closed where they are joined
            try:
                pid = in_caller(theirs.fileno(), fds, lambda line: execute(line, work, mine))
            except SetupError as error:
                raise start_failed(EXEC, str(error)) from None
            theirs.close()
            return converse(ours, pid, -1, EXEC, sibling=True)
        pid, pidfd = processes.clone(0)
        if pid == 0:
            in_child(
                theirs.fileno(),
                fds,
                [fd for _, fd in joined],
                lambda line: execute(line, work, joined),
            )
        theirs.close()
        return converse(ours, pid, pidfd, EXEC)
    finally:
        ours.close()
        theirs.close()
        for _, fd in joined:
            os.close(fd)


def open_namespaces(init_pid: int) -> list[tuple[str, int]]:
    """What to join for `init_pid`: (kind, descriptor) in the order of joining."""
    try:
        return _open_namespaces(init_pid)
    except PermissionError:
        pass
    except OSError as error:
        raise SetupError(f"the container's first process is gone: {strerror(error)}") from None
    # Our own init (runtime.pid1) is not dumpable, for it is an interpreter of the host; what it
    # runs is.
    for pid in children(init_pid):
        try:
            found = _open_namespaces(pid)
        except OSError:
            continue
        # Asked again: it may have ended before the look at it, and its pid be somebody else's.
        if pid in children(init_pid):
            return found
        for _, fd in found:
            os.close(fd)
    raise SetupError("the container's namespaces cannot be entered: permission denied")


def _open_namespaces(pid: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    try:
        for kind in KINDS:
            fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            theirs, ours = os.fstat(fd), os.stat(f"/proc/self/ns/{kind}")
            if theirs.st_ino == ours.st_ino:
                os.close(fd)
                continue
            found.append((kind, fd))
        if not any(kind == "mnt" for kind, _ in found):
            # A container always has its own: this is a process of the host, where nothing is confined.
            raise SetupError(f"process {pid} is in no container")
        return _owner(found) + found
    except BaseException:
        for _, fd in found:
            os.close(fd)
        raise


def _owner(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The user namespace that owns the container's mount namespace, where it is not our own."""
    for kind, fd in found:
        if kind == "mnt":
            owner = get_userns(fd)
            if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino:
                return [("user", owner)]
            os.close(owner)
    return []
