"""A machine that is switched off and on: everything dies, the runtime directory goes, and the boot id is another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dockpy.linux.mounts import MS_BIND, MS_REC, MS_SLAVE, mount
from dockpy.linux.namespaces import CLONE_NEWNS, unshare
from tests.daemon.conftest import Engine, eventually, kill
from tests.daemon.test_check import check

LONG = bool(os.environ.get("DOCKPY_TEST_LONG"))
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def pids(engine: Engine) -> list[int]:
    raw = engine.ask("GET", "/dockpy/status").json()
    assert isinstance(raw, dict)
    found = [int(row["pid"]) for row in raw["processes"]]
    for row in engine.ask("GET", "/containers/json").json():  # type: ignore[attr-defined]  # a list
        found.append(int(str(engine.state(row["Id"])["Pid"])))
    return found


def switch_off(engine: Engine) -> None:
    for pid in pids(engine):  # the keeper comes first
        if os.path.exists(f"/proc/{pid}"):
            kill(pid)
    shutil.rmtree(str(engine.record()["run"]))


def boot(engine: Engine, boot_id: Path) -> None:
    """A daemon that reads that boot id, as do its shims."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            unshare(CLONE_NEWNS)
            mount(None, "/", None, MS_REC | MS_SLAVE)
            mount(str(boot_id), BOOT_ID, None, MS_BIND)
            engine.start()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.socket = f"{engine.record()['run']}/dockpy.sock"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts over the boot id")
def test_everything_is_there_after_a_reboot(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "store"))
    engine.start()
    loop = ("sh", "-c", "echo up; sleep 1000")
    always = engine.run(*loop, name="always", host={"RestartPolicy": {"Name": "always"}})
    stopped = engine.run(*loop, name="stopped", host={"RestartPolicy": {"Name": "unless-stopped"}})
    engine.ask("POST", f"/containers/{stopped}/stop?t=0")
    once = engine.run(*loop, name="once")
    gone = engine.run(*loop, name="gone", host={"AutoRemove": True})
    created = engine.create("true", name="created")
    switch_off(engine)
    new = tmp_path / "boot_id"
    new.write_text("11111111-2222-3333-4444-555555555555\n")
    boot(engine, new)
    try:
        eventually(lambda: engine.state(always)["Running"] is True)
        assert (
            json.loads(Path(engine.paths.daemon_json).read_text())["boot"]
            == new.read_text().strip()
        )
        assert engine.state(stopped)["Status"] == "exited"
        assert (engine.state(once)["Status"], engine.state(once)["ExitCode"]) == ("exited", 255)
        assert engine.state(created)["Status"] == "created"
        eventually(lambda: engine.ask("GET", f"/containers/{gone}/json").status == 404)
        eventually(lambda: engine.output(always) == b"up\nup\n")
        eventually(lambda: check(engine) == [])
        assert engine.ask("POST", f"/containers/{once}/start").status == 204
    finally:
        engine.stop()


def strace(engine: Engine, call: str, at: int) -> subprocess.Popen[bytes]:
    """Kills the daemon when it makes the system call for the n-th time."""
    pid = engine.record()["daemon"]["pid"]
    inject = f"inject={call}:signal=KILL:when={at}"
    started = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), "-e", f"trace={call}", "-e", inject, "-o", "/dev/null"],
        stderr=subprocess.PIPE,
    )
    assert started.stderr is not None
    line = started.stderr.readline()
    assert b"attached" in line, line
    return started


def daemons(keeper: int) -> list[int]:
    """The next one, too, which a keeper has forked at once and has not told of yet."""
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    others = (b"dockpy-shim", b"dockpy-waiting", b"\0")
    return [pid for pid in map(int, children) if not title(pid).startswith(others)]


def stop(pid: int) -> None:
    """Until it stands still: in the middle of a fork it would not have a child yet."""
    os.kill(pid, signal.SIGSTOP)
    eventually(
        lambda: Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    )


def title(pid: int) -> bytes:
    """Nothing of a zombie."""
    return Path(f"/proc/{pid}/cmdline").read_bytes() or b"\0"


@pytest.mark.skipif(not LONG, reason="a start of a daemon each: ./scripts/test --long")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["rename", "unlink", "fsync", "symlink"])
def test_a_run_that_is_cut_is_whole_or_nothing(tmp_path: Path, call: str) -> None:
    """Create, start, wait and remove, with the daemon killed at each of its calls."""
    engine = Engine(str(tmp_path / "store"))
    engine.start()
    engine.run("true", name="first")
    try:
        for at in range(1, 30):
            tracer = strace(engine, call, at)
            body = {
                "Image": "dockpy.builtin/host",
                "Cmd": ["sh", "-c", "exit 3"],
                "HostConfig": {"NetworkMode": "none"},
            }
            cut = False
            try:
                created = engine.ask("POST", "/containers/create?name=cut", body).json()
                assert isinstance(created, dict)
                engine.ask("POST", "/containers/cut/start")
                engine.ask("POST", "/containers/cut/wait")
                engine.ask("DELETE", "/containers/cut?force=1")
                time.sleep(0.1)  # its files are deleted behind
            except (OSError, ValueError, IndexError):
                cut = True
            tracer.kill()
            tracer.wait()
            keeper = engine.record()["keeper"]["pid"]
            stop(keeper)
            for daemon in daemons(keeper):
                kill(daemon)
            kill(keeper)
            engine.start()
            assert engine.record()["keeper"]["pid"] != keeper
            eventually(lambda: check(engine) == [])
            answer = engine.ask("GET", "/containers/cut/json")
            if answer.status == 200:
                if engine.state("cut")["Status"] == "created":
                    assert engine.ask("POST", "/containers/cut/start").status == 204
                assert engine.wait("cut") == 3
                assert engine.ask("DELETE", "/containers/cut?force=1").status == 204
            eventually(lambda: check(engine) == [])
            if not cut:
                break
        assert at > 1 or call == "symlink"
    finally:
        engine.start()
        engine.stop()
