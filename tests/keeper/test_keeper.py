"""Birth, death and return of keeper and daemon, with a toy daemon and plain processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dockpy import ids
from dockpy.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
# Run as a program, by whatever user: birth with the toy keeper, then the socket's path on stdout.
BORN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from dockpy import reexec
from dockpy.client import birth
from dockpy.errors import DockpyError
from dockpy.paths import Paths
from tests.keeper.toykeeper import toy_argv
reexec.argv = toy_argv(sys.argv[1])
try:
    print(birth.ensure(Paths(sys.argv[2]), os.environ))
except DockpyError as error:
    sys.exit(str(error))
"""


class House:
    """One store, and what runs on it."""

    def __init__(self, folder: Path, user: str | None = None) -> None:
        self.paths = Paths(str(folder / "store"))
        self.user = user
        self.environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}

    def birth(self, **environ: str) -> str:
        line = ["/usr/bin/python3", "-IS", "-c", BORN, str(ROOT), self.paths.store]
        if self.user is not None:
            line = [
                "setpriv",
                f"--reuid={self.user}",
                f"--regid={self.user}",
                "--clear-groups",
                *line,
            ]
        done = subprocess.run(
            line, env={**self.environ, **environ}, capture_output=True, text=True, timeout=30
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path(self.paths.daemon_json).read_bytes())
        return found

    def ask(self, request: dict[str, Any], timeout: float = 20.0) -> list[dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as conn:
            conn.settimeout(timeout)
            conn.connect(self.record()["socket"])
            conn.sendall(json.dumps(request).encode() + b"\n")
            conn.shutdown(socket.SHUT_WR)
            said = conn.makefile().read()
        return [json.loads(line) for line in said.splitlines()]

    def run(self, *args: str, **more: Any) -> list[dict[str, Any]]:
        return self.ask({"cid": ids.new_id(), "args": args, **more})

    def code(self, *args: str) -> int:
        code: int = self.run(*args)[-1]["code"]
        return code

    def kill(self, role: str) -> None:
        pid = self.record()[role]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not running(pid))

    def leave(self, *args: str) -> str:
        """A container that nobody waits for; returns its id once its shim is there."""
        cid = ids.new_id()
        self.ask({"cid": cid, "args": args, "leave": True})
        wait_for(lambda: self.file(cid, "shim.json").get("init") is not None)
        return cid

    def file(self, cid: str, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(Path(self.paths.containers, cid, name).read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def processes(self) -> list[int]:
        """Of this store; those of a keeper that is about to be, too."""
        pids = [json.loads(file.read_bytes())["pid"] for file in self._shims()]
        found = [pid for pid in pids if title(pid).startswith(b"dockpy-")]
        store = self.paths.store.encode()
        for name in filter(str.isdigit, os.listdir("/proc")):
            words = title(int(name)).split(b"\0")
            named = words[0].startswith(b"dockpy-") and store in words
            if named or b"--store=" + store in words:
                found.append(int(name))
        return found

    def _shims(self) -> Iterator[Path]:
        return Path(self.paths.containers).glob("*/shim.json")

    def end(self) -> None:
        """Stopped before they are killed: of keeper and daemon each would make another one of its fellow."""
        stopped: list[int] = []  # one that was born a moment ago changes its name meanwhile
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in {*self.processes(), *stopped}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    stopped.append(pid)


def title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def running(pid: int) -> bool:
    try:
        ids.start_time(pid)
    except ProcessLookupError:
        return False
    return True


def wait_for(true: Any, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def own_memory(pid: int) -> int:
    """KiB that a process shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


USERS = [None, "plain", "peer"] if os.geteuid() == 0 else [None]


@pytest.fixture(params=USERS, ids=lambda user: user or "self")
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    folder = Path(
        subprocess.check_output(["mktemp", "-d", "/tmp/keeper-XXXXXX"], text=True).strip()
    )
    if request.param is not None:
        try:
            shutil.chown(folder, request.param, request.param)
        except LookupError:
            pytest.skip(f"this host has no user {request.param}")
        if subprocess.run(
            [
                "setpriv",
                f"--reuid={request.param}",
                "--clear-groups",
                "test",
                "-r",
                str(ROOT / "dockpy/ids.py"),
            ]
        ).returncode:
            pytest.skip(f"user {request.param} cannot read the source tree")
    house = House(folder, request.param)
    yield house
    house.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.end()


def test_a_process_runs_and_its_exit_comes_back(house: House) -> None:
    house.birth()
    events = house.run("sh", "-c", "exit 9")
    assert [event["event"] for event in events] == ["started", "exit"]
    assert events[-1]["code"] == 9


def test_the_tier_is_found_by_trying(house: House) -> None:
    house.birth()
    expected = {
        None: ("root", "single", "subuid"),
        "plain": ("single",),
        "peer": ("subuid", "single"),
    }
    assert house.record()["tier"] in expected[house.user]
    keeper = house.record()["keeper"]["pid"]
    if house.user is not None:
        map_lines = Path(f"/proc/{keeper}/uid_map").read_text().splitlines()
        assert map_lines[0].split()[0] == "0"
        assert len(map_lines) == (2 if house.record()["tier"] == "subuid" else 1)
    assert os.readlink(f"/proc/{keeper}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    for line in Path(f"/proc/{keeper}/mountinfo").read_text().splitlines():
        assert " shared:" not in line


def test_socket_and_folders_are_ours_alone(house: House) -> None:
    path = house.birth()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(house.record()["run"]).st_mode & 0o777 == 0o700


def test_keeper_is_apart_from_its_caller(own: House) -> None:
    own.birth(HTTP_PROXY="http://secret", LANG="C.UTF-8")
    keeper = own.record()["keeper"]["pid"]
    environ = Path(f"/proc/{keeper}/environ").read_bytes()
    assert b"secret" not in environ
    assert os.readlink(f"/proc/{keeper}/cwd") == "/"
    assert os.getsid(keeper) != os.getsid(0)
    for fd in os.listdir(f"/proc/{keeper}/fd"):
        assert "pytest" not in os.readlink(
            f"/proc/{keeper}/fd/{fd}"
        ) or own.paths.store in os.readlink(f"/proc/{keeper}/fd/{fd}")
    assert len(os.listdir(f"/proc/{keeper}/task")) == 1


def test_a_hundred_first_commands_start_one_daemon(own: House) -> None:
    with ThreadPoolExecutor(40) as pool:
        sockets = set(pool.map(lambda _: own.birth(), range(40)))
    assert len(sockets) == 1
    found = subprocess.run(
        ["pgrep", "-f", f"^dockpy-keeper {own.paths.store}"], capture_output=True, text=True
    )
    assert len(found.stdout.split()) == 1


def test_another_runtime_dir_meets_the_same_daemon(own: House, tmp_path: Path) -> None:
    first, second = tmp_path / "r1", tmp_path / "r2"
    first.mkdir()
    second.mkdir()
    path = own.birth(XDG_RUNTIME_DIR=str(first))
    before = own.record()["daemon"]
    assert own.birth(XDG_RUNTIME_DIR=str(second)) == path
    assert own.record()["daemon"] == before
    assert os.readlink(first / "dockpy.sock") == path


def test_a_killed_daemon_is_forked_again_and_waiting_clients_are_served(house: House) -> None:
    house.birth()
    before = house.record()
    house.kill("daemon")
    assert house.code("sh", "-c", "exit 4") == 4
    after = house.record()
    assert after["keeper"] == before["keeper"]
    assert after["daemon"] != before["daemon"]


def test_a_daemon_that_crashes_again_and_again_is_slowed_down(own: House) -> None:
    own.birth()
    begun = time.monotonic()
    for _ in range(3):
        own.ask({"crash": True})
    assert own.code("true") == 0
    assert 0.5 < time.monotonic() - begun < 5


def test_a_daemon_that_is_killed_again_and_again_is_back_at_once(own: House) -> None:
    own.birth()
    begun = time.monotonic()
    for _ in range(7):  # as crashes, they would cost 0.2 + 0.4 + … + 6.4 seconds
        own.kill("daemon")
        assert own.code("true") == 0
    assert time.monotonic() - begun < 9


def test_a_killed_keeper_is_made_again_by_the_daemon(house: House) -> None:
    house.birth()
    before = house.record()
    cid = house.leave("sh", "-c", "sleep 1; echo late; exit 5")
    house.kill("keeper")
    wait_for(lambda: house.record()["keeper"] not in (None, before["keeper"]))
    after = house.record()
    assert after["daemon"] == before["daemon"]
    keeper = after["keeper"]["pid"]
    for kind in ("user", "mnt"):
        assert os.readlink(f"/proc/{keeper}/ns/{kind}") == os.readlink(
            f"/proc/{after['daemon']['pid']}/ns/{kind}"
        )
    assert house.code("sh", "-c", "exit 6") == 6
    # It forks daemons as the first one did.
    house.kill("daemon")
    assert house.code("sh", "-c", "exit 7") == 7
    wait_for(lambda: house.file(cid, "exit.json").get("code") == 5)


def test_when_both_are_dead_the_next_command_enters_through_a_shim(house: House) -> None:
    house.birth()
    first = house.record()
    go = Path(house.paths.store, "go")
    cid = house.leave("sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done; echo late; exit 5")
    shim = house.file(cid, "shim.json")["pid"]
    pids = [first[role]["pid"] for role in ("keeper", "daemon")]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(running(pid) for pid in pids))
    house.birth()
    # The daemon may have made a next keeper before it died, too: that one listens at once, and has yet to
    # say who it is.
    wait_for(
        lambda: house.record()["keeper"] is not None and running(house.record()["keeper"]["pid"])
    )
    after = house.record()
    assert after["tier"] == first["tier"]
    for kind in ("user", "mnt"):
        assert os.readlink(f"/proc/{after['keeper']['pid']}/ns/{kind}") == os.readlink(
            f"/proc/{shim}/ns/{kind}"
        )
    assert house.code("sh", "-c", "exit 8") == 8
    go.touch()
    wait_for(lambda: house.file(cid, "exit.json").get("code") == 5)


def test_both_killed_with_nothing_running_is_a_birth_like_the_first(house: House) -> None:
    house.birth()
    for role in ("keeper", "daemon"):
        os.kill(house.record()[role]["pid"], signal.SIGKILL)
    house.birth()
    assert house.code("true") == 0


def test_stop_leaves_nothing_and_containers_go_on(house: House) -> None:
    path = house.birth()
    before = house.record()
    cid = house.leave("sh", "-c", "sleep 1; exit 3")
    house.ask({"stop": True})
    wait_for(lambda: not running(before["keeper"]["pid"]))
    assert not os.path.exists(path)
    assert not os.path.exists(house.paths.daemon_json)
    house.birth()
    wait_for(lambda: house.file(cid, "exit.json").get("code") == 3)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_dead(pid: int) -> bool:
    """Reaped or not."""
    try:
        return b") Z " in Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


def has_let_go(worker: int) -> bool:
    """Of all that it was forked with: else what is sent to its shim is lost with it."""
    return len(os.listdir(f"/proc/{worker}/fd")) == 4


def waiting(house: House) -> int:
    """The shim that waits for its start message."""

    def found() -> list[int]:
        files = Path(house.paths.containers).glob("*/shim.json")
        shims = {json.loads(file.read_bytes())["pid"] for file in files}
        return [
            pid
            for pid in children(house.record()["keeper"]["pid"])
            if pid not in shims
            and Path(f"/proc/{pid}/comm").read_text() == "dockpy-waiting\n"
            and any(map(has_let_go, children(pid)))
        ]

    wait_for(found)
    return found()[0]


@pytest.mark.parametrize("whom", ["shim", "worker"])
def test_who_waits_for_a_start_can_be_killed(own: House, whom: str) -> None:
    own.birth()
    assert own.code("true") == 0  # the keeper is past its own rehearsals
    for _ in range(3):
        shim = waiting(own)
        victim = shim if whom == "shim" else children(shim)[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda pid=victim: is_dead(pid))
        assert own.code("sh", "-c", "exit 3") == 3


def test_who_waits_for_a_start_ends_with_the_keeper(own: House) -> None:
    own.birth()
    assert own.code("true") == 0
    shim = waiting(own)
    (worker,) = children(shim)
    own.ask({"stop": True})
    wait_for(lambda: not running(shim) and not running(worker))


def vanish(folder: str) -> None:
    os.rename(folder, f"{folder}.gone")
    shutil.rmtree(f"{folder}.gone")


def test_a_deleted_run_folder_is_made_again(house: House) -> None:
    path = house.birth()
    before = house.record()
    cid = house.leave("sleep", "30")
    shim_socket = house.file(cid, "shim.json")["socket"]
    vanish(house.record()["run"])
    wait_for(lambda: os.path.exists(path) and os.path.exists(shim_socket))
    wait_for(lambda: house.code("sh", "-c", "exit 2") == 2)
    assert house.record()["daemon"] == before["daemon"]
    # And a second time: the watch is on the new folder.
    shutil.rmtree(house.record()["run"], ignore_errors=True)  # races with its making

    def runs() -> bool:
        code = None
        with contextlib.suppress(OSError, LookupError):  # asked between deleting and making
            code = house.code("true")
        return code == 0

    wait_for(runs)


@pytest.mark.parametrize("content", [None, b"garbage"])
def test_a_lost_daemon_json_is_written_again(own: House, content: bytes | None) -> None:
    own.birth()
    before, path = own.record(), Path(own.paths.daemon_json)
    for _ in range(2):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        wait_for(lambda: path.exists() and path.read_bytes()[:1] == b"{")
    assert own.record() == before
    assert own.code("true") == 0


def test_a_store_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(RuntimeError, match="cannot be written .* set XDG_DATA_HOME"):
        House(tmp_path).birth()


def test_a_keeper_that_cannot_start_says_why(own: House) -> None:
    with pytest.raises(RuntimeError, match="there is no tier 'nonsense'"):
        own.birth(DOCKPY_TIER="nonsense")
    own.birth()
    assert own.code("true") == 0


def test_a_long_store_path_gets_a_short_run_folder(tmp_path: Path) -> None:
    house = House(tmp_path / ("x" * 100))
    try:
        path = house.birth()
        assert path.startswith(f"/tmp/dockpy-{os.geteuid()}-")
        assert house.code("true") == 0
    finally:
        house.ask({"stop": True})
    wait_for(lambda: not os.path.exists(os.path.dirname(path)))


def test_shims_own_little_memory(own: House) -> None:
    """What each adds; the rest is shared with the keeper and all others. See keeper.rehearsal."""
    own.birth()
    cids = [own.leave("sleep", "30") for _ in range(5)]
    sizes = []
    for cid in cids:
        sizes.append(own_memory(own.file(cid, "shim.json")["pid"]))
    assert sorted(sizes)[2] < 1750, sizes


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="shims share pages on x86-64")
def test_shims_at_rest_share_what_they_have_written(own: House) -> None:
    """See linux.samepage and keeper.recording."""
    own.birth()
    busy = own.file(own.leave("sh", "-c", "while sleep 0.1; do echo; done"), "shim.json")["pid"]
    cids = [own.leave("sleep", "30") for _ in range(3)]
    shims = [own.file(cid, "shim.json")["pid"] for cid in cids]
    # Half a second after the last event.
    wait_for(lambda: all(own_memory(pid) < 0.8 * own_memory(busy) for pid in shims))
    assert own.code("true") == 0
    for cid in cids:
        os.kill(own.file(cid, "shim.json")["init"]["pid"], signal.SIGKILL)
    wait_for(lambda: all(own.file(cid, "exit.json").get("code") == 137 for cid in cids))


@pytest.mark.parametrize("round_", range(3))
def test_kills_at_any_instant_lose_no_exit(own: House, round_: int) -> None:
    own.birth()
    with ThreadPoolExecutor(10) as pool:
        cids = [ids.new_id() for _ in range(10)]
        script = "for i in $(seq 200); do echo $i; done; exit $1"

        def begin(number: int) -> None:
            request = {
                "cid": cids[number],
                "args": ["sh", "-c", script, "sh", str(number)],
                "leave": True,
            }
            try:
                own.ask(request)
            except (OSError, ValueError):
                pass  # killed under it: it was started, or it was not

        started = [pool.submit(begin, number) for number in range(10)]
        time.sleep(0.02 * round_)
        for role in ("keeper", "daemon")[: round_ + 1]:
            os.kill(own.record()[role]["pid"], signal.SIGKILL)
        for future in started:
            future.result(timeout=30)
    own.birth()
    assert own.code("true") == 0
    for number, cid in enumerate(cids):
        if own.file(cid, "shim.json"):
            wait_for(
                lambda cid=cid, number=number: own.file(cid, "exit.json").get("code") == number
            )
            data = Path(own.paths.containers, cid, "log", "0.data").read_bytes()
            assert data.split() == [b"%d" % line for line in range(1, 201)]


assert sys.version_info >= (3, 9)


def test_no_file_that_is_deleted_lets_a_second_daemon_be_born(own: House) -> None:
    """The lock is on the folder; everything else in it that could be mistaken for one goes."""
    own.birth()
    before = own.record()
    for name in ("birth.lock", "daemon.lock", "daemon.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{own.paths.store}/{name}")
    with ThreadPoolExecutor(5) as pool:
        assert len(set(pool.map(lambda _: own.birth(), range(5)))) == 1
    after = own.record()
    assert (after["keeper"], after["daemon"]) == (before["keeper"], before["daemon"])


def test_a_daemon_that_answers_nobody_keeps_others_from_being_born(own: House) -> None:
    path = own.birth()
    pids = [own.record()[role]["pid"] for role in ("keeper", "daemon")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        os.unlink(path)
        os.unlink(own.paths.daemon_json)
        with pytest.raises(RuntimeError, match="does not answer; its log is"):
            own.birth()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: os.path.exists(path) and os.path.exists(own.paths.daemon_json))
    assert [own.record()[role]["pid"] for role in ("keeper", "daemon")] == pids


def test_what_has_to_be_local_goes_where_dockpy_local_says(own: House, tmp_path: Path) -> None:
    local = tmp_path / "disk"
    path = own.birth(DOCKPY_LOCAL=str(local))
    data = own.record()["data"]
    assert data.startswith(f"{local}/dockpy-{os.geteuid()}/")
    assert os.stat(data).st_mode & 0o777 == 0o700
    assert {"containers", "tmp", "daemon.log"} <= set(os.listdir(data))
    assert not {"containers", "tmp", "daemon.log", "run"} & set(os.listdir(own.paths.store))
    assert own.birth() == path, "the next command comes from another shell"
    before = own.record()["keeper"]["pid"]
    own.ask({"stop": True})
    wait_for(lambda: not running(before))
    own.birth()
    assert own.record()["data"] == data


def test_a_store_in_use_by_another_host_is_refused_by_its_name(own: House, tmp_path: Path) -> None:
    os.makedirs(own.paths.store, 0o700)
    record = {"machine": "f" * 32, "host": "node17", "socket": "/nowhere", "build": "source"}
    path = Path(own.paths.daemon_json)
    path.write_text(json.dumps(record))
    local = str(tmp_path / "disk")
    with pytest.raises(RuntimeError, match="is in use by the host node17"):
        own.birth(DOCKPY_LOCAL=local)
    # Hosts that were installed from one image have one machine-id.
    path.write_text(json.dumps({**record, "machine": ids.machine_id()}))
    with pytest.raises(RuntimeError, match="is in use by the host node17"):
        own.birth(DOCKPY_LOCAL=local)
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    own.birth(DOCKPY_LOCAL=local)
    assert own.code("true") == 0


def test_a_data_folder_of_somebody_else_is_refused(own: House, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    local = tmp_path / "disk"
    taken = local / f"dockpy-{os.geteuid()}"
    taken.mkdir(parents=True)
    os.chown(taken, 12345, 12345)
    with pytest.raises(RuntimeError, match="is not a folder of yours"):
        own.birth(DOCKPY_LOCAL=str(local))


def test_what_a_killed_keeper_has_left_of_its_rehearsals_is_removed(own: House) -> None:
    left = Path(own.paths.tmp, "recording-12345")
    (left / "log").mkdir(parents=True)
    (left / "log" / "1.data").touch()
    own.birth()
    assert own.code("true") == 0
    assert not left.exists()
