"""Where everything lives: one store a user, one runtime directory recorded in it (DESIGN: on disk).

Names only, nothing is created here. Imported by every process, so it imports nothing but os.
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
    """The names inside one store. `run` is known only after the keeper has chosen it: it stands in `daemon_json`."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.daemon_json = f"{store}/daemon.json"  # socket, run folder, pids: the keeper writes it
        self.daemon_lock = f"{store}/daemon.lock"  # flock held by keeper and daemon together
        self.birth_lock = f"{store}/birth.lock"  # flock held while somebody starts a keeper
        self.session = (
            f"{store}/session"  # the boot in which a daemon was started and never stopped
        )
        self.daemon_log = f"{store}/daemon.log"
        self.app = f"{store}/app"  # unpacked builds, by build id
        self.images = f"{store}/images"  # OCI image layout: oci-layout, index.json, blobs/sha256/
        self.snapshots = f"{store}/snapshots"
        self.containers = f"{store}/containers"  # a folder each: record, bundle, log, exit file
        self.tmp = f"{store}/tmp"
        self.cache = f"{store}/cache"
