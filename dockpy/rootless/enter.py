"""Into the user's namespaces: new ones by the best tier that works here, or a living process's.

Tiers, by trying and not by asking: `root` (we are, a mount namespace is enough), `subuid` (newuidmap
lends a range), `single` (one id, always works where user namespaces do). A user namespace whose
maps could not be written is of no use, and cannot be left: so a child tries the range first.
"""

from __future__ import annotations

import errno
import os
import pwd

from dockpy import ids
from dockpy.errors import Unavailable
from dockpy.linux.mounts import MS_REC, MS_SLAVE, mount
from dockpy.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns, unshare
from dockpy.rootless import subids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TIERS = ("root", "subuid", "single")


def enter(tier: str | None = None) -> str:
    """Makes and enters the namespaces; returns the tier. `tier` forces one (it must work then)."""
    uid, gid = os.geteuid(), os.getegid()
    if tier not in (None, *TIERS):
        raise Unavailable(f"there is no tier {tier!r}; there are {', '.join(TIERS)}")
    if tier == "root" or (tier is None and uid == 0 and ids.mapped_ids() > 1):
        try:
            unshare(CLONE_NEWNS)
            _slave()
            return "root"
        except PermissionError:
            if tier is not None:
                raise Unavailable(
                    f"the root tier needs CAP_SYS_ADMIN, which uid {uid} lacks here"
                ) from None
    maps = None if tier == "single" else _range_maps(uid, gid)
    if maps is not None and _with_helpers(maps):
        _slave()
        return "subuid"
    if tier == "subuid":
        raise Unavailable(
            "the subuid tier needs newuidmap, newgidmap and ranges in /etc/subuid and /etc/subgid"
        )
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
    except OSError as error:
        raise forbidden(error) from None
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
        _slave()
    except PermissionError as error:
        # Ubuntu lets the namespace be made, and takes the capabilities away in it.
        raise forbidden(error) from None
    return "single"


def join(pid: int, tier: str) -> None:
    """Enters the namespaces of a living process of ours (a shim), when keeper and daemon are both
    dead.
    """
    names = ("mnt",) if tier == "root" else ("user", "mnt")
    fds = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]
    try:
        for fd in fds:
            setns(fd)
    finally:
        for fd in fds:
            os.close(fd)


def tier_of(pid: int) -> str:
    """The tier in whose namespaces a process of ours lives, where no record tells."""
    if os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user"):
        return "root"
    with open(f"/proc/{pid}/uid_map", "rb") as file:
        return "single" if sum(int(line.split()[2]) for line in file) == 1 else "subuid"


def _slave() -> None:
    """Not private: a mount that the host makes later (an autofs home) must still show here."""
    mount(None, "/", None, MS_REC | MS_SLAVE)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def _range_maps(uid: int, gid: int) -> tuple[list[str], list[str]] | None:
    """The command lines of newuidmap and newgidmap after the pid's place; None when something
    lacks.
    """
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    uids = subids.ranges_of("/etc/subuid", name, uid)
    gids = subids.ranges_of("/etc/subgid", name, uid)
    newuidmap, newgidmap = subids.program("newuidmap"), subids.program("newgidmap")
    if not (uids and gids and newuidmap and newgidmap):
        return None
    return [newuidmap, *subids.mapping(uid, uids)], [newgidmap, *subids.mapping(gid, gids)]


def _with_helpers(maps: tuple[list[str], list[str]]) -> bool:
    """Whether this process is now in a namespace with the ranges; it is in none when not.

    The programs must be run by somebody outside: first for a child that only waits (the try), then
    by a child for us.
    """
    ready, tell = os.pipe()
    end, hold = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(hold)
            unshare(CLONE_NEWUSER)
            os.write(tell, b"1")
            os.read(end, 1)
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    os.close(end)
    works = bool(os.read(ready, 1)) and all(_map(child, line) for line in maps)
    os.close(ready)
    os.close(hold)
    os.waitpid(child, 0)
    return works and _map_self(maps)


def _map_self(maps: tuple[list[str], list[str]]) -> bool:
    go, tell = os.pipe()
    me = os.getpid()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(tell)
            if os.read(go, 1):
                status = 0 if all(_map(me, line) for line in maps) else 1
        finally:
            os._exit(status)
    os.close(go)
    try:
        unshare(CLONE_NEWUSER)
        os.write(tell, b"1")
    finally:
        os.close(tell)
        _, status = os.waitpid(child, 0)
    if status != 0:
        raise Unavailable("newuidmap worked for a trial and then failed; try again")
    unshare(CLONE_NEWNS)
    return True


def _map(pid: int, line: Sequence[str]) -> bool:
    program, *ranges = line
    child = os.posix_spawn(
        program,
        [program, str(pid), *ranges],
        {},
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)],
    )
    return os.waitpid(child, 0)[1] == 0


def forbidden(error: OSError) -> Unavailable:
    """Why there is no user namespace here and what to do, in one sentence."""
    if _number("/proc/sys/kernel/unprivileged_userns_clone") == 0:
        return Unavailable(
            "user namespaces are switched off for ordinary users here; an administrator can allow them with "
            "'sysctl -w kernel.unprivileged_userns_clone=1'"
        )
    if _number("/proc/sys/user/max_user_namespaces") == 0:
        return Unavailable(
            "user namespaces are switched off here; an administrator can allow them with "
            "'sysctl -w user.max_user_namespaces=15000'"
        )
    if _number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1:
        return Unavailable(
            "AppArmor forbids user namespaces to unconfined programs here (Ubuntu 23.10 and later); an "
            "administrator can allow them with 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0' "
            "or an AppArmor profile with 'userns,' for this Python"
        )
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return Unavailable(
            "the limit of user namespaces is reached (user.max_user_namespaces, or 32 levels deep); "
            "stop other containers or let an administrator raise it"
        )
    if error.errno in (errno.ENOSYS, errno.EINVAL):
        return Unavailable(
            "this kernel has no user namespaces (CONFIG_USER_NS); another kernel is needed"
        )
    if error.errno == errno.EPERM and os.path.exists("/.dockerenv"):
        return Unavailable(
            "the container dockpy runs in forbids user namespaces; start that one with "
            "'--security-opt seccomp=unconfined' or a policy that allows unshare, clone and mount"
        )
    return Unavailable(
        f"this host does not let us make a user namespace ({os.strerror(error.errno or errno.EPERM)}); "
        "a sandbox, chroot or security policy around this process is the likely reason"
    )


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
