"""A daemon of its own in each batch job, on the images of the user's; and another store's images by --store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.engines import Engine


@pytest.fixture
def user(engine: Engine, folder: Path) -> Engine:
    """The engine's user with a store where it lies by itself: a job's is below it."""
    if engine.label not in ("plain", "ranged"):
        pytest.skip("of an ordinary user's dockpy")
    environ = {key: value for key, value in engine.environ.items() if key != "DOCKPY_STORE"}
    environ["XDG_DATA_HOME"] = str(folder)
    return Engine(engine.label, engine.command, engine.uid, engine.gid, environ, True)


def in_job(user: Engine, number: int) -> Engine:
    environ = {**user.environ, "SLURM_JOB_ID": str(number)}
    return Engine(user.label, user.command, user.uid, user.gid, environ, True)


def ok(engine: Engine, *args: str) -> str:
    done = engine.cli(*args)
    assert done.code == 0, done.err
    return done.out.strip()


def test_each_job_has_containers_of_its_own_on_the_users_images(
    user: Engine, busybox_archive: Path, folder: Path
) -> None:
    one, two = in_job(user, 1), in_job(user, 2)
    try:
        ok(user, "load", "-i", str(busybox_archive))
        ok(one, "run", "-d", "--name", "same", user.image, "sleep", "100")
        ok(two, "run", "-d", "--name", "same", user.image, "sleep", "100")
        assert ok(user, "ps", "-aq") == ""
        assert ok(one, "exec", "same", "echo", "one") == "one"
        assert ok(one, "inspect", "-f", "{{.Id}}", "same") != ok(
            two, "inspect", "-f", "{{.Id}}", "same"
        )
        pids = {
            row["pid"]
            for job in (user, one, two)
            for row in json.loads(ok(job, "daemon", "status", "--format", "json"))["processes"]
            if row["role"] == "daemon"
        }
        assert len(pids) == 3
        blobs = list((folder / "dockpy/.jobs").glob("*/images/blobs/sha256/*"))
        assert not blobs, "the users' images were copied"
        # The job's environment is how whoever runs it finds what is to end with it.
        assert b"SLURM_JOB_ID=1" in Path(f"/proc/{_daemon(one)}/environ").read_bytes()
        refused = one.cli("rmi", "-f", user.image)
        assert refused.code == 1 and "read-only store" in refused.err
    finally:
        for job in (one, two):
            job.cli("rm", "-f", "same")
            job.cli("daemon", "stop")
        user.cli("daemon", "stop")


def _daemon(engine: Engine) -> int:
    rows = json.loads(ok(engine, "daemon", "status", "--format", "json"))["processes"]
    return next(int(row["pid"]) for row in rows if row["role"] == "daemon")


def test_another_store_is_used_by_its_path(
    user: Engine, busybox_archive: Path, folder: Path
) -> None:
    site = Engine(
        user.label, user.command, user.uid, user.gid,
        {**user.environ, "DOCKPY_STORE": f"{folder}/site"}, True,
    )  # fmt: skip
    try:
        ok(site, "load", "-i", str(busybox_archive))
        ok(user, "daemon", "start", "--store", f"{folder}/site")
        assert ok(user, "run", "--rm", user.image, "echo", "lent") == "lent"
        told = user.cli("daemon", "start", "--store", f"{folder}/site")
        assert told.code == 1 and "runs already" in told.err
    finally:
        site.cli("daemon", "stop")
        user.cli("daemon", "stop")
