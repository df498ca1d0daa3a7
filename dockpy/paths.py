"""Where everything lives: one store a user, one runtime directory recorded in it (DESIGN: on disk).

Names only, nothing is created here. Imported by every process, so it imports nothing but os.

On a network file system a store keeps what is read by all hosts (`daemon.json`, which names the one
that serves it, config.toml, the unpacked builds, image blobs), and the rest is below `data`, on a
local disk.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class NoHome(Exception):
    """Neither HOME nor the passwd file says where this user's files may go."""


def home(environ: Mapping[str, str], uid: int) -> str:
    """HOME when it is an absolute path, else the passwd entry's folder."""
    value = environ.get("HOME", "")
    if value.startswith("/"):
        return value
    import pwd

    try:
        entry = pwd.getpwuid(uid).pw_dir
    except KeyError:
        entry = ""
    if not entry.startswith("/"):
        raise NoHome(f"user {uid} has no home folder; set XDG_DATA_HOME to a folder of yours")
    return entry


def store_of(environ: Mapping[str, str], uid: int) -> str:
    """The store of the effective user: DOCKPY_STORE, else /var/lib/dockpy for root, else below XDG_DATA_HOME."""
    named = environ.get("DOCKPY_STORE", "")
    if named.startswith("/"):
        return os.path.normpath(named)
    if uid == 0:
        return "/var/lib/dockpy"
    data = environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        data = os.path.join(home(environ, uid), ".local/share")
    return os.path.join(os.path.normpath(data), "dockpy")


class Paths:
    """The names inside one store. `data` is elsewhere where the store is on a network file system.

    `run` is known only after the keeper has chosen it: it stands in `daemon_json`.
    """

    def __init__(self, store: str, data: str = "") -> None:
        self.store = store
        self.data = data = data or store
        self.daemon_json = f"{store}/daemon.json"  # socket, run folder, pids: the keeper writes it
        self.config = f"{store}/config.toml"
        self.app = f"{store}/app"  # unpacked builds, by build id
        self.images = f"{store}/images"  # OCI image layout: oci-layout, index.json, blobs/sha256/
        self.images_lock = f"{data}/images.lock"
        # flock of keeper and daemon together: the folder itself, since it cannot be deleted alone.
        self.lock = data
        self.birth_lock = f"{data}/birth.lock"  # flock held while somebody starts a keeper
        self.daemon_log = f"{data}/daemon.log"
        self.snapshots = f"{data}/snapshots"
        self.containers = f"{data}/containers"  # a folder each: record, bundle, log, exit file
        self.tmp = f"{data}/tmp"
        self.cache = f"{data}/cache"
        self.session = f"{data}/session"  # the boot in which a daemon serves, or was killed
        self.damaged = f"{data}/damaged"  # records that could not be read (dockpy.damaged)
