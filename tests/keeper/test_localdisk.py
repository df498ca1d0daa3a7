"""Which file systems are somebody's network, by the mount table, and which jobs there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockpy import localdisk
from dockpy.paths import job_of, job_of_groups, paths_of

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:37 / /home rw,relatime shared:9 - nfs4 server:/home rw,vers=4.2
41 22 0:38 / /scratch rw - lustre mgs@tcp:/scratch rw
42 22 0:39 / /mnt/there rw - fuse.sshfs me@there: rw
43 22 0:40 / /mnt/plain rw - fuse.gocryptfs /home/me/secret rw
44 22 0:41 /sub\\040folder /mnt/odd rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("device", "kind", "remote"),
    [
        ("8:1", "ext4", False),
        ("0:37", "nfs4", True),
        ("0:38", "lustre", True),
        ("0:39", "fuse.sshfs", True),
        ("0:40", "fuse.gocryptfs", False),
        ("0:41", "cifs", True),
        ("0:99", "", False),
    ],
)
def test_a_file_system_is_known_by_its_device(device: str, kind: str, remote: bool) -> None:
    assert localdisk.kind_of_device(device, TABLE) == kind
    assert localdisk.is_remote_kind(kind) is remote


def test_this_hosts_disks_are_local(tmp_path: Path) -> None:
    assert not localdisk.is_remote(str(tmp_path))
    assert not localdisk.is_remote("/proc")


def test_the_age_of_a_file_is_told_by_one_clock(tmp_path: Path) -> None:
    path = tmp_path / "sign"
    path.touch()
    assert -1 < localdisk.age(str(path)) < 5
    moment = os.stat(path).st_mtime - 100
    os.utime(path, (moment, moment))
    assert 99 < localdisk.age(str(path)) < 105
    assert localdisk.age(str(tmp_path / "none")) == float("inf")
    assert os.listdir(tmp_path) == ["sign"]


NODE = os.uname().nodename.partition(".")[0]


@pytest.mark.parametrize(
    ("environ", "name", "mark"),
    [
        ({"SLURM_JOB_ID": "4711"}, "slurm-4711", "SLURM_JOB_ID=4711"),
        ({"PBS_JOBID": "12.pbs"}, "pbs-12.pbs", "PBS_JOBID=12.pbs"),
        ({"LSB_JOBID": "3"}, "lsf-3", "LSB_JOBID=3"),
        ({"GITLAB_CI": "true", "CI_JOB_ID": "9", "SLURM_JOB_ID": "1"}, "gitlab-9", "CI_JOB_ID=9"),
        (
            {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "5", "RUNNER_TRACKING_ID": "g_1"},
            "github-g_1",
            "RUNNER_TRACKING_ID=g_1",
        ),
        ({"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "5"}, "github-5", "GITHUB_RUN_ID=5"),
        ({"DOCKPY_JOB": "mine", "SLURM_JOB_ID": "4711"}, "job-mine", "DOCKPY_JOB=mine"),
    ],
)
def test_a_job_is_known_by_its_variables(environ: dict[str, str], name: str, mark: str) -> None:
    job = job_of(environ)
    assert job is not None
    assert job.mark == mark
    assert job.name == f"{name}@{NODE}" or job.name.startswith(f"{name}@{NODE}"[:31])


def test_what_is_no_job_is_the_users(tmp_path: Path) -> None:
    assert job_of({"CI_JOB_ID": "9", "RUNNER_TRACKING_ID": "x"}) is None, "no runner says so"
    assert job_of({"DOCKPY_JOB": "none", "SLURM_JOB_ID": "4711"}) is None
    assert paths_of({"DOCKPY_STORE": "/s", "DOCKPY_JOB": "none"}, 1).store == "/s"


def test_a_jobs_name_stays_in_its_folder() -> None:
    for value in ("../../etc", "a/b", "x" * 300, "ü\n", "."):
        store = paths_of({"DOCKPY_STORE": "/s", "DOCKPY_JOB": value}, 1).store
        parent, _, name = store.rpartition("/")
        assert parent == "/s/jobs"
        assert name.startswith("job-")
        assert len(name) <= 40
        assert name.isascii()


def test_two_jobs_are_never_one() -> None:
    names = {
        paths_of({"DOCKPY_STORE": "/s", "DOCKPY_JOB": v}, 1).store for v in ("a/b", "a_b", "a?b")
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("text", "name", "mark"),
    [
        (
            "0::/system.slice/slurmstepd.scope/job_12/step_0/user/task_0",
            "slurm-12",
            "/system.slice/slurmstepd.scope/job_12",
        ),
        ("4:memory:/slurm/uid_1000/job_77/step_batch", "slurm-77", "/slurm/uid_1000/job_77"),
        ("0::/pbs_jobs.service/jobid/9.host", "pbs-9.host", "/pbs_jobs.service/jobid/9.host"),
        ("2:cpuset:/lsf/cl/job.55.1000.3/x", "lsf-55", "/lsf/cl/job.55.1000.3"),
    ],
)
def test_a_job_is_known_by_its_control_group(text: str, name: str, mark: str) -> None:
    job = job_of_groups(f"1:name=systemd:/\n{text}\n")
    assert job is not None
    assert job.mark == mark
    assert job.name.startswith(f"{name}@"[:31])


def test_other_control_groups_are_no_jobs() -> None:
    for path in ("/", "/user.slice/user-1000.slice/session-3.scope", "/ci/job_3", "/slurm/uid_1"):
        assert job_of_groups(f"0::{path}\n") is None
