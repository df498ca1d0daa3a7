"""The container's file tree, built in its new mount namespace while the host's tree is still in
reach.

Order: the tree stops propagating to the host; device nodes are prepared aside; the root is
mounted; the specification's mounts in its order (later ones may cover or lie on earlier ones);
devices into the new /dev; then what must be hidden; at last the pivot. After it nothing of the
host can be named.
"""

from __future__ import annotations

import errno
import os
import stat

from dockpy.files import read_bytes
from dockpy.linux import mounts as lm
from dockpy.linux.beneath import create_file, open_in_root
from dockpy.linux.libc import AT_FDCWD
from dockpy.oci.spec import Device
from dockpy.runtime import groups, mounts
from dockpy.runtime.errors import SetupError, strerror
from dockpy.runtime.mounts import Powers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.oci.spec import Mount, Root, Spec
    from dockpy.runtime.namespaces import Plan

DEFAULT_DEVICES = (
    Device("/dev/null", "c", 1, 3, 0o666),
    Device("/dev/zero", "c", 1, 5, 0o666),
    Device("/dev/full", "c", 1, 7, 0o666),
    Device("/dev/random", "c", 1, 8, 0o666),
    Device("/dev/urandom", "c", 1, 9, 0o666),
    Device("/dev/tty", "c", 5, 0, 0o666),
)
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_ONE_BY_ONE = ("lowerdir+=", "datadir+=")  # overlayfs's options of one folder each
_ALL_IDS = [(0, 0, (1 << 32) - 1)]
_TTY_GROUP = 5


def powers(spec: Spec, proc: int, kinds: Plan) -> Powers:
    uid_map, gid_map = (_id_map(proc, name) for name in ("self/uid_map", "self/gid_map"))
    initial = uid_map == _ALL_IDS
    caps = spec.process.capabilities
    admin = caps is not None and "CAP_SYS_ADMIN" in caps.bounding
    tty_group = any(first <= _TTY_GROUP < first + size for first, _, size in gid_map)
    return Powers(
        initial=initial,
        nodev=initial and not admin,
        tty_group=tty_group,
        host_pid=not kinds.private("pid"),
        joins_pid=kinds.joins("pid"),
        trees=tuple(groups.trees(spec.linux.cgroups_path)),
    )


def _id_map(proc: int, name: str) -> list[tuple[int, int, int]]:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        fields = [int(word) for word in os.read(fd, 1 << 16).split()]
    finally:
        os.close(fd)
    return list(zip(fields[0::3], fields[1::3], fields[2::3]))


def stop_propagation() -> None:
    """What the host mounts later still arrives; nothing of ours goes back (DESIGN: rslave, not
    private).
    """
    lm.mount(None, "/", None, lm.MS_REC | lm.MS_SLAVE)


# ------------------------------------------------------------------------------------------- root


def mount_root(root: Root, path: str, mount: Mount | None, nodev: bool) -> int:
    """Makes `path` a mount point with the container's root on it; an O_PATH descriptor of that."""
    os.makedirs(path, exist_ok=True)
    options = mounts.parse_options(mount.options if mount is not None else ("rbind",))
    flags = options.flags & ~lm.MS_RDONLY | (lm.MS_NODEV if nodev else 0)
    if mount is None or mount.type == "bind" or options.flags & lm.MS_BIND:
        source = mount.source if mount is not None else path
        try:
            lm.mount(source, path, None, lm.MS_BIND | lm.MS_REC)
        except OSError as error:
            raise SetupError(f"mounting {source} as root: {strerror(error)}") from None
        if flags & (lm.MS_NODEV | lm.MS_NOSUID | lm.MS_NOEXEC):
            locked = sum(flag for bit, flag in mounts.LOCKED if os.statvfs(path).f_flag & bit)
            kept = flags & (lm.MS_NODEV | lm.MS_NOSUID | lm.MS_NOEXEC)
            lm.mount(None, path, None, lm.MS_BIND | lm.MS_REMOUNT | kept | locked)
    elif mount.type == "overlay" and any(word.startswith(_ONE_BY_ONE) for word in options.data):
        _mount_long(path, options.data, flags)
    else:
        try:
            lm.mount(mount.source or mount.type, path, mount.type, flags, ",".join(options.data))
        except OSError as error:
            raise SetupError(f"mounting the {mount.type} root: {strerror(error)}") from None
    for propagation in options.propagation:
        lm.mount(None, path, None, propagation)
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_long(path: str, data: tuple[str, ...], flags: int) -> None:
    """Options that only fsconfig takes."""
    from dockpy.linux import overlay  # few containers need it

    try:
        mounted = overlay.detached(data, lm.MOUNT_ATTR_NODEV if flags & lm.MS_NODEV else 0)
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise SetupError(f"mounting the overlay root{where}: {strerror(error)}") from None
    try:
        target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lm.move_mount(mounted, target)
        finally:
            os.close(target)
    finally:
        os.close(mounted)


def seal_root(root: int) -> None:
    """Makes the root itself, not what is mounted in it, read-only."""
    try:
        lm.mount_setattr(root, lm.MOUNT_ATTR_RDONLY)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        place = f"/proc/self/fd/{root}"
        locked = sum(flag for bit, flag in mounts.LOCKED if os.statvfs(place).f_flag & bit)
        lm.mount(None, place, None, lm.MS_BIND | lm.MS_REMOUNT | lm.MS_RDONLY | locked)


def pivot(root: int) -> None:
    """The container's root becomes ours; the host's is let go, and with it everything mounted
    aside.
    """
    os.fchdir(root)
    lm.pivot_root(".", ".")
    # The old root now lies on top of the new one at ".": this takes it away.
    lm.umount2(".", lm.MNT_DETACH)
    os.chdir("/")


# ---------------------------------------------------------------------------------------- devices


def with_own_nodes(
    wanted: tuple[Mount, ...], may: Powers, fresh_dev: bool
) -> tuple[tuple[Mount, ...], tuple[Device, ...]]:
    """Binds of single device nodes become nodes of ours where we can make them; the rest stays.

    So a chmod inside does not reach the host's /dev, as with docker's. A terminal is no such node:
    what it is depends on the devpts it lies in.
    """
    if not may.initial:
        return wanted, ()
    others, devices = [], []
    for mount in wanted:
        device = None
        if mount.type == "bind" and (may.nodev or fresh_dev):
            device = _device_at(mount)
        # Where nodes are not bound but made in place, that place must be the /dev of ours.
        if device is not None and (may.nodev or mount.destination.startswith("/dev/")):
            devices.append(device)
        else:
            others.append(mount)
    return tuple(others), tuple(devices)


def _device_at(mount: Mount) -> Device | None:
    if not os.path.exists(mount.source):
        return None
    found = os.stat(mount.source)
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(found.st_mode))
    major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    if kind is None or (kind == "c" and 136 <= major <= 143):
        return None
    mode = stat.S_IMODE(found.st_mode)
    return Device(mount.destination, kind, major, minor, mode, found.st_uid, found.st_gid)


def prepare_nodes(devices: tuple[Device, ...], aside: str) -> dict[str, int]:
    """Nodes of our own, as detached mounts by path: so that a chmod inside is not one of the
    host's /dev.

    Made in a tmpfs on `aside` that is gone when this returns; the nodes live on in the mounts.
    Empty where the kernel has no open_tree: then the host's are bound.
    """
    os.makedirs(aside, exist_ok=True)
    lm.mount("tmpfs", aside, "tmpfs", lm.MS_NOSUID | lm.MS_NOEXEC, "mode=0700,size=64k")
    nodes = {}
    try:
        for index, device in enumerate(devices):
            name = f"{aside}/{index}"
            _mknod(name, device, None)
            nodes[device.path] = lm.open_tree(AT_FDCWD, name, lm.OPEN_TREE_CLONE)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    finally:
        lm.umount2(aside, lm.MNT_DETACH)
    return nodes


def _mknod(name: str, device: Device, dir_fd: int | None) -> None:
    kind = stat.S_IFBLK if device.type == "b" else stat.S_IFCHR
    mode = 0o666 if device.file_mode is None else stat.S_IMODE(device.file_mode)
    os.mknod(name, kind | mode, os.makedev(device.major, device.minor), dir_fd=dir_fd)
    if device.uid or device.gid:
        os.chown(name, device.uid or 0, device.gid or 0, dir_fd=dir_fd, follow_symlinks=False)


def fill_dev(root: int, devices: tuple[Device, ...], nodes: dict[str, int], may: Powers) -> None:
    """The device nodes, in a /dev that is fresh and ours (or bound singly wherever they belong)."""
    dev = open_in_root(root, "/dev", os.O_PATH | os.O_DIRECTORY)
    os.fchdir(dev)
    for device in devices:
        if may.initial and not may.nodev:
            _replace_by_node(root, device)
            continue
        # Straight into /dev, which is fresh and ours, unless a mount or a deeper path is in the
        # way.
        folder, name = os.path.split(device.path)
        if folder == "/dev" and device.path not in nodes and not os.path.lexists(name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o666))
            lm.mount(_host_path(device), name, None, lm.MS_BIND)
            continue
        target = create_file(root, device.path)
        if device.path in nodes:
            lm.move_mount(nodes[device.path], target)
        else:
            lm.mount(_host_path(device), f"/proc/self/fd/{target}", None, lm.MS_BIND)
        os.close(target)
    os.close(dev)


def link_dev(root: int) -> None:
    dev = open_in_root(root, "/dev", os.O_PATH | os.O_DIRECTORY)
    for name, text in LINKS:
        _symlink(text, name, dev)
    if os.path.exists("/proc/kcore"):
        _symlink("/proc/kcore", "core", dev)
    os.close(dev)


def _symlink(text: str, name: str, folder: int) -> None:
    try:
        os.symlink(text, name, dir_fd=folder)
    except FileExistsError:  # a mount or the image's own /dev has it
        pass


def _replace_by_node(root: int, device: Device) -> None:
    os.close(create_file(root, device.path))
    folder, name = os.path.split(os.path.normpath(device.path))
    parent = open_in_root(root, folder, os.O_PATH | os.O_DIRECTORY)
    try:
        os.unlink(name, dir_fd=parent)
        _mknod(name, device, parent)
    finally:
        os.close(parent)


def _host_path(device: Device) -> str:
    """The host's node of these numbers: by the same name, else by the kernel's."""
    kernel_name = _kernel_name(device) if not _is_node(device.path, device) else device.path
    if kernel_name is None or not _is_node(kernel_name, device):
        raise SetupError(
            "error gathering device information while adding custom device "
            f'"{device.path}": no such file or directory'
        )
    return kernel_name


def _is_node(path: str, device: Device) -> bool:
    if not os.path.exists(path):
        return False
    found = os.stat(path)
    right = stat.S_ISBLK if device.type == "b" else stat.S_ISCHR
    return right(found.st_mode) and found.st_rdev == os.makedev(device.major, device.minor)


def _kernel_name(device: Device) -> str | None:
    kind = "block" if device.type == "b" else "char"
    try:
        data = read_bytes(f"/sys/dev/{kind}/{device.major}:{device.minor}/uevent")
    except FileNotFoundError:
        return None
    lines = data.decode().split("\n")
    return next(("/dev/" + line[8:] for line in lines if line.startswith("DEVNAME=")), None)


def open_null(root: int, nodes: dict[str, int], may: Powers) -> int:
    """The null device for masking, proven to be it whatever path it came by (CVE-2025-31133).

    Root of the host must get a node of its own: a chmod of a masked file is one of the node.
    """
    if "/dev/null" in nodes:
        fd = nodes["/dev/null"]
    elif may.initial:
        fd = open_in_root(root, "/dev/null", os.O_PATH | os.O_NOFOLLOW)
    else:
        fd = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
        raise SetupError("/dev/null is not the null device")
    return fd


def bind_console(root: int, slave: int) -> None:
    """The pty on /dev/console: from a descriptor onto a descriptor, no name is asked twice."""
    target = create_file(root, "/dev/console", 0o600)
    try:
        if not stat.S_ISREG(os.fstat(target).st_mode):
            raise SetupError("/dev/console of the container is not ours")
        lm.mount(f"/proc/self/fd/{slave}", f"/proc/self/fd/{target}", None, lm.MS_BIND)
    finally:
        os.close(target)
