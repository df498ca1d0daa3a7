"""The store of another user, whose layers are used where they are (Linux 6.16), or unpacked from its archives."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import PLAIN, RANGED, missing, user_named
from tests.e2e.engines import Engine

CHANGES = "(head -c 90000 /dev/zero; echo; echo one) > /big; cp /bin/busybox /bin/other; rm -r /home; mkdir /home"


def ok(engine: Engine, *args: str) -> str:
    done = engine.cli(*args)
    assert done.code == 0, done.err
    return done.out.strip()


@pytest.fixture(params=["root", "ranged", "plain"])
def site(request: pytest.FixtureRequest, engine: Engine, busybox_archive: Path) -> Iterator[Engine]:
    """A store of another user with images of one and of two layers, opened to all as README says."""
    if not engine.is_dockpy or request.param == engine.label:
        pytest.skip("is of two users of dockpy")
    if request.param == "ranged" and shutil.which("newuidmap") is None:
        missing("newuidmap (Debian: uidmap)")
    if os.getuid() != 0:
        missing("root, to be two users")
    entry = pwd.getpwuid(0)
    if request.param != "root":
        name = PLAIN if request.param == "plain" else RANGED
        entry = user_named(name, request.param == "ranged")
    home = Path(tempfile.mkdtemp(prefix="dockpy-e2e-site-"))
    home.chmod(0o711)
    os.chown(home, entry.pw_uid, entry.pw_gid)
    store = home / "store"
    environ = {
        "HOME": str(home),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "DOCKPY_STORE": str(store),
    }
    lender = Engine(request.param, engine.command, entry.pw_uid, entry.pw_gid, environ, True)
    ok(lender, "load", "-i", str(busybox_archive))
    ok(lender, "run", "--name", "made", lender.image, "sh", "-c", CHANGES)
    ok(lender, "commit", "made", "two:1")
    ok(lender, "rm", "made")
    ok(lender, "daemon", "stop")
    for path in (store, store / "snapshots"):
        path.chmod(0o711)
    (store / "images/blobs/sha256").chmod(0o755)
    yield lender
    lender.cli("daemon", "stop")
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def user(engine: Engine, site: Engine, folder: Path) -> Iterator[Engine]:
    environ = {**engine.environ, "DOCKPY_STORE": f"{folder}/mine"}
    one = Engine(engine.label, engine.command, engine.uid, engine.gid, environ, True)
    ok(one, "daemon", "start", "--store", site.environ["DOCKPY_STORE"])
    yield one
    left = one.cli("ps", "-aq").out.split()
    if left:
        one.cli("rm", "-f", *left)
    one.cli("daemon", "stop")


def twins(user: Engine) -> int:
    """How many layers have their files' bytes in the other store."""
    records = Path(user.environ["DOCKPY_STORE"], "snapshots/chains").iterdir()
    return sum(bool(json.loads(path.read_bytes()).get("data")) for path in records)


def needs_twins(user: Engine) -> None:
    ok(user, "create", "--name", user.name(), "two:1")
    if not twins(user):
        version = tuple(int(part) for part in os.uname().release.split(".")[:2])
        assert version < (6, 16), "the other store's layers were unpacked again"
        pytest.skip("this kernel shows no data layers beside user xattrs (Linux 6.16)")


def test_its_layers_are_not_unpacked_again(user: Engine) -> None:
    needs_twins(user)
    assert twins(user) == 2
    blobs = Path(user.environ["DOCKPY_STORE"], "images/blobs/sha256")
    assert not blobs.exists() or not list(blobs.iterdir())
    rows = [json.loads(line) for line in ok(user, "system", "df", "--format", "json").splitlines()]
    (images,) = (row for row in rows if row["Type"] == "Images")
    assert not images["Size"].endswith("MB") and images["TotalCount"] == "2"
    sizes = ok(user, "images", "--format", "{{.Size}}").split()
    assert all(size.endswith("MB") for size in sizes), "an image's size is what it is anywhere"
    assert user.cli("system", "check").code == 0


def test_a_container_of_it_is_as_any_other(user: Engine, folder: Path) -> None:
    needs_twins(user)
    name = user.name()
    script = "cmp /bin/busybox /bin/other && tail -n1 /big && echo two >> /big && mv /bin/other /bin/third"
    script += "&& chmod 700 /big && rm /etc/group && ls /home && stat -c %u:%a /tmp"
    assert ok(user, "run", "--name", name, "two:1", "sh", "-c", script) == "one\n0:1777"
    changes = set(ok(user, "diff", name).splitlines())
    assert changes == {"C /big", "C /bin", "D /bin/other", "A /bin/third", "C /etc", "D /etc/group"}
    ok(user, "cp", f"{name}:/bin/third", f"{folder}/third")
    ok(user, "cp", f"{name}:/bin/busybox", f"{folder}/busybox")
    assert (folder / "third").read_bytes() == (folder / "busybox").read_bytes()
    assert (folder / "third").stat().st_size > 100_000
    exported = user.cli("export", "-o", f"{folder}/out.tar", name)
    assert exported.code == 0, exported.err
    with tarfile.open(folder / "out.tar") as tar:
        for member in ("bin/third", "bin/busybox"):
            file = tar.extractfile(member)
            assert file is not None and file.read() == (folder / "third").read_bytes()
    ok(user, "commit", name, "three:1")
    assert (
        ok(user, "run", "--rm", "three:1", "sh", "-c", "tail -n2 /big; cmp /bin/third /bin/busybox")
        == "one\ntwo"
    )
    ok(user, "save", "-o", f"{folder}/saved.tar", "three:1")
    ok(user, "rm", name)
    ok(user, "rmi", "three:1")
    assert "three:1" in ok(user, "load", "-i", f"{folder}/saved.tar")
    assert ok(user, "run", "--rm", "three:1", "tail", "-n1", "/big") == "two"


def test_a_store_that_has_gone_is_told(user: Engine, site: Engine) -> None:
    needs_twins(user)
    name = user.name()
    ok(user, "create", "--name", name, "two:1", "tail", "-n1", "/big")
    store = site.environ["DOCKPY_STORE"]
    os.rename(store, f"{store}.moved")
    told = user.cli("start", "-a", name)
    assert told.code != 0 and f"where {store}/snapshots/n/" in told.err and "is gone" in told.err
    os.rename(f"{store}.moved", store)
    assert ok(user, "start", "-a", name) == "one"


def test_a_store_that_shows_its_archives_only_is_unpacked(user: Engine, site: Engine) -> None:
    Path(site.environ["DOCKPY_STORE"], "snapshots").chmod(0o700)
    ok(user, "daemon", "stop")
    ok(user, "daemon", "start", "--store", site.environ["DOCKPY_STORE"])
    assert ok(user, "run", "--rm", "two:1", "tail", "-n1", "/big") == "one"
    if user.uid:  # else every folder is open
        assert twins(user) == 0
