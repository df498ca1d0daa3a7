"""What of a store must be on a local disk, and where that is when the store is not on one.

Locks, sockets, overlayfs's directories and records that are renamed need one; on NFS, Lustre and their
like they fail, or seem to work until two hosts meet. Which file systems those are, the mount table
says: by name, since a number (statfs's f_type) is the same for every FUSE file system there is.
Imported only by whoever starts a daemon or repairs a store.
"""

from __future__ import annotations

import os
import stat

from dockpy.errors import Unavailable
from dockpy.files import read_bytes, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockpy.paths import Paths

REMOTE = frozenset(
    "nfs nfs4 cifs smb3 smbfs smb2 ncpfs afs auristorfs 9p virtiofs ceph lustre gpfs mmfs beegfs orangefs pvfs2 "
    "glusterfs coda vboxsf prl_fs panfs ocfs2 gfs gfs2 acfs wekafs vastnfs quobyte dvs xtreemfs juicefs".split()
)
# FUSE file systems on a disk of this host; every other one is somebody's network.
LOCAL_FUSE = frozenset(
    f"fuse.{name}"
    for name in "fuse-overlayfs gocryptfs encfs ecryptfs cryfs ntfs-3g exfat mergerfs bindfs unionfs".split()
)
# Survives a reboot where it can; cleaners of both spare a folder that is locked, as a daemon's is.
CANDIDATES = ("/var/tmp", "/tmp")

# Seconds without a sign of life after which another host is believed dead, and between two signs.
SILENT = 240.0
SIGN = 60.0


def kind_of(path: str, table: str = "") -> str:
    """The file system type of the folder `path`, by its device in mountinfo (`table`); "" when it is not there."""
    device = os.stat(path).st_dev
    return kind_of_device(f"{os.major(device)}:{os.minor(device)}", table or _mounts())


def kind_of_device(device: str, table: str) -> str:
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        if left.split(" ", 3)[2] == device:
            return right.split(" ", 1)[0]
    return ""


def is_remote(path: str) -> bool:
    """Whether `path` lies on a network file system."""
    return is_remote_kind(kind_of(path))


def is_remote_kind(kind: str) -> bool:
    return kind in REMOTE or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)


def settle(paths: Paths, environ: Mapping[str, str]) -> str:
    """The data folder of the store on this host, which is made: the store itself, or one elsewhere.

    DOCKPY_LOCAL names the folder it goes below; the choice is kept in the store, one file a host, since
    the next command may come from a shell without that variable.
    """
    note = f"{paths.store}/data.{os.uname().nodename}"
    named = environ.get("DOCKPY_LOCAL", "")
    try:
        data = _noted(read_bytes(note, 4096))
    except (OSError, ValueError):
        data = ""
    if named.startswith("/") and os.path.dirname(os.path.dirname(data)) != os.path.normpath(named):
        data = _below(os.path.normpath(named), paths.store)
    elif not data.startswith("/"):
        if not is_remote(paths.store):
            return paths.store
        data = _below(_candidate(), paths.store)
    make_private(os.path.dirname(data))
    make_private(data)
    line = os.fsencode(data) + b"\n"
    try:
        if read_bytes(note, 4096) == line:
            return data
    except (OSError, ValueError):
        pass
    write_atomic(note, line)
    return data


def _noted(note: bytes) -> str:
    """Without the end of its line it is cut, and leads somewhere else."""
    text = note.decode("utf-8", "surrogateescape")
    return text[:-1] if text.startswith("/") and text.endswith("\n") and "\0" not in text else ""


def known(store: str) -> str:
    """The data folder that `settle` has once chosen for a store on this host."""
    try:
        note = read_bytes(f"{store}/data.{os.uname().nodename}", 4096)
    except (OSError, ValueError):
        return store
    return _noted(note) or store


def age(path: str) -> float:
    """Seconds since `path` was touched, both told by the clock of the server; infinite when it is gone."""
    try:
        touched = os.stat(path).st_mtime
        probe = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b".")
            os.fsync(fd)
            return os.fstat(fd).st_mtime - touched
        finally:
            os.close(fd)
            os.unlink(probe)
    except FileNotFoundError:
        return float("inf")


def _below(parent: str, store: str) -> str:
    import zlib

    # Short: a socket's path has 108 bytes, and its folder may be in here.
    return f"{parent}/dockpy-{os.geteuid()}/{zlib.crc32(os.fsencode(os.path.realpath(store))):08x}"


def _candidate() -> str:
    table = _mounts()
    for folder in CANDIDATES:
        try:
            if os.access(folder, os.W_OK | os.X_OK) and not is_remote_kind(kind_of(folder, table)):
                return folder
        except OSError:
            continue
    raise Unavailable(
        "the store is on a network file system, and neither /var/tmp nor /tmp is a local disk to keep containers "
        "on; set DOCKPY_LOCAL to a folder on one"
    )


def make_private(path: str) -> None:
    """A folder that is ours alone, or a sentence: below /tmp somebody else may have been first."""
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise Unavailable(
            f"cannot make {path}: {error.strerror}; set XDG_DATA_HOME to a folder of yours"
        ) from None
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise Unavailable(f"{path} is not a folder of yours; remove it or set XDG_DATA_HOME")
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)


def _mounts() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
