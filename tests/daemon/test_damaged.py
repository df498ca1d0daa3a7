"""A store whose records cannot be read: the daemon starts, names them, sets them aside, and the rest works."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockpy.damaged import is_left_over
from tests.daemon.conftest import Engine, frames, kill, read_all

LABELS = {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9}}


def cut(eighths: int) -> object:
    return lambda data: data[: len(data) * eighths // 8]


def other_types(data: bytes) -> bytes:
    """The same fields, each with a value of another type."""
    try:
        raw = json.loads(data)
    except ValueError:
        return b"[]"
    if not isinstance(raw, dict):
        return b"{}"
    return json.dumps(
        {key: 7 if isinstance(value, str) else "x" for key, value in raw.items()}
    ).encode()


DAMAGES = {
    **{f"cut-{eighths}": cut(eighths) for eighths in range(8)},
    "garbage": lambda data: os.urandom(len(data)),
    "zeros": lambda data: bytes(len(data)),
    "list": lambda data: b"[1, 2]",
    "types": other_types,
    "brackets": lambda data: b"[" * 200_000,
}


# A start each; the readers are tried with all of them in their rooms.
SHORT = ("cut-0", "cut-5", "garbage", "types")
CHOSEN = DAMAGES if os.environ.get("DOCKPY_TEST_LONG") else SHORT


class Store:
    """A store with containers in several states, as it was while no daemon served it."""

    def __init__(self, folder: Path) -> None:
        self.engine = engine = Engine(str(folder / "store"))
        engine.start()
        self.lost = engine.create("true", name="lost")
        self.ended = engine.run("sh", "-c", "echo written > /file; exit 3", name="ended")
        assert engine.wait(self.ended) == 3
        self.failed = engine.run("sh", "-c", "exit 4", name="failed")
        assert engine.wait(self.failed) == 4
        self.live = engine.run("sleep", "1000", name="live",
                               host={"RestartPolicy": {"Name": "always"}}, **LABELS)  # fmt: skip
        self.template = folder / "template"
        self.stop()
        shutil.copytree(engine.paths.containers, self.template, symlinks=True)
        self.index = Path(engine.paths.images, "index.json").read_bytes()

    def stop(self) -> None:
        """By force, so that everything stays that a daemon puts away at its end."""
        record = self.engine.record()
        os.kill(record["keeper"]["pid"], signal.SIGSTOP)
        kill(record["daemon"]["pid"])
        kill(record["keeper"]["pid"])

    def damage(self, how: object) -> list[str]:
        """Damages a record of each kind; answers what has to be named in the log."""
        paths, named = self.engine.paths, []
        victims = [f"{paths.containers}/{self.lost}/container.json"]
        victims += [f"{paths.containers}/{self.ended}/state.json"]
        victims += [f"{paths.containers}/{self.failed}/exit.json"]
        victims += [
            f"{paths.containers}/{self.live}/{name}.json" for name in ("restart", "shim", "health")
        ]
        victims += [
            f"{paths.snapshots}/chains/{name}" for name in os.listdir(f"{paths.snapshots}/chains")
        ]
        victims += [
            f"{paths.images}/index.json",
            f"{paths.snapshots}/driver",
            paths.session,
            paths.daemon_json,
        ]
        for victim in victims:
            path = Path(victim)
            before = path.read_bytes()
            after = how(before)  # type: ignore[operator]  # one of DAMAGES
            path.chmod(0o600)
            path.write_bytes(after)
            if path.name == "container.json":
                path.chmod(0o400)
            if victim == paths.daemon_json:
                continue  # read by whoever starts a daemon, and written again
            # Not synced by us: empty after a power cut without any damage.
            loose = path.name in ("state.json", "exit.json", "shim.json", "health.json", "session")
            if not (loose and not after.strip(b"\0")) and path.name != "session":
                named.append(victim if path.name != "container.json" else str(path.parent))
        return named

    def restore(self) -> None:
        paths = self.engine.paths
        live = f"{paths.containers}/{self.live}"
        for name in (self.lost, self.ended, self.failed):
            shutil.rmtree(f"{paths.containers}/{name}", ignore_errors=True)
            shutil.copytree(self.template / name, f"{paths.containers}/{name}", symlinks=True)
        for name in ("restart.json", "shim.json", "health.json"):
            shutil.copy(self.template / self.live / name, live)
        Path(paths.images, "index.json").write_bytes(self.index)
        shutil.rmtree(paths.damaged, ignore_errors=True)
        Path(paths.daemon_log).write_bytes(b"")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("damaged"))
    yield made
    made.engine.start()
    made.engine.stop()


@pytest.mark.parametrize("how", CHOSEN)
def test_one_record_of_each_kind_is_damaged_and_the_rest_works(store: Store, how: str) -> None:
    engine = store.engine
    named = store.damage(DAMAGES[how])
    engine.start()
    rows = engine.ask("GET", "/containers/json?all=1").json()
    assert isinstance(rows, list)
    assert {row["Id"] for row in rows} == {store.ended, store.failed, store.live}
    log = Path(engine.paths.daemon_log).read_text()
    for path in named:
        assert f"{path} is damaged" in log
    aside = os.listdir(engine.paths.damaged)
    assert f"container-{store.lost}" in aside
    assert len([name for name in aside if not name.startswith(("tree-", "table-"))]) == len(named)
    assert "Traceback" not in log
    # What ran runs on, and is known by what its shim says.
    assert engine.state(store.live)["Running"] is True
    assert output(engine, store.live, "ls /bin/sh") == b"/bin/sh\n"
    assert engine.state(store.ended)["ExitCode"] == 3
    assert engine.state(store.failed)["ExitCode"] == 4
    # A container stands on its layers again, and has what it wrote.
    assert engine.ask("GET", f"/containers/{store.ended}/archive?path=/file").status == 200
    assert engine.ask("POST", f"/containers/{store.ended}/start").status == 204
    assert engine.wait(store.ended) == 3
    assert engine.wait(engine.run("true", host={"AutoRemove": True})) == 0
    assert engine.ask("POST", f"/containers/{store.live}/restart?t=0").status == 204
    assert output(engine, store.live, "ls /bin/sh") == b"/bin/sh\n"
    store.stop()
    shutil.copytree(
        f"{engine.paths.containers}/{store.live}", store.template / store.live, dirs_exist_ok=True
    )
    store.restore()


def output(engine: Engine, container: str, script: str) -> bytes:
    made = engine.ask("POST", f"/containers/{container}/exec",
                      {"Cmd": ["sh", "-c", script], "AttachStdout": True}).json()  # fmt: skip
    assert isinstance(made, dict), made
    sock, rest = engine.upgrade(f"/exec/{made['Id']}/start", b"{}")
    with sock:
        return b"".join(data for _, data in frames(rest + read_all(sock)))


def test_a_temporary_file_is_left_over_when_its_writer_is_gone(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name, left in (
        (f"state.json.{os.getpid()}.0a1b2c3d.tmp", False),
        (f"state.json.{os.getpid()}.12345678.tmp", False),  # the random part is no pid
        (f"state.json.{gone.pid}.12345678.tmp", True),
        (f"{os.getpid()}.1234567812345678", False),
        (f"{gone.pid}.1234567812345678", True),
    ):
        (tmp_path / name).touch()
        assert is_left_over(str(tmp_path / name)) == left, name
    assert not is_left_over(str(tmp_path / f"state.json.{gone.pid}.87654321.tmp"))  # not there
