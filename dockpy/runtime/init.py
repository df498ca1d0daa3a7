"""The container side of create and exec: from clone to execve, in the only safe order.

Runs in a single-threaded child that holds no locks and never returns. Nothing here may import,
log or open a file without O_CLOEXEC. Everything that can be decided beforehand was decided by the
caller.

  caller (shim)                       child (its worker: create.become)  sibling (exec, joined pid ns)
    | -- clone(new namespaces) -------> |
    | -- "maps written" (user ns) ----> |
    |                                   | join, hostname, lo, mounts, pivot
    | <-- console + pty master -------- |
    |                                   | user, nested user ns
    | <-- {"pid"} --------------------- | -- clone(CLONE_PARENT) ----------> |
    |                                   | exit                               | drop, filter
    | <-- {"exec"}  ------------------------------------------------------- | execve: the socket closes
    | <-- or {"stage","errno","message"}                                     |

The socket is a SEQPACKET pair: its closing without "exec" means that the child died of something
else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from dockpy.linux import interfaces
from dockpy.linux import namespaces as ln
from dockpy.linux.beneath import (
    make_directories,
    open_in_root,
    read_file,
)
from dockpy.runtime import attributes, console, groups, mounts, pid1, rootfs, users
from dockpy.runtime.confine import confine
from dockpy.runtime.conversation import MAPPED
from dockpy.runtime.errors import SetupError, strerror
from dockpy.runtime.line import continue_in_sibling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.oci.spec import Mount, Spec
    from dockpy.runtime.confine import Workload
    from dockpy.runtime.line import Line
    from dockpy.runtime.namespaces import Plan
    from dockpy.runtime.users import Identity


@dataclass(frozen=True)
class Container:
    """All that the line of create needs."""

    spec: Spec
    root_path: str
    root_mount: Mount | None
    mounts: tuple[Mount, ...]
    folders: tuple[str, ...]  # see oci.spec.ANNOTATION_FOLDERS
    namespaces: Plan
    workload: Workload


def create(
    line: Line, container: Container, joined: list[tuple[str, int]], folders: list[int]
) -> None:
    """The straight line of a new container. Its order:"""
    spec, workload, namespaces = container.spec, container.workload, container.namespaces
    process, linux = spec.process, spec.linux

    # The caller writes the maps of a new user namespace from outside; before that we are nobody
    # in it.
    if "user" in namespaces.fresh:
        line.stage = "user namespace"
        if os.read(line.sock, 16) != MAPPED:
            os._exit(1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)

    # /proc here is the host's, which the caller trusts. While we are dumpable: afterwards the
    # files of /proc/self belong to the initial namespace's root.
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # Before the namespaces that are joined, for the owner of one may have no right to the group.
    line.stage = "joining the control group"
    groups.join(folders)
    line.stage = "oom score"
    attributes.set_oom_score(process)
    if workload.pid1:
        pid1.name(process.args)

    # A user namespace to join owns what the others are made in, and a pid namespace is entered by a
    # child only: so a sibling goes on, first in its pid namespace if that is new.
    line.stage = "joining namespaces"
    if namespaces.joins("user"):
        ln.setns(joined.pop(0)[1])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        continue_in_sibling(line, namespaces.clone_flags)
    # A net namespace to share must be there before sysfs shows it. pid is joined for children only:
    # we stay outside, where nobody of that namespace can look at us while we are dumpable.
    for _, fd in joined:
        ln.setns(fd)
        os.close(fd)

    if namespaces.grouped and "cgroup" in namespaces.fresh:
        line.stage = "cgroup namespace"
        ln.unshare(ln.CLONE_NEWCGROUP)

    line.stage = "hostname"
    if "uts" in namespaces.fresh:
        if spec.hostname is not None:
            ln.sethostname(spec.hostname)
        if spec.domainname is not None:
            ln.setdomainname(spec.domainname)
    line.stage = "bringing up lo"
    if "network" in namespaces.fresh:
        interfaces.set_up("lo")
    # Through the host's /proc, where no mount of the image can stand in the way (CVE-2019-19921,
    # CVE-2025-52881); what it shows is ours, since it goes by the namespaces of who asks.
    line.stage = "sysctl"
    for key, value in linux.sysctl.items():
        attributes.set_sysctl(proc, key, value)

    root = build_tree(line, container, proc)
    line.stage = "pivot_root"
    rootfs.pivot(root)

    root = _reopen_root(root)
    identity = identify(line, workload, root)
    enter_folder(line, process.cwd, root)
    os.close(root)
    confine(line, workload, identity, proc, hop=namespaces.joins("pid"))


def build_tree(line: Line, container: Container, proc: int) -> int:
    """Everything that is mounted; the container's root as a descriptor, ready for the pivot."""
    spec, linux = container.spec, container.spec.linux
    may = rootfs.powers(spec, proc, container.namespaces)
    line.stage = "mount propagation"
    rootfs.stop_propagation()
    line.stage = "devices"
    fresh_dev = any(
        mount.destination.rstrip("/") == "/dev" and mount.type == "tmpfs"
        for mount in container.mounts
    )
    wanted, own = rootfs.with_own_nodes(container.mounts, may, fresh_dev)
    # A /dev that is the user's own bind is left as it is.
    devices = (rootfs.DEFAULT_DEVICES + linux.devices if fresh_dev else ()) + own
    devices = tuple({device.path: device for device in devices}.values())
    nodes = rootfs.prepare_nodes(devices, container.root_path) if may.nodev and devices else {}
    line.stage = "mounting the root"
    root = rootfs.mount_root(spec.root, container.root_path, container.root_mount, may.nodev)
    for mount in wanted:
        line.stage = f'error mounting "{mount.source}" to rootfs at "{mount.destination}"'
        mounts.mount_in_root(root, mount, may)
    line.stage = "devices"
    if devices:
        rootfs.fill_dev(root, devices, nodes, may)
    if fresh_dev:
        rootfs.link_dev(root)
    null = rootfs.open_null(root, nodes, may)
    if container.workload.terminal:
        # Before anything of the image runs, and from the devpts just mounted.
        line.stage = "console"
        master, slave = console.open_pty(root, proc, container.workload.size)
        rootfs.bind_console(root, slave)
        _adopt_console(line, master, slave)
    # Docker makes these and the working folder, also of a read-only container: so before it is sealed.
    for path in container.folders:
        make_folder(line, f'making the folder of volume "{path}"', path, root)
    make_folder(line, _chdir_stage(spec.process.cwd), spec.process.cwd, root)
    # Last, so that no mount above uncovers what these hide.
    for path in linux.readonly_paths:
        line.stage = f"read-only path {path}"
        mounts.make_readonly(root, path)
    for path in linux.masked_paths:
        line.stage = f"masked path {path}"
        mounts.mask(root, path, null)
    line.stage = "read-only root"
    if spec.root.readonly:
        rootfs.seal_root(root)
    return root


def execute(line: Line, workload: Workload, joined: list[tuple[str, int]]) -> None:
    """The straight line of exec: into a running container, and as confined as it."""
    # Held open: the map of a nested user namespace is written by the host's /proc.
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    line.stage = "oom score"
    attributes.set_oom_score(workload.process)
    # We stay outside the pid namespace (only our child will be in it), so that nobody inside can
    # look at this interpreter while it is dumpable (CVE-2019-5736); root and cwd come with the
    # mount namespace.
    line.stage = "joining the container's namespaces"
    for _, fd in joined:
        ln.setns(fd)
        os.close(fd)
    if any(kind == "user" for kind, _ in joined):
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if workload.terminal:
        line.stage = "console"
        master, slave = console.open_pty(root, proc, workload.size)
        _adopt_console(line, master, slave)
    identity = identify(line, workload, root)
    enter_folder(line, workload.process.cwd, root)
    os.close(root)
    confine(line, workload, identity, proc, hop=True)


# ---------------------------------------------------------------------------------- single steps


def _adopt_console(line: Line, master: int, slave: int) -> None:
    console.send_master(line.sock, master)
    os.close(master)
    for number in (0, 1, 2):
        os.dup2(slave, number)
    os.close(slave)


def _reopen_root(root: int) -> int:
    os.close(root)
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def identify(line: Line, workload: Workload, root: int) -> Identity:
    """Who runs, by the files of the image as they now lie there."""
    line.stage = "user"
    asked = workload.process.user
    passwd = _image_file(root, "/etc/passwd")
    if workload.user is None:
        groups = tuple(dict.fromkeys((asked.gid, *asked.additional_gids)))
        return users.Identity(asked.uid, asked.gid, groups, users.home_of(asked.uid, passwd))
    return users.resolve(workload.user, workload.groups, passwd, _image_file(root, "/etc/group"))


def _image_file(root: int, path: str) -> bytes:
    """b"" for one that is missing, not a file, or leads out of the container."""
    try:
        return read_file(root, path, users.FILE_LIMIT)
    except OSError:
        return b""


def _chdir_stage(path: str) -> str:
    return f'chdir to cwd ("{path}") set in config.json failed'


def make_folder(line: Line, stage: str, path: str, root: int) -> None:
    line.stage = stage
    try:
        os.close(make_directories(root, path))
    except OSError as error:
        raise SetupError(f"{line.stage}: {strerror(error)}") from None


def enter_folder(line: Line, path: str, root: int) -> None:
    """cwd, beneath the root and by no magic link: /proc/self/fd/N is not a folder
    (CVE-2024-21626).
    """
    line.stage = _chdir_stage(path)
    try:
        fd = open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
        try:
            os.fchdir(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise SetupError(f"{line.stage}: {strerror(error)}") from None
