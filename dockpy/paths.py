"""Where everything lives: one store a user, one runtime directory recorded in it (DESIGN: on disk).

Names only, nothing is created here. Imported by every process, so it imports nothing but os.

In a batch job or a CI step the store is the *job's*, `<user's store>/jobs/<job>`: a daemon born there
ends with the job, so no other may depend on it. Who the job is, its variables say, else the control
group that a batch system has put this process into. Such a store is like any other but for what it
finds at its birth: the images of the user's store (storage/borrow.py), which it only reads.

On a network file system a store keeps what is read by all hosts (`daemon.json`, which names the one
that serves it, config.toml, the unpacked builds, image blobs), and the rest is below `data`, on a
local disk.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# (what the job is named after, the variable that tells one job from another, a variable that must be
# there too). The innermost comes first: CI steps run inside batch jobs, hardly the other way round.
JOBS = (
    ("github", "RUNNER_TRACKING_ID", "GITHUB_ACTIONS"),
    ("github", "GITHUB_RUN_ID", "GITHUB_ACTIONS"),
    ("gitlab", "CI_JOB_ID", "GITLAB_CI"),
    ("jenkins", "BUILD_TAG", "JENKINS_URL"),
    ("buildkite", "BUILDKITE_JOB_ID", "BUILDKITE"),
    ("azure", "SYSTEM_JOBID", "TF_BUILD"),
    ("circleci", "CIRCLE_WORKFLOW_JOB_ID", "CIRCLECI"),
    ("slurm", "SLURM_JOB_ID", "SLURM_JOB_ID"),
    ("pbs", "PBS_JOBID", "PBS_JOBID"),
    ("lsf", "LSB_JOBID", "LSB_JOBID"),
    ("sge", "JOB_ID", "SGE_ROOT"),
    ("oar", "OAR_JOB_ID", "OAR_JOB_ID"),
    ("flux", "FLUX_JOB_ID", "FLUX_JOB_ID"),
    ("condor", "_CONDOR_SCRATCH_DIR", "_CONDOR_JOB_AD"),
)
# What stands in the path of a job's control group: (name, before the job's component, its beginning).
GROUPS = (
    ("slurm", "slurm", "job_"),
    ("pbs", "pbs", "pbspro-"),
    ("pbs", "pbs_jobs.service", "jobid/"),
    ("lsf", "lsf", "job."),
)
LONGEST_JOB = 40


class NoHome(Exception):
    """Neither HOME nor the passwd file says where this user's files may go."""


class Job:
    """`name` is the job's folder; `mark` is what its processes have: VAR=value or a control group."""

    __slots__ = ("mark", "name")

    def __init__(self, name: str, mark: str) -> None:
        self.name = name
        self.mark = mark


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


def paths_of(environ: Mapping[str, str], uid: int) -> Paths:
    """The user's store, or the job's in it."""
    store = store_of(environ, uid)
    job = job_of(environ)
    return Paths(store) if job is None else Paths(f"{store}/jobs/{job.name}", base=store, job=job)


def job_of(environ: Mapping[str, str]) -> Job | None:
    """The job that this process is part of.

    DOCKPY_JOB names one, where nothing else tells of it, or is "none": the user's daemon is wanted.
    """
    named = environ.get("DOCKPY_JOB", "")
    if named:
        return None if named == "none" else _job("job", named, f"DOCKPY_JOB={named}")
    for kind, variable, there in JOBS:
        value = environ.get(variable, "")
        if value and there in environ:
            return _job(kind, value, f"{variable}={value}")
    try:
        fd = os.open("/proc/self/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        text = os.read(fd, 1 << 14)
        os.close(fd)
    except OSError:
        return None
    # One look for all of them, since every command asks.
    return (
        job_of_groups(text.decode("utf-8", "surrogateescape"))
        if b"/job" in text or b"pbspro-" in text
        else None
    )


def job_of_groups(text: str) -> Job | None:
    """The job in the paths of /proc/PID/cgroup."""
    for line in text.splitlines():
        path = line.partition(":")[2].partition(":")[2]
        for kind, before, begin in GROUPS:
            found = path.find(f"/{begin}")
            if found < 0 or before not in path[:found]:
                continue
            start = found + 1 + len(begin)
            end = path.find("/", start)
            end = len(path) if end < 0 else end
            identity = path[start:end].partition(".")[0] if kind == "lsf" else path[start:end]
            return _job(kind, identity, path[:end])
    return None


def _job(kind: str, value: str, mark: str) -> Job:
    # A job may have several hosts, and a home that all of them see.
    name = f"{kind}-{value}@{os.uname().nodename.partition('.')[0]}"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.@") else "_" for c in name)
    if plain != name or len(plain) > LONGEST_JOB:
        import zlib

        plain = (
            f"{plain[: LONGEST_JOB - 9]}-{zlib.crc32(name.encode('utf-8', 'surrogateescape')):08x}"
        )
    return Job(plain, mark)


class Paths:
    """The names inside one store. `data` is elsewhere where the store is on a network file system.

    `run` is known only after the keeper has chosen it: it stands in `daemon_json`.
    """

    def __init__(self, store: str, data: str = "", base: str = "", job: Job | None = None) -> None:
        self.store = store
        self.data = data = data or store
        self.base = base  # the user's store, of a job's
        self.job = job
        self.daemon_json = f"{store}/daemon.json"  # socket, run folder, pids: the keeper writes it
        self.config = f"{base or store}/config.toml"
        self.app = f"{base or store}/app"  # unpacked builds, by build id
        self.images = f"{data if base else store}/images"  # OCI image layout: oci-layout, index.json, blobs/sha256/
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
        self.damaged = f"{data}/damaged"  # what `system check --repair` has set aside
