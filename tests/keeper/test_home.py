"""What of the run folder and daemon.json is deleted is made again, at whatever moment, and nobody is turned
away meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dockpy import ids
from dockpy.keeper import place
from dockpy.keeper.home import Home
from dockpy.paths import Paths
from dockpy.shim.control import listening
from dockpy.shim.loop import Loop
from tests.keeper.test_keeper import ROOT, House, own, vanish, wait_for

__all__ = ["own"]


class Asked:
    """A client that has sent its request, and may wait in a queue."""

    def __init__(self, house: House, request: dict[str, Any]) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(20)
        self._sock.connect(house.record()["socket"])
        self._sock.sendall(json.dumps(request).encode() + b"\n")

    def code(self) -> int:
        with self._sock, self._sock.makefile() as said:
            code: int = json.loads(said.readlines()[-1])["code"]
        return code


def command(*args: str) -> dict[str, Any]:
    return {"cid": ids.new_id(), "args": args}


def test_who_waits_in_the_former_listeners_queue_is_served(own: House) -> None:
    path = own.birth()
    daemon = own.record()["daemon"]["pid"]
    os.kill(daemon, signal.SIGSTOP)
    waiting = []
    try:
        for code in range(2):
            waiting.append(Asked(own, command("sh", "-c", f"exit {code}")))
            before = os.stat(path).st_ctime_ns  # not the inode, which the next one may have
            vanish(own.record()["run"])
            wait_for(
                lambda before=before: os.path.exists(path) and os.stat(path).st_ctime_ns != before
            )
        waiting.append(Asked(own, command("sh", "-c", "exit 2")))
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert [client.code() for client in waiting] == [0, 1, 2]


def test_who_waits_in_the_queue_of_a_killed_daemon_is_served_by_the_next(own: House) -> None:
    """It had been told of the next listener already."""
    path = own.birth()
    daemon = own.record()["daemon"]["pid"]
    os.kill(daemon, signal.SIGSTOP)
    waiting = Asked(own, command("sh", "-c", "exit 5"))
    vanish(own.record()["run"])
    wait_for(lambda: os.path.exists(path))
    os.kill(daemon, signal.SIGKILL)
    assert waiting.code() == 5
    assert own.code("true") == 0


def test_who_waits_for_the_next_daemon_is_served_when_the_folder_is_deleted_meanwhile(
    own: House,
) -> None:
    path = own.birth()
    for _ in range(3):
        own.ask({"crash": True})
    # For 0.4 s there is none.
    waiting = Asked(own, command("sh", "-c", "exit 5"))
    vanish(own.record()["run"])
    wait_for(lambda: os.path.exists(path))
    assert waiting.code() == 5
    assert own.code("true") == 0


def test_who_comes_at_the_last_moment_of_an_idle_daemon_is_served_by_the_next(own: House) -> None:
    own.birth()
    last = Asked(own, {"idle": True})
    # It is not accepted before the daemon has ended: that one serves one after the other.
    os.kill(own.record()["daemon"]["pid"], signal.SIGSTOP)
    waiting = Asked(own, command("sh", "-c", "exit 5"))
    os.kill(own.record()["daemon"]["pid"], signal.SIGCONT)
    del last
    assert waiting.code() == 5
    assert own.code("true") == 0


def test_a_folder_of_sockets_that_a_shim_made_again_is_seen_to_be_another(own: House) -> None:
    """A container that starts right after the deletion makes it; the others have still to be told."""
    own.birth()
    record = own.record()
    cid = own.leave("sleep", "30")
    socket_path = own.file(cid, "shim.json")["socket"]
    os.kill(record["keeper"]["pid"], signal.SIGSTOP)
    try:
        shutil.rmtree(f"{record['run']}/s")
        starting = listening(f"{record['run']}/s/another.sock")
        assert starting is not None
    finally:
        os.kill(record["keeper"]["pid"], signal.SIGCONT)
    wait_for(lambda: os.path.exists(socket_path))
    starting.close()


def test_a_run_folder_that_is_deleted_while_there_is_no_keeper_is_made_by_the_next(
    own: House,
) -> None:
    path = own.birth()
    before = own.record()
    os.kill(before["daemon"]["pid"], signal.SIGSTOP)
    own.kill("keeper")
    vanish(before["run"])
    os.kill(before["daemon"]["pid"], signal.SIGCONT)
    wait_for(lambda: os.path.exists(path))
    wait_for(lambda: own.record()["keeper"] not in (None, before["keeper"]))
    assert own.record()["daemon"] == before["daemon"]
    assert own.code("sh", "-c", "exit 5") == 5


def test_a_shim_makes_folder_and_run_folder_for_its_owner_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sock = listening(str(run / "s" / "x.sock"))
    assert sock is not None
    sock.close()
    assert [path.stat().st_mode & 0o777 for path in (run, run / "s")] == [0o700, 0o700]


def test_a_shim_starts_without_a_socket_where_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "s").symlink_to("nowhere")
    assert listening(str(tmp_path / "s" / "x.sock")) is None


class Kept:
    """A Home of this process, turned by hand."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(str(folder / "store"))
        os.makedirs(self.paths.store)
        self.lock = os.open(self.paths.lock, os.O_RDONLY)
        self.run = str(folder / "run")
        self.listeners = [place.listen(self.run)]
        self.loop = Loop()
        self.home = Home(self.loop, self.paths, self.run, self.lock, self.listeners.append)

    def turn_until(self, true: Any) -> None:
        wait_for(lambda: self.loop.turn(10) is None or true())

    def end(self) -> None:
        for listener in self.listeners:
            listener.close()
        os.close(self.lock)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.end()


def test_no_descriptor_is_closed_twice_when_the_folder_comes_and_goes(kept: Kept) -> None:
    kept.home.keep()
    vanish(kept.run)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            kept.home._hold()  # deleted right after it was made
        others = [os.open("/", os.O_RDONLY) for _ in range(4)]
    for fd in others:
        os.close(fd)  # EBADF: it was taken for the folder's
    kept.turn_until(lambda: len(kept.listeners) > 1)
    client = socket.socket(socket.AF_UNIX)
    client.connect(place.socket_path(kept.run))
    client.close()


def test_a_record_comes_again_however_soon_it_is_deleted(kept: Kept) -> None:
    """Between its writing and the watch on it, too."""
    kept.home.keep()
    kept.home.record("single", "source", os.getpid())
    path = kept.paths.daemon_json
    deleter = os.fork()
    if deleter == 0:
        for _ in range(50):
            while True:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                    break
        os._exit(0)
    try:
        kept.turn_until(lambda: os.waitpid(deleter, os.WNOHANG)[0] == deleter)
    except AssertionError:
        os.kill(deleter, signal.SIGKILL)
        os.waitpid(deleter, 0)
        raise
    kept.turn_until(lambda: os.path.exists(path))


def test_where_nothing_can_be_watched_it_is_looked_at(tmp_path: Path) -> None:
    """fs.inotify.max_user_watches is reached (here that of a user namespace of its own)."""
    for limit in ("instances", "watches"):
        done = subprocess.run(
            [
                *("unshare", "--user", "--map-root-user", sys.executable, "-c"),
                "import sys; sys.path.insert(0, sys.argv[1]); from tests.keeper import test_home as t; "
                "t.look(*sys.argv[2:])",
                *(str(ROOT), str(tmp_path / limit), limit),
            ],
            capture_output=True,
            text=True,
            timeout=30,
        )
        if "unshare failed" in done.stderr:
            pytest.skip("no user namespaces here")
        assert (done.returncode, done.stderr) == (0, "")


def look(folder: str, limit: str) -> None:
    os.makedirs(folder)
    Path(f"/proc/sys/user/max_inotify_{limit}").write_text("0")
    kept = Kept(Path(folder))
    kept.home.keep()
    vanish(kept.run)
    kept.turn_until(lambda: len(kept.listeners) > 1)
    assert os.path.exists(place.socket_path(kept.run))
    kept.loop.turn(100)
    assert len(kept.listeners) == 2, "made once"


def test_what_a_killed_keeper_has_half_written_is_removed(own: House) -> None:
    left = Path(f"{own.paths.daemon_json}.12345.0a1b2c3d.tmp")
    left.parent.mkdir(parents=True)
    left.touch()
    own.birth()
    assert own.code("true") == 0
    assert not left.exists()
