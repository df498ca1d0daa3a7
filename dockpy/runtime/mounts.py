"""One `Mount` of the specification, made inside the container's root before the pivot.

Targets are never paths: each is opened beneath the root (linux.beneath), so no symlink of the image,
also one exchanged while we work (CVE-2021-30465), leads out of it; mounts go onto /proc/self/fd/N
of the *host's* /proc, which the container cannot touch, or by move_mount onto the descriptor
itself. Flags of a bind are set on a detached copy (open_tree, mount_setattr), before anybody can
see it; kernels that lack those calls get mount(2) and a remount.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace

from dockpy.files import read_bytes
from dockpy.linux import mounts as lm
from dockpy.linux.beneath import create_file, make_directories, open_in_root
from dockpy.linux.libc import AT_EMPTY_PATH, AT_RECURSIVE
from dockpy.linux.processes import PR_SET_DUMPABLE, clone, prctl
from dockpy.runtime.errors import SetupError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.oci.spec import Mount

# name -> (flag, clears it)
_FLAGS = {
    "ro": (lm.MS_RDONLY, False),
    "rw": (lm.MS_RDONLY, True),
    "nosuid": (lm.MS_NOSUID, False),
    "suid": (lm.MS_NOSUID, True),
    "nodev": (lm.MS_NODEV, False),
    "dev": (lm.MS_NODEV, True),
    "noexec": (lm.MS_NOEXEC, False),
    "exec": (lm.MS_NOEXEC, True),
    "sync": (lm.MS_SYNCHRONOUS, False),
    "async": (lm.MS_SYNCHRONOUS, True),
    "dirsync": (lm.MS_DIRSYNC, False),
    "mand": (lm.MS_MANDLOCK, False),
    "nomand": (lm.MS_MANDLOCK, True),
    "noatime": (lm.MS_NOATIME, False),
    "atime": (lm.MS_NOATIME, True),
    "nodiratime": (lm.MS_NODIRATIME, False),
    "diratime": (lm.MS_NODIRATIME, True),
    "relatime": (lm.MS_RELATIME, False),
    "norelatime": (lm.MS_RELATIME, True),
    "strictatime": (lm.MS_STRICTATIME, False),
    "nostrictatime": (lm.MS_STRICTATIME, True),
    "lazytime": (lm.MS_LAZYTIME, False),
    "bind": (lm.MS_BIND, False),
    "rbind": (lm.MS_BIND | lm.MS_REC, False),
}
# The recursive ones of the specification, as far as a container needs them.
_RECURSIVE = {
    "rro": lm.MS_RDONLY,
    "rnosuid": lm.MS_NOSUID,
    "rnodev": lm.MS_NODEV,
    "rnoexec": lm.MS_NOEXEC,
}
_PROPAGATION = {
    "private": lm.MS_PRIVATE,
    "rprivate": lm.MS_PRIVATE | lm.MS_REC,
    "slave": lm.MS_SLAVE,
    "rslave": lm.MS_SLAVE | lm.MS_REC,
    "shared": lm.MS_SHARED,
    "rshared": lm.MS_SHARED | lm.MS_REC,
    "unbindable": lm.MS_UNBINDABLE,
    "runbindable": lm.MS_UNBINDABLE | lm.MS_REC,
}
# Words that are for other layers (docker, podman, fstab) and never reach the kernel.
_IGNORED = frozenset(
    ("defaults", "copy", "nocopy", "z", "Z", "tmpcopyup", "notmpcopyup", "remount", "U")
)
_SETTABLE = lm.MS_RDONLY | lm.MS_NOSUID | lm.MS_NODEV | lm.MS_NOEXEC
_ATTR = {
    lm.MS_RDONLY: lm.MOUNT_ATTR_RDONLY,
    lm.MS_NOSUID: lm.MOUNT_ATTR_NOSUID,
    lm.MS_NODEV: lm.MOUNT_ATTR_NODEV,
    lm.MS_NOEXEC: lm.MOUNT_ATTR_NOEXEC,
    lm.MS_NODIRATIME: lm.MOUNT_ATTR_NODIRATIME,
}
# The statvfs bits of flags that a remount in a user namespace must repeat, since they are locked.
LOCKED = (
    (os.ST_RDONLY, lm.MS_RDONLY),
    (os.ST_NOSUID, lm.MS_NOSUID),
    (os.ST_NODEV, lm.MS_NODEV),
    (os.ST_NOEXEC, lm.MS_NOEXEC),
    (os.ST_NOATIME, lm.MS_NOATIME),
    (os.ST_NODIRATIME, lm.MS_NODIRATIME),
    (os.ST_RELATIME, lm.MS_RELATIME),
)
# Where a fresh mount is refused in a user namespace because the namespace it shows is the host's.
_BINDABLE = {"proc": "/proc", "sysfs": "/sys", "mqueue": "/dev/mqueue"}
_NOT_HERE = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODEV, errno.EBUSY, errno.ENOSYS)


@dataclass(frozen=True)
class Powers:
    """What the kernel lets us do, and what the container must not be able to.

    `initial`: we are in the initial user namespace, so mknod makes working nodes. There is no
    device controller here, so then every mount of the container is nodev but for single nodes
    bound from a tmpfs that the container cannot reach (`nodev`). A container that has
    CAP_SYS_ADMIN could undo that by a remount, so for it we do not pretend.
    """

    initial: bool
    nodev: bool
    tty_group: bool  # group 5 is mapped, so that a devpts can give its terminals to it
    host_pid: bool  # the container is in our pid namespace
    joins_pid: bool  # it shares another's, in which only our children are
    trees: tuple[
        str, ...
    ] = ()  # of control groups of version 1, where it has its own groups in them


@dataclass(frozen=True)
class Options:
    flags: int
    cleared: int
    recursive: int
    propagation: tuple[int, ...]
    data: tuple[str, ...]


def parse_options(options: tuple[str, ...]) -> Options:
    flags = cleared = recursive = 0
    propagation: list[int] = []
    data: list[str] = []
    for option in options:
        if option in _FLAGS:
            bits, clears = _FLAGS[option]
            flags, cleared = (flags & ~bits, cleared | bits) if clears else (flags | bits, cleared)
        elif option in _RECURSIVE:
            recursive |= _RECURSIVE[option]
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        elif option not in _IGNORED:
            data.append(option)
    return Options(flags, cleared, recursive, tuple(propagation), tuple(data))


def mount_in_root(root: int, mount: Mount, may: Powers) -> None:
    """Makes `mount` beneath the container's root `root`."""
    options = parse_options(mount.options)
    if mount.type == "devpts" and not may.tty_group:
        # Where one id is mapped the kernel says EINVAL: the terminals keep our group then.
        data = tuple(word for word in options.data if not word.startswith("gid="))
        options = replace(options, data=data)
    if may.nodev and not options.cleared & lm.MS_NODEV:
        # For what lies on a bind's submounts too. "dev" in the options is somebody's decision.
        options = replace(
            options, flags=options.flags | lm.MS_NODEV, recursive=options.recursive | lm.MS_NODEV
        )
    if options.flags & lm.MS_BIND or mount.type == "bind":
        _bind(root, mount, options)
    elif mount.type in ("proc", "sysfs"):
        _pseudo(root, mount, options, may)
    elif mount.type in ("cgroup", "cgroup2"):
        _cgroup(root, mount, options, may.trees)
    else:
        _filesystem(root, mount, options, may)


# ------------------------------------------------------------------------------------------ binds


def _bind(root: int, mount: Mount, options: Options) -> None:
    try:
        source = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise SetupError(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        ) from None
    try:
        folder = stat.S_ISDIR(os.fstat(source).st_mode)
        target = _target(root, mount.destination, folder, mount.source)
        try:
            bind(source, target, options, recursive=bool(options.flags & lm.MS_REC))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _target(root: int, destination: str, folder: bool, source: str) -> int:
    """Where a bind goes: made when missing, a folder for a folder and a file for a file."""
    try:
        target = make_directories(root, destination) if folder else create_file(root, destination)
    except NotADirectoryError:
        target = -1
    if target < 0 or stat.S_ISDIR(os.fstat(target).st_mode) != folder:
        if target >= 0:
            os.close(target)
        raise SetupError(
            f'error mounting "{source}" to rootfs at "{destination}": not a directory: Are you trying '
            "to mount a directory onto a file (or vice-versa)? Check if the specified host path "
            "exists and is the expected type"
        )
    return target


def bind(source: int, target: int, options: Options, *, recursive: bool) -> None:
    """Binds what descriptor `source` is onto what descriptor `target` is."""
    depth = AT_RECURSIVE if recursive else 0
    try:
        tree = lm.open_tree(source, "", lm.OPEN_TREE_CLONE | AT_EMPTY_PATH | depth)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _bind_by_mount(source, target, options, recursive)
        return
    try:
        set_attributes(tree, options)
        lm.move_mount(tree, target)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _bind_by_mount(source, target, options, recursive)
    finally:
        os.close(tree)


def set_attributes(tree: int, options: Options) -> None:
    """What the options ask of the detached or attached mount `tree`; only ever takes rights away."""
    attributes = 0
    for flag, attribute in _ATTR.items():
        if options.flags & flag:
            attributes |= attribute
    clear = 0
    if options.flags & lm.MS_NOATIME:
        attributes, clear = attributes | lm.MOUNT_ATTR_NOATIME, lm.MOUNT_ATTR__ATIME
    elif options.flags & lm.MS_STRICTATIME:
        attributes, clear = attributes | lm.MOUNT_ATTR_STRICTATIME, lm.MOUNT_ATTR__ATIME
    if attributes:
        lm.mount_setattr(tree, attributes, clear)
    deep = 0
    for flag, attribute in _ATTR.items():
        if options.recursive & flag:
            deep |= attribute
    if deep:
        lm.mount_setattr(tree, deep, flags=AT_RECURSIVE)
    for propagation in options.propagation:
        depth = AT_RECURSIVE if propagation & lm.MS_REC else 0
        lm.mount_setattr(tree, 0, propagation=propagation & ~lm.MS_REC, flags=depth)


def _bind_by_mount(source: int, target: int, options: Options, recursive: bool) -> None:
    """For kernels before 5.12. The target is opened again, to see the new mount: it must be the
    source.
    """
    flags = lm.MS_BIND | (lm.MS_REC if recursive else 0)
    place = f"/proc/self/fd/{target}"
    path = os.readlink(place)
    lm.mount(f"/proc/self/fd/{source}", place, None, flags)
    wanted = os.fstat(source)
    mounted = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(mounted)
        if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
            raise SetupError(f"{path} changed while it was being mounted")
        _remount(f"/proc/self/fd/{mounted}", options.flags | options.recursive)
        if options.recursive & lm.MS_RDONLY and recursive:
            for below in _mounts_below(path):
                _remount(below, options.recursive)
        for propagation in options.propagation:
            lm.mount(None, f"/proc/self/fd/{mounted}", None, propagation)
    finally:
        os.close(mounted)


def _remount(place: str, flags: int) -> None:
    if flags & _SETTABLE:
        kept = os.statvfs(place).f_flag
        locked = sum(flag for bit, flag in LOCKED if kept & bit)
        lm.mount(None, place, None, lm.MS_BIND | lm.MS_REMOUNT | (flags & _SETTABLE) | locked)


def _mounts_below(path: str) -> list[str]:
    found = []
    for line in read_bytes("/proc/self/mountinfo").split(b"\n")[:-1]:
        # What would split the fields stands there as an octal number (proc(5)).
        point = line.split(b" ")[4].replace(b"\\040", b" ").replace(b"\\011", b"\t")
        point = point.replace(b"\\012", b"\n").replace(b"\\134", b"\\")
        if os.fsdecode(point).startswith(path.rstrip("/") + "/"):
            found.append(os.fsdecode(point))
    return found


# ----------------------------------------------------------------------------------- file systems


def _pseudo(root: int, mount: Mount, options: Options, may: Powers) -> None:
    """proc and sysfs go on a plain folder only: else the image decides what /proc is
    (CVE-2019-19921).
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        try:
            target = open_in_root(root, mount.destination, flags, no_symlinks=True)
        except FileNotFoundError:
            os.close(make_directories(root, mount.destination))
            target = open_in_root(root, mount.destination, flags, no_symlinks=True)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise SetupError(
            f'filesystem "{mount.type}" must be mounted on ordinary directory: {mount.destination}'
        ) from None
    try:
        _mount_new(target, mount, options, may)
    finally:
        os.close(target)


def _filesystem(root: int, mount: Mount, options: Options, may: Powers) -> None:
    data = options.data
    try:
        target = open_in_root(root, mount.destination, os.O_PATH | os.O_DIRECTORY)
        if mount.type == "tmpfs" and not any(word.startswith("mode=") for word in data):
            # A tmpfs takes the mode of the folder it covers, as runc's: /tmp stays 1777.
            data = (f"mode={stat.S_IMODE(os.fstat(target).st_mode):04o}", *data)
    except FileNotFoundError:
        target = make_directories(root, mount.destination)
    try:
        _mount_new(target, mount, replace(options, data=data), may)
    finally:
        os.close(target)


def _mount_new(target: int, mount: Mount, options: Options, may: Powers) -> None:
    flags = options.flags & ~lm.MS_REC
    source = mount.source or mount.type
    if mount.type == "devpts":
        # A devpts node is a device; a nodev one would be of no use.
        flags &= ~lm.MS_NODEV
    data = ",".join(options.data)
    try:
        if mount.type == "proc" and may.joins_pid:
            # A procfs shows the pid namespace of who mounts it.
            _by_a_child(lambda: mount_on_folder(target, source, "proc", flags, data))
        else:
            mount_on_folder(target, source, mount.type, flags, data)
    except OSError as error:
        refused = error.errno in (errno.EPERM, errno.EACCES)
        if refused and mount.type in _BINDABLE and (mount.type != "proc" or may.host_pid):
            _bind_the_host_s(target, _BINDABLE[mount.type], options)
            return
        reason = strerror(error)
        if refused and mount.type == "proc":
            reason += " (this host's own /proc is partly covered, as in a container of another)"
        raise SetupError(
            f'error mounting "{source}" to rootfs at "{mount.destination}": {reason}'
        ) from None


def _by_a_child(work: Callable[[], None]) -> None:
    """Runs `work` in a child, which is in the joined pid namespace and in our mount namespace.

    Not dumpable from its first moment: others live there, who must not see our interpreter, root
    or working folder through /proc.
    """
    prctl(PR_SET_DUMPABLE, 0)
    pid, pidfd = clone(0)
    if pid == 0:
        try:
            work()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or errno.EIO)
        finally:
            os._exit(errno.EIO)
    prctl(PR_SET_DUMPABLE, 1)
    if pidfd >= 0:
        os.close(pidfd)
    status = os.waitpid(pid, 0)[1]
    number = os.WEXITSTATUS(status) if os.WIFEXITED(status) else errno.EIO
    if number:
        raise OSError(number, os.strerror(number))


def mount_on_folder(target: int, source: str, fstype: str, flags: int, data: str) -> None:
    """On the folder `target` is, by "." of it: no name is resolved, and no /proc is needed."""
    os.fchdir(target)
    lm.mount(source, ".", fstype, flags, data)


def _bind_the_host_s(target: int, path: str, options: Options) -> None:
    """In a user namespace with the host's network, ipc or pids only a bind of them is allowed."""
    try:
        source = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a host without message queues: the container has an empty folder
    try:
        asked = options.flags & _SETTABLE
        bind(source, target, Options(asked, 0, asked, (), ()), recursive=True)
    finally:
        os.close(source)


def _cgroup(root: int, mount: Mount, options: Options, trees: tuple[str, ...]) -> None:
    """cgroup2 where the host has it and lets us, else an empty read-only tmpfs; never an error.

    Of version 1, for a container with groups of its own, a folder with each tree, as docker's.
    """
    target = make_directories(root, mount.destination)
    flags = (options.flags | lm.MS_NOSUID | lm.MS_NODEV | lm.MS_NOEXEC) & ~lm.MS_REC
    try:
        if trees:
            mount_on_folder(target, "tmpfs", "tmpfs", flags & ~lm.MS_RDONLY, "mode=755,size=64k")
        else:
            mount_on_folder(target, "cgroup", "cgroup2", flags, "")
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        mount_on_folder(target, "tmpfs", "tmpfs", flags | lm.MS_RDONLY, "mode=755,size=4k")
        return
    finally:
        os.close(target)
    if trees:
        above = open_in_root(root, mount.destination, os.O_PATH | os.O_DIRECTORY)
        try:
            for name in trees:
                _tree(above, name, flags)
            _seal(above, flags & lm.MS_RDONLY)
        finally:
            os.close(above)


def _seal(mounted: int, flags: int) -> None:
    try:
        set_attributes(mounted, Options(flags, 0, 0, (), ()))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _remount(f"/proc/self/fd/{mounted}", flags)


def _tree(above: int, name: str, flags: int) -> None:
    """One tree of version 1, rooted where our cgroup namespace is, in a folder that we have made."""
    os.mkdir(name, 0o755, dir_fd=above)
    folder = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        mount_on_folder(folder, "cgroup", "cgroup", flags, name)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    finally:
        os.close(folder)


# ----------------------------------------------------------------------------- masked and read-only


def mask(root: int, path: str, null: int) -> None:
    """Hides `path`: a folder by an empty tmpfs, anything else by the null device `null` (a
    descriptor).

    `null` was opened on the host and looked at there: what the container calls /dev/null
    is not asked (CVE-2025-31133).
    """
    try:
        target = open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if stat.S_ISDIR(os.fstat(target).st_mode):
            flags = lm.MS_RDONLY | lm.MS_NOSUID | lm.MS_NODEV
            mount_on_folder(target, "tmpfs", "tmpfs", flags, "size=4k,mode=755")
        else:
            bind(null, target, Options(0, 0, 0, (), ()), recursive=False)
    finally:
        os.close(target)


def make_readonly(root: int, path: str) -> None:
    """Binds `path` onto itself, read-only with all that is below it."""
    try:
        target = open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        options = Options(lm.MS_RDONLY, 0, lm.MS_RDONLY, (), ())
        bind(target, target, options, recursive=True)
    finally:
        os.close(target)
