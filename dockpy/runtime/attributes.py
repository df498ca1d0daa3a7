"""What a container's process is given one call each: limits, groups, maps, scores, settings, environment."""

from __future__ import annotations

import errno
import os
import resource

from dockpy.linux.beneath import open_in_root
from dockpy.runtime.errors import SetupError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.oci.spec import Process, Rlimit
    from dockpy.runtime.users import Identity

CAP_SETGID = 1 << 6
RLIMITS = {
    name: getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
RLIMITS["RLIMIT_LOCKS"] = 10  # Python's module has no name for it


def set_oom_score(process: Process) -> None:
    if process.oom_score_adj is None:
        return
    try:
        write_file("/proc/self/oom_score_adj", b"%d" % process.oom_score_adj)
    except PermissionError:
        # Below what we have needs CAP_SYS_RESOURCE on the host; docker's rootless mode goes on as
        # well.
        pass


def set_sysctl(proc: int, key: str, value: str) -> None:
    name = "sys/" + key.translate({ord("."): "/", ord("/"): "."})
    try:
        fd = open_in_root(proc, name, os.O_WRONLY, no_symlinks=True)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise SetupError(f"open sysctl {key} file: {strerror(error)}") from None


def set_rlimits(rlimits: tuple[Rlimit, ...]) -> None:
    for limit in rlimits:
        number = RLIMITS.get(limit.type)
        if number is None:
            raise SetupError(f"unknown rlimit {limit.type}")
        wanted = (_rlimit(limit.soft), _rlimit(limit.hard))
        if wanted == resource.getrlimit(number):
            continue
        try:
            resource.setrlimit(number, wanted)
        except (OSError, ValueError) as error:
            # EPERM comes as ValueError. Raising a hard limit is the host administrator's right.
            reason = "operation not permitted"
            if isinstance(error, OSError) and error.errno != errno.EPERM:
                reason = strerror(error)
            have = resource.getrlimit(number)[1]
            raise SetupError(
                f"error setting rlimit {limit.type} to {limit.soft}:{limit.hard}: {reason} "
                f"(the hard limit here is {'unlimited' if have < 0 else have})"
            ) from None


def _rlimit(value: int) -> int:
    """RLIM_INFINITY is 2^64-1 in JSON and -1 here."""
    return -1 if value < 0 or value >= (1 << 63) - 1 else value


def set_groups(who: Identity, effective: int) -> None:
    """The supplementary groups; none can be had where the user namespace denies setgroups."""
    try:
        os.setgroups(who.groups)
    except PermissionError:
        # With CAP_SETGID it means "denied for good": one id is mapped (user_namespaces(7)).
        if not effective & CAP_SETGID:
            raise


def write_own_maps(proc: int, who: Identity) -> None:
    for name, text in (
        ("setgroups", b"deny"),
        ("uid_map", b"%d 0 1" % who.uid),
        ("gid_map", b"%d 0 1" % who.gid),
    ):
        fd = os.open(f"self/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)


def environment(entries: tuple[str, ...], home: str) -> dict[str, str]:
    env = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals and name:
            env[name] = value
    if not env.get("HOME"):
        env["HOME"] = home
    return env


def write_file(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
