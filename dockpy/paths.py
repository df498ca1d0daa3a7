"""Where everything lives: one store a user, one runtime directory recorded in it (DESIGN: on disk).

Names only, nothing is created here. Imported by every process, so it imports nothing but os.

On a network file system a store keeps what is read by all hosts (`daemon.json`, which names the one
that serves it, config.toml, the unpacked builds, image blobs), and the rest is below `data`, on a
local disk.

In a batch job or CI step the store is one of its own, below the user's (`base`), whose images it uses:
the daemon and the containers of one job are never another's, and go with it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


# What tells one job from others, by the programs that run them; each with what must be set beside it.
JOBS = (
    ("SLURM_JOB_ID", ""),
    ("PBS_JOBID", ""),
    ("LSB_JOBID", ""),
    ("JOB_ID", "SGE_ROOT"),
    ("RUNNER_TRACKING_ID", ""),  # GitHub's runner, which ends what carries it in its environment
    ("CI_JOB_ID", "GITLAB_CI"),
    ("BUILDKITE_JOB_ID", ""),
    ("CIRCLE_WORKFLOW_JOB_ID", ""),
    ("SYSTEM_JOBID", "AGENT_ID"),  # Azure's agent
    ("BUILD_TAG", "JENKINS_URL"),
)
_JOBS = "/.jobs/"


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
    """The store of the effective user: DOCKPY_STORE, else /var/lib/dockpy for root, else below XDG_DATA_HOME;
    in a job, one below that, unless DOCKPY_SCOPE=user.
    """
    named = environ.get("DOCKPY_STORE", "")
    if named.startswith("/"):
        return os.path.normpath(named)
    if uid == 0:
        store = "/var/lib/dockpy"
    else:
        data = environ.get("XDG_DATA_HOME", "")
        if not data.startswith("/"):
            data = os.path.join(home(environ, uid), ".local/share")
        store = os.path.join(os.path.normpath(data), "dockpy")
    job = job_of(environ)
    return f"{store}{_JOBS}{job}" if job else store


def job_of(environ: Mapping[str, str]) -> str:
    """The name of the job that we are in, on this host; "" for none."""
    if environ.get("DOCKPY_SCOPE") == "user":
        return ""
    for name, beside in JOBS:
        if name in environ and (not beside or beside in environ):
            words = f"{environ[name]}.{os.uname().nodename}"
            return "".join(c if c.isalnum() or c in "_.-" else "_" for c in words).lstrip(".")[:100]
    return ""


class Paths:
    """The names inside one store. `data` is elsewhere where the store is on a network file system.

    `run` is known only after the keeper has chosen it: it stands in `daemon_json`.
    """

    def __init__(self, store: str, data: str = "") -> None:
        self.store = store
        self.base = base = store.rpartition(_JOBS)[0]  # the user's own store, where this is a job's
        self.data = data = data or store
        self.daemon_json = f"{store}/daemon.json"  # socket, run folder, pids: the keeper writes it
        self.daemon_spare = f"{store}/daemon.json.spare"  # room for it on a full disk
        self.config = f"{base or store}/config.toml"
        self.app = f"{base or store}/app"  # unpacked builds, by build id
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
        self.registry = f"{data}/registry"  # what was pushed to `registry serve`
        self.registry_proxy = f"{data}/registry-proxy"  # its caches, by the registry they are of
        self.limit = f"{data}/limit"  # bytes that images may take (images.quota)
        self.damaged = f"{data}/damaged"  # records that could not be read (dockpy.damaged)
