"""dockpy/daemon/jobs.py: which stores lend, and which jobs' stores go."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from dockpy import ids
from dockpy.daemon.jobs import YOUNG, lenders_of, sweep
from dockpy.files import write_atomic
from dockpy.paths import Paths, job_of, store_of
from tests.daemon.conftest import Engine
from tests.images.conftest import opened
from tests.images.test_lenders import load

HOST = os.uname().nodename


def store(path: Path, *, age: float = 2 * YOUNG) -> Paths:
    for name in ("images", "containers/x"):
        (path / name).mkdir(parents=True)
    (path / "images/index.json").write_text("{}")
    when = path.stat().st_mtime - age
    os.utime(path, (when, when))
    return Paths(str(path))


def test_stores_of_ended_jobs_go_and_no_others(tmp_path: Path) -> None:
    base = store(tmp_path / "base")
    jobs = tmp_path / "base/.jobs"
    ended, mine = store(jobs / f"1.{HOST}"), store(jobs / f"2.{HOST}")
    others = [store(jobs / "3.elsewhere"), store(jobs / f"4.{HOST}", age=0)]
    held, lives = store(jobs / f"5.{HOST}"), store(jobs / f"6.{HOST}")
    shim = subprocess.Popen(["sleep", "60"])
    lock = os.open(held.lock, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = ids.start_time(shim.pid)
        record = f'{{"boot":"{ids.boot_id()}","pid":{shim.pid},"start":{start}}}'
        write_atomic(f"{lives.containers}/x/shim.json", record.encode())
        sweep(mine)
    finally:
        os.close(lock)
        shim.kill()
        shim.wait()
    left = {path.name for path in jobs.iterdir()}
    assert left == {Path(one.store).name for one in (mine, *others, held, lives)}
    assert not os.path.exists(ended.store)
    (jobs / f"0.{HOST}").symlink_to("gone")  # between the look and the removal, by another daemon
    sweep(base)  # as the user's own daemon: the shim has ended
    assert not os.path.exists(lives.store) and os.path.exists(base.images)


def test_a_job_reads_the_users_store_and_those_that_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, site = store(tmp_path / "base"), store(tmp_path / "site")
    job = store(tmp_path / f"base/.jobs/1.{HOST}")
    found = lenders_of(job, [site.store], {"DOCKPY_STORES": f"{tmp_path}/gone"})
    assert [one.store for one in found] == [base.store, site.store]
    assert f"{tmp_path}/gone is not a store" in caplog.text
    assert lenders_of(base, [], {}) == []


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "17"}, f"17.{HOST}"),
        ({"SLURM_JOB_ID": "17", "DOCKPY_SCOPE": "user"}, ""),
        ({"JOB_ID": "17"}, ""),  # anybody's variable
        ({"JOB_ID": "17", "SGE_ROOT": "/sge"}, f"17.{HOST}"),
        ({"RUNNER_TRACKING_ID": "../../a b"}, f"_.._a_b.{HOST}"),
    ],
)
def test_a_job_is_told_by_what_its_scheduler_sets(environ: dict[str, str], job: str) -> None:
    assert job_of(environ) == job
    environ = {"HOME": "/h", **environ}
    below = f"/.jobs/{job}" if job else ""
    assert store_of(environ, 1000) == f"/h/.local/share/dockpy{below}"
    assert store_of({**environ, "DOCKPY_STORE": "/named"}, 1000) == "/named"


def test_a_prune_leaves_what_is_lent(tmp_path: Path) -> None:
    load(opened(tmp_path / "site"), "app:1")
    mine = tmp_path / "mine"
    mine.mkdir(0o700)
    (mine / "config.toml").write_text(f'[storage]\nstores = ["{tmp_path}/site"]\n')
    engine = Engine(str(mine))
    engine.start()
    try:
        listed = engine.ask("GET", "/images/json").json()
        assert isinstance(listed, list) and listed[0]["RepoTags"] == ["app:1"]
        answer = engine.ask("POST", '/images/prune?filters={"dangling":["false"]}')
        assert (answer.status, answer.json()) == (200, {"ImagesDeleted": None, "SpaceReclaimed": 0})
        assert engine.ask("GET", "/images/json").json() == listed
    finally:
        engine.stop()
