"""From root of the container to the workload: the common end of both lines of runtime.init.

All that is given up here is given up for good, and each step needs something that a later one takes
away: so their order is the security of the whole, and `confine` is the only place that says it. Its
steps are called nowhere else.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed lacks it; signal is its slow wrapper
import os
import select
from dataclasses import dataclass

from dockpy.linux import credentials, processes
from dockpy.linux import namespaces as ln
from dockpy.linux.terminals import set_controlling_terminal
from dockpy.runtime import attributes, console, executable, pid1
from dockpy.runtime.conversation import EXEC
from dockpy.runtime.errors import SetupError, describe, strerror
from dockpy.runtime.line import close_others, continue_in_sibling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from dockpy.oci.spec import ConsoleSize, Process
    from dockpy.runtime.line import Line
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


def confine(line: Line, workload: Workload, who: Identity, proc: int, *, hop: bool) -> NoReturn:
    """`proc` is the host's /proc; `hop`: into the pid namespace that was joined, where only a child is.

    Its order:
    """
    process = workload.process
    nested = workload.single and (who.uid, who.gid) != (0, 0)

    # While we still have the right to: stdio that the user may open again by name.
    line.stage = "stdio"
    if not nested:  # there the id is ours under another name
        for fd in (0, 1, 2):
            console.give_to(fd, who.uid)
    leave_keys(workload.keyring)

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
        close_others([line.sock])
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
        line.stage = f"setting user {who.uid}:{who.gid}"
        change_ids(who, held)
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
    drop_capabilities(workload, 0 if nested and who.uid != 0 else held)
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


# ---------------------------------------------------------------------------------- single steps


def leave_keys(keyring: str) -> None:
    """The keys of who started us are not the container's."""
    try:
        processes.join_session_keyring(keyring)
    except OSError:  # best effort: many kernels and policies have none
        pass


def change_ids(who: Identity, held: int) -> None:
    """All that is permitted (`held`) is kept, and effective: what follows still needs some of it."""
    processes.prctl(processes.PR_SET_KEEPCAPS, 1)
    attributes.set_groups(who, credentials.capget()[0])
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)
    # At once, for the change of ids made us what fs.suid_dumpable says, and the user's other
    # processes in the container could trace us while we hold all this.
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    processes.prctl(processes.PR_SET_KEEPCAPS, 0)
    if who.uid != 0:
        credentials.capset(held, held, 0)


def drop_capabilities(workload: Workload, held: int) -> None:
    """All but the workload's, and of those only what is `held`."""
    credentials.capset(
        workload.effective & held, workload.permitted & held, workload.inheritable & held
    )
    credentials.set_ambient(workload.ambient & held & workload.inheritable)


def install_filter(workload: Workload) -> None:
    if workload.seccomp is not None:
        credentials.seccomp(
            credentials.SECCOMP_SET_MODE_FILTER, workload.seccomp_flags, workload.seccomp
        )


def _hung_up(sock: int) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


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
