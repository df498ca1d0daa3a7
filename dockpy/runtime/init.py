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

import _signal  # type: ignore[import-not-found]  # typeshed lacks it; signal is its slow wrapper
import fcntl
import os
import select
from dataclasses import dataclass

from dockpy.linux import credentials, interfaces, processes
from dockpy.linux import namespaces as ln
from dockpy.linux.beneath import (
    make_directories,
    open_in_root,
    read_file,
)
from dockpy.linux.terminals import set_controlling_terminal
from dockpy.runtime import attributes, console, executable, groups, mounts, pid1, rootfs, users
from dockpy.runtime.conversation import EXEC, MAPPED, PID
from dockpy.runtime.errors import SetupError, describe, sentence, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from dockpy.oci.spec import ConsoleSize, Mount, Process, Spec
    from dockpy.runtime.namespaces import Plan
    from dockpy.runtime.users import Identity


@dataclass(frozen=True)
class Workload:
    """Who runs what, and how confined: the end of both lines."""

    process: Process
    user: str | None  # "name|uid[:group]" to be looked up, None: the numbers of process.user
    groups: tuple[str, ...]
    single: bool  # only one id is mapped: another user needs a nested user namespace
    seccomp: bytes | None
    seccomp_flags: int
    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int
    keyring: str
    size: ConsoleSize | None
    terminal: bool  # a pty of ours, not the caller's stdio
    pid1: bool  # our own init in front of it


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


class Line:
    """Where we are, for the sentence when something fails; and the way to say it."""

    def __init__(self, sock: int) -> None:
        self.sock = sock
        self.stage = "starting"
        self.in_sibling = False  # pids are no answer: they are another namespace's there

    def send(self, message: bytes) -> None:
        os.write(self.sock, message)


class Continued(Exception):
    """A sibling goes on: this process has done its part."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


def in_child(
    sock: int, stdio: tuple[int, int, int] | None, keep: list[int], work: Callable[[Line], None]
) -> NoReturn:
    """Runs `work` in a fresh child; whatever happens, the caller's code is never reached again."""
    line = Line(sock)
    try:
        line.sock = _take_descriptors(sock, stdio, keep)
        _forget_signals()
        # Modes are given in full below; the workload gets its own umask at the end.
        os.umask(0)
        work(line)
    except Continued:
        os._exit(0)
    except BaseException as error:
        try:
            line.send(describe(line.stage, error))
        except OSError:
            pass
    finally:
        os._exit(1)


def in_caller(sock: int, stdio: tuple[int, int, int] | None, work: Callable[[Line], None]) -> int:
    """As in_child, in a caller that ends soon anyway: the sibling's pid, where the workload goes on.

    A child between the two would cost 1.5 ms: a fork, 410 pages copied because they are touched, an exit.
    """
    line = Line(sock)
    try:
        if stdio is not None:
            _put_stdio(stdio)
        _forget_signals()
        os.umask(0)
        work(line)
    except Continued as sibling:
        return sibling.pid
    except BaseException as error:
        if not line.in_sibling:
            raise SetupError(sentence(line.stage, error)) from None
        try:
            line.send(describe(line.stage, error))
        except OSError:
            pass
    finally:
        if line.in_sibling:
            os._exit(1)
    raise AssertionError("the line of exec ends in its sibling")


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


def confine(line: Line, workload: Workload, who: Identity, proc: int, *, hop: bool) -> NoReturn:
    """From root of the container to the workload: the common end of both lines. Its order:"""
    process = workload.process

    # While we still have the right to: stdio that the user may open again by name.
    line.stage = "stdio"
    nested = workload.single and (who.uid, who.gid) != (0, 0)
    for fd in (0, 1, 2):
        if not nested:  # there the id is ours under another name
            console.give_to(fd, who.uid)
    # The keys of who started us are not the container's. Best effort: many kernels and policies
    # have none.
    try:
        processes.join_session_keyring(workload.keyring)
    except OSError:
        pass

    if nested:
        # One id is mapped, so another user is that id under another name, in a namespace of its
        # own. Written by ourselves, so while dumpable; through the descriptor of the host's
        # /proc.
        line.stage = f"user namespace for uid {who.uid}"
        ln.unshare(ln.CLONE_NEWUSER)
        attributes.write_own_maps(proc, who)
    # The way to the host's whole tree: not in the hands of a process that somebody inside can see.
    os.close(proc)

    # From here on somebody may be in the same pid namespace: nobody attaches to us or reads
    # /proc/PID/exe of this interpreter. execve makes the workload dumpable again.
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    if hop:
        line.stage = "fork"
        continue_in_sibling(line, 0)
        _close_others([line.sock])
    # Not before: a limit of the workload's descriptors is none for the descriptors of who makes it.
    line.stage = "error setting rlimits"
    attributes.set_rlimits(process.rlimits)
    line.stage = "session"
    os.setsid()
    if workload.terminal:
        set_controlling_terminal(0)

    # Needs CAP_SETPCAP, so before the capabilities go.
    line.stage = "capabilities"
    held = credentials.capget()[1]
    credentials.drop_bounding(workload.bounding)
    if not nested:
        # Keeps what is permitted over the change of ids: the next lines still need some of it.
        processes.prctl(processes.PR_SET_KEEPCAPS, 1)
        line.stage = f"setting user {who.uid}:{who.gid}"
        attributes.set_groups(who, credentials.capget()[0])
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
        # At once, for the change of ids made us what fs.suid_dumpable says, and the user's other
        # processes in the container could trace us while we hold all this.
        processes.prctl(processes.PR_SET_DUMPABLE, 0)
        processes.prctl(processes.PR_SET_KEEPCAPS, 0)
        if who.uid != 0:
            credentials.capset(held, held, 0)
    os.umask(0o022 if process.user.umask is None else process.user.umask)
    line.stage = "no new privileges"
    if process.no_new_privileges:
        processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
    # Only 0, 1, 2 survive; before the filter, which may not know close_range.
    processes.close_range(3, flags=processes.CLOSE_RANGE_CLOEXEC)

    # Without no_new_privs the kernel takes a filter from CAP_SYS_ADMIN only, so before that goes;
    # with it the filter goes in last, and need not allow what we do here.
    line.stage = "seccomp"
    if not process.no_new_privileges:
        install_filter(workload)
    line.stage = "capabilities"
    if nested and who.uid != 0:
        credentials.capset(0, 0, 0)
        credentials.set_ambient(0)
    else:
        credentials.capset(
            workload.effective & held, workload.permitted & held, workload.inheritable & held
        )
        credentials.set_ambient(workload.ambient & held & workload.inheritable)
    # After the last change of credentials, which clears it; asked again, since who dies in between
    # leaves no signal. Nobody reads the other end any more: then the caller is gone.
    line.stage = "parent death signal"
    processes.prctl(processes.PR_SET_PDEATHSIG, _signal.SIGKILL)
    if _hung_up(line.sock):
        os._exit(1)
    line.stage = "seccomp"
    if process.no_new_privileges:
        install_filter(workload)

    line.stage = "exec"
    env = attributes.environment(process.env, who.home)
    path = executable.find(process.args[0], env.get("PATH"))
    if workload.pid1:
        pid1.supervise(lambda: run(line, process, path, env), process.args)
    run(line, process, path, env)


def run(line: Line, process: Process, path: str, env: dict[str, str]) -> NoReturn:
    """execve, or the report why not: below our own init nobody else would say it."""
    try:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        line.send(EXEC)
        os.execve(path, list(process.args), env)
    except (OSError, ValueError) as error:
        # ValueError: a NUL, which no argument or variable of a program can have.
        reason = strerror(error) if isinstance(error, OSError) else "invalid argument"
        line.send(describe(line.stage, SetupError(f"exec {path}: {reason}")))
    finally:
        os._exit(1)


# ---------------------------------------------------------------------------------- single steps


def continue_in_sibling(line: Line, flags: int) -> None:
    """Returns in another child of our parent, which learns its pid; this process has done its part."""
    pid, _ = processes.clone(processes.CLONE_PARENT | flags)
    if pid:
        line.send(b"%b%d}" % (PID, pid))
        raise Continued(pid)
    line.in_sibling = True


def _take_descriptors(sock: int, stdio: tuple[int, int, int] | None, keep: list[int]) -> int:
    """0, 1, 2 become the workload's; of the caller's others only the socket and `keep` stay open."""
    sock = _above_stdio(sock)
    if stdio is not None:
        _put_stdio(stdio)
    _close_others([sock, *keep])
    return sock


def _put_stdio(stdio: tuple[int, int, int]) -> None:
    for number, fd in enumerate([_above_stdio(fd) for fd in stdio]):
        os.dup2(fd, number)


def _close_others(keep: list[int]) -> None:
    first = 3
    for fd in sorted(keep):
        processes.close_range(first, fd - 1)
        first = fd + 1
    processes.close_range(first)


def _above_stdio(fd: int) -> int:
    if fd > 2:
        return fd
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _forget_signals() -> None:
    """No handler of the caller's runs here; what Python ignores (SIGPIPE) is not left ignored."""
    # The C module: signal's own functions turn each number into an enum and back, 0.2 ms in all.
    _signal.set_wakeup_fd(-1)
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            _signal.signal(number, _signal.SIG_DFL)


def _adopt_console(line: Line, master: int, slave: int) -> None:
    console.send_master(line.sock, master)
    os.close(master)
    for number in (0, 1, 2):
        os.dup2(slave, number)
    os.close(slave)


def _reopen_root(root: int) -> int:
    os.close(root)
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _hung_up(sock: int) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


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


def install_filter(workload: Workload) -> None:
    if workload.seccomp is not None:
        credentials.seccomp(
            credentials.SECCOMP_SET_MODE_FILTER, workload.seccomp_flags, workload.seccomp
        )
