"""From a specification to a running init: everything that can be decided is decided here, then
one clone.

New namespaces are made by the clone itself, so init is our own child and first in its pid
namespace; joined ones it joins itself. Only a joined pid (or user) namespace costs a second clone
(runtime.init). Or none at all: a caller that is spent, and is the first of its pid namespace already,
becomes the init itself.
"""

from __future__ import annotations

import _socket
import errno
import os

from dockpy.errors import DockpyError
from dockpy.linux import processes
from dockpy.linux.namespaces import CLONE_NEWUSER, unshare
from dockpy.oci import capabilities
from dockpy.oci import spec as oci
from dockpy.runtime import attributes, bpf, groups, init, namespaces
from dockpy.runtime.confine import Workload
from dockpy.runtime.conversation import MAPPED, Created, Stdio, converse
from dockpy.runtime.errors import CREATE, SetupError, start_failed, strerror
from dockpy.runtime.line import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

    from dockpy.runtime.line import Line

__all__ = ["Created", "Stdio", "become", "create"]


def create(
    spec: oci.Spec,
    bundle: str,
    stdio: Stdio | None,
    *,
    console_size: tuple[int, int] | None = None,
    seccomp_cache: str | None = None,
    sibling: bool = False,
) -> Created:
    """Starts the container of `bundle`; returns when its program was executed.

    `stdio` None with `process.terminal`: a pty of the container, whose master is answered as
    `console`; `console_size` (height, width) wins over the specification's. Descriptors stay the
    caller's. All others of the caller are closed in the child. Raises StartFailed; then nothing
    of it is left.

    With `sibling` the container's parent (whose death ends it, who reaps it and what fails) is the
    caller's parent: a process that lives on can have this work done by one that does not.
    """
    try:
        container = plan(spec, bundle, stdio, console_size, seccomp_cache)
        joined = namespaces.open_joined(container.namespaces)
        folders = _open_groups(spec.linux.cgroups_path)
    except (DockpyError, SetupError) as error:
        raise start_failed(CREATE, str(error)) from None
    kinds = container.namespaces
    # A user namespace to join must be entered before the others are made in it.
    flags = 0 if kinds.joins("user") else kinds.clone_flags
    ours, theirs = _socket.socketpair(
        _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    )
    try:
        try:
            pid, pidfd = groups.clone(flags | (processes.CLONE_PARENT if sibling else 0), folders)
        except OSError as error:
            raise start_failed(CREATE, f"clone: {os.strerror(error.errno or 0).lower()}") from None
        if pid == 0:
            in_child(
                theirs.fileno(),
                None if stdio is None else (stdio.stdin, stdio.stdout, stdio.stderr),
                [*(fd for _, fd in joined), *folders],
                lambda line: init.create(line, container, joined, folders),
            )
        theirs.close()
        if flags & CLONE_NEWUSER:
            try:
                _write_maps(pid, spec.linux)
                ours.send(MAPPED)
            except OSError:
                # The child, unmapped, sees the end of the line and exits; converse tells that it
                # did.
                ours.shutdown(_socket.SHUT_WR)
        return converse(ours, pid, pidfd, CREATE, sibling=sibling)
    finally:
        ours.close()
        theirs.close()
        for fd in (*(fd for _, fd in joined), *folders):
            os.close(fd)


def become(
    spec: oci.Spec,
    bundle: str,
    stdio: Stdio | None,
    line: int,
    folders: list[int],
    *,
    made: int,
    console_size: tuple[int, int] | None = None,
    seccomp_cache: str | None = None,
) -> NoReturn:
    """As create, in a process that was cloned for it, by whoever converses at the other end of `line`: it is
    the container's first process from here on, or ends.

    `made`: what it was cloned with, CLONE_NEWPID and others of the specification's. `folders`: its control
    groups to join (groups.clone). For a specification that has no user namespace of its own to make or to
    join. StartFailed before anything was done.
    """
    try:
        container = plan(spec, bundle, stdio, console_size, seccomp_cache)
        kinds = container.namespaces
        if made & ~kinds.clone_flags or "pid" not in kinds.fresh or kinds.private("user"):
            raise SetupError("the process was made for a container with other namespaces")
        joined = namespaces.open_joined(kinds)
    except (DockpyError, SetupError) as error:
        raise start_failed(CREATE, str(error)) from None

    def work(line: Line) -> None:
        line.stage = "unshare"
        unshare(kinds.clone_flags & ~made)
        init.create(line, container, joined, folders)

    fds = None if stdio is None else (stdio.stdin, stdio.stdout, stdio.stderr)
    in_child(line, fds, [*(fd for _, fd in joined), *folders], work)


def _open_groups(path: str | None) -> list[int]:
    try:
        return groups.open_groups(path)
    except OSError as error:
        raise SetupError(f"the control group {path} is not there: {strerror(error)}") from None


def plan(
    spec: oci.Spec,
    bundle: str,
    stdio: Stdio | None,
    console_size: tuple[int, int] | None,
    seccomp_cache: str | None,
) -> init.Container:
    kinds = namespaces.plan(spec.linux)
    namespaces.check_sysctls(spec.linux.sysctl, kinds)
    roots = [mount for mount in spec.mounts if mount.destination == "/"]
    return init.Container(
        spec=spec,
        root_path=os.path.join(os.path.abspath(bundle), spec.root.path),
        root_mount=roots[0] if roots else None,
        mounts=tuple(mount for mount in spec.mounts if mount.destination != "/"),
        folders=tuple(filter(None, spec.annotations.get(oci.ANNOTATION_FOLDERS, "").split("\0"))),
        namespaces=kinds,
        workload=workload(
            spec,
            spec.process,
            terminal=stdio is None and spec.process.terminal,
            console_size=console_size,
            seccomp_cache=seccomp_cache,
            pid1=spec.annotations.get(oci.ANNOTATION_INIT) == "true",
        ),
    )


def workload(
    spec: oci.Spec,
    process: oci.Process,
    *,
    terminal: bool,
    console_size: tuple[int, int] | None,
    seccomp_cache: str | None,
    pid1: bool = False,
) -> Workload:
    seccomp = spec.linux.seccomp
    program = None
    if seccomp is not None:
        program = (
            bpf.program(seccomp)
            if seccomp_cache is None
            else bpf.cached_program(seccomp, seccomp_cache)
        )
    caps = process.capabilities or oci.Capabilities()
    size = process.console_size if console_size is None else oci.ConsoleSize(*console_size)
    return Workload(
        process=process,
        user=_user(process, spec.annotations),
        groups=tuple(filter(None, spec.annotations.get(oci.ANNOTATION_GROUPS, "").split(","))),
        single=spec.annotations.get(oci.ANNOTATION_TIER) == "single",
        seccomp=program,
        seccomp_flags=0 if seccomp is None else bpf.flags(seccomp),
        bounding=_mask(caps.bounding),
        effective=_mask(caps.effective),
        permitted=_mask(caps.permitted),
        inheritable=_mask(caps.inheritable),
        ambient=_mask(caps.ambient),
        keyring="_ses." + (spec.hostname or "dockpy"),
        size=size,
        terminal=terminal,
        pid1=pid1,
    )


def _user(process: oci.Process, annotations: Mapping[str, str]) -> str | None:
    """`process.user.username`, else the annotation, else (None) the numbers of process.user.

    A container of docker's kind (it has a tier) that names nobody is "": root, with the groups that
    the image gives to root.
    """
    if process.user.username is not None:
        return process.user.username
    nobody = "" if oci.ANNOTATION_TIER in annotations and process.user == oci.User() else None
    return annotations.get(oci.ANNOTATION_USER, nobody)


def _mask(names: Iterable[str]) -> int:
    """Names that this build does not know are left out, as runc does: they cannot be granted."""
    mask = 0
    for name in names:
        number = capabilities.NUMBERS.get(name)
        if number is not None:
            mask |= 1 << number
    return mask


def _write_maps(pid: int, linux: oci.Linux) -> None:
    """The maps of a new user namespace, from its parent; without any: ourselves as root, alone."""
    uids = linux.uid_mappings or (oci.IDMapping(0, os.geteuid(), 1),)
    gids = linux.gid_mappings or (oci.IDMapping(0, os.getegid(), 1),)
    _write_map(f"/proc/{pid}/uid_map", uids)
    try:
        _write_map(f"/proc/{pid}/gid_map", gids)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        # Without CAP_SETGID outside, groups must be given up first (user_namespaces(7)).
        attributes.write_file(f"/proc/{pid}/setgroups", b"deny")
        _write_map(f"/proc/{pid}/gid_map", gids)


def _write_map(path: str, mappings: tuple[oci.IDMapping, ...]) -> None:
    lines = [f"{entry.container_id} {entry.host_id} {entry.size}\n" for entry in mappings]
    attributes.write_file(path, "".join(lines).encode())
