"""Which namespaces a container gets new, which it joins, and in what order.

Pure but for opening what is joined. The user namespace is joined first (it owns the others, and
gives the right to enter them), the mount namespace last (after it, paths of the host are gone).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from dockpy.files import read_bytes
from dockpy.linux import namespaces as ln
from dockpy.runtime.errors import SetupError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockpy.oci.spec import Linux

FLAGS = {
    "user": ln.CLONE_NEWUSER,
    "pid": ln.CLONE_NEWPID,
    "network": ln.CLONE_NEWNET,
    "ipc": ln.CLONE_NEWIPC,
    "uts": ln.CLONE_NEWUTS,
    "cgroup": ln.CLONE_NEWCGROUP,
    "mount": ln.CLONE_NEWNS,
    "time": ln.CLONE_NEWTIME,
}
# As in /proc/<pid>/ns.
FILES = {
    "user": "user",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "mount": "mnt",
}


@dataclass(frozen=True)
class Plan:
    """`fresh`: kinds to make; `joined`: (kind, path) in the order of joining."""

    fresh: frozenset[str]
    joined: tuple[tuple[str, str], ...]
    grouped: bool = False  # the container has a control group of its own

    def private(self, kind: str) -> bool:
        """Not the host's: made for this container, or another's that it shares."""
        return kind in self.fresh or any(entry == kind for entry, _ in self.joined)

    def joins(self, kind: str) -> bool:
        return any(entry == kind for entry, _ in self.joined)

    @property
    def clone_flags(self) -> int:
        """Of what the clone makes. A cgroup namespace's root is the group in which it is made, so that
        comes later where a group has to be joined.
        """
        late = {"cgroup"} if self.grouped else set()
        return sum(FLAGS[kind] for kind in self.fresh - late)


def plan(linux: Linux) -> Plan:
    fresh, joined = set(), {}
    for entry in linux.namespaces:
        if entry.type not in FLAGS:
            raise SetupError(f"unknown namespace {entry.type}")
        if entry.path is not None:
            joined[entry.type] = entry.path
        else:
            fresh.add(entry.type)
    if "mount" not in fresh:
        raise SetupError("a container needs a mount namespace of its own")
    if "time" in fresh or "time" in joined:
        raise SetupError("time namespaces are not served")
    return Plan(
        frozenset(fresh),
        tuple((kind, joined[kind]) for kind in FILES if kind in joined),
        linux.cgroups_path is not None,
    )


def open_joined(namespaces: Plan) -> list[tuple[str, int]]:
    result = []
    for kind, path in namespaces.joined:
        try:
            result.append((kind, _open(path)))
        except OSError as error:
            raise SetupError(
                f"lstat {path}: {strerror(error)} (the {kind} namespace to join)"
            ) from None
    return result


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        words = path.split("/")
        if len(words) != 5 or words[:2] != ["", "proc"] or not words[2].isdigit():
            raise
        return open_of_process(int(words[2]), words[4])


def open_of_process(pid: int, file: str) -> int:
    """/proc/<pid>/ns/<file>; of a container's first process also where that is our own init.

    That one (runtime.pid1) is not dumpable, for it is an interpreter of the host; what it runs is.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/{pid}/ns/{file}", flags)
    except PermissionError:
        for child in children(pid):
            try:
                fd = os.open(f"/proc/{child}/ns/{file}", flags)
            except OSError:
                continue
            # Asked again: it may have ended before the look at it, and its pid be somebody else's.
            if child in children(pid):
                return fd
            os.close(fd)
        raise


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in read_bytes(f"/proc/{pid}/task/{pid}/children").split()]
    except FileNotFoundError:
        if not os.path.exists(f"/proc/{pid}"):
            return []
    # A kernel without CONFIG_PROC_CHILDREN.
    result = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(read_bytes(f"/proc/{name}/stat").rpartition(b")")[2].split()[1])
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESRCH):
                    raise
                continue
            if parent == pid:
                result.append(int(name))
    return result


def check_sysctls(sysctl: Mapping[str, str], namespaces: Plan) -> None:
    """Only what a namespace of the container keeps to itself; the sentences are runc's."""
    for key in sysctl:
        if ".." in key or key.startswith(("/", ".")):
            raise SetupError(f'sysctl "{key}" is not in a separate kernel namespace')
        name = key.replace("/", ".")
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if not namespaces.private("ipc"):
                raise SetupError(f'sysctl "{key}" is not allowed in the hosts ipc namespace')
        elif name.startswith("net."):
            if not namespaces.private("network"):
                raise SetupError(f'sysctl "{key}" not allowed in host network namespace')
        elif name in ("kernel.domainname", "kernel.hostname"):
            if not namespaces.private("uts"):
                raise SetupError(f'sysctl "{key}" not allowed in host UTS namespace')
        else:
            raise SetupError(f'sysctl "{key}" is not in a separate kernel namespace')


_IPC_SYSCTLS = frozenset(
    "kernel." + name
    for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
