"""Daemons, keepers and shims that are killed under running containers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

from dockpy.daemon.main import serve_inherited
from dockpy.keeper import place
from dockpy.paths import Paths
from dockpy.shim.packets import send_packet
from tests.daemon.conftest import Engine, eventually, frames, kill, read_all


def test_a_next_daemon_adopts_what_runs_and_reads_what_ended(engine: Engine) -> None:
    running = engine.run("sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done")
    ending = engine.run("sh", "-c", "sleep 0.3; exit 9")
    created = engine.create("true")
    pid = engine.state(running)["Pid"]
    before = engine.record()["daemon"]["pid"]
    kill(before)
    eventually(lambda: engine.record()["daemon"]["pid"] != before)
    engine.start()
    assert engine.wait(ending) == 9
    assert engine.state(running)["Pid"] == pid
    assert engine.state(created)["Status"] == "created"
    assert engine.ask("POST", f"/containers/{running}/stop?t=5").status == 204
    assert engine.state(running)["ExitCode"] == 6


def test_a_container_that_ends_without_a_daemon_is_removed_all_the_same(engine: Engine) -> None:
    container = engine.run("sh", "-c", "sleep 0.5", host={"AutoRemove": True})
    before = engine.record()["daemon"]["pid"]
    os.kill(before, signal.SIGSTOP)
    kill(before)
    engine.start()
    eventually(lambda: engine.ask("GET", f"/containers/{container}/json").status == 404)


def test_an_attached_client_outlives_the_daemon(engine: Engine) -> None:
    container = engine.create("sh", "-c", "echo one; sleep 0.5; echo two")
    sock, rest = engine.upgrade(f"/containers/{container}/attach?stream=1&stdout=1")
    with sock:
        engine.ask("POST", f"/containers/{container}/start")
        kill(engine.record()["daemon"]["pid"])
        assert b"".join(data for _, data in frames(rest + read_all(sock))) == b"one\ntwo\n"


def test_a_daemon_starts_another_keeper(engine: Engine) -> None:
    before = engine.record()["keeper"]["pid"]
    kill(before)
    eventually(lambda: engine.record()["keeper"]["pid"] != before)
    container = engine.run("sh", "-c", "exit 4")
    assert engine.wait(container) == 4


def test_both_are_killed_and_the_next_command_finds_everything(engine: Engine) -> None:
    container = engine.run("sleep", "60")
    record = engine.record()
    os.kill(record["keeper"]["pid"], signal.SIGSTOP)
    kill(record["daemon"]["pid"])
    kill(record["keeper"]["pid"])
    engine.start()
    assert engine.state(container)["Running"] is True
    assert engine.ask("POST", f"/containers/{container}/kill").status == 204
    assert engine.wait(container) == 137


def test_a_killed_shim_takes_its_container_along(engine: Engine) -> None:
    container = engine.run("sleep", "60")
    raw = engine.ask("GET", "/dockpy/status").json()
    assert isinstance(raw, dict)
    (shim,) = [
        process["pid"] for process in raw["processes"] if process.get("container") == container
    ]
    pid = engine.state(container)["Pid"]
    kill(shim)
    assert engine.wait(container) == 137
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_the_run_folder_can_be_deleted_under_them(engine: Engine) -> None:
    container = engine.run("sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done")
    run = str(engine.record()["run"])
    shutil.rmtree(run, ignore_errors=True)  # it comes back while it is being deleted
    eventually(lambda: os.path.exists(f"{run}/dockpy.sock"))
    engine.start()
    assert engine.state(container)["Running"] is True
    kill(engine.record()["daemon"]["pid"])
    engine.start()
    assert engine.ask("POST", f"/containers/{container}/stop?t=5").status == 204
    assert engine.state(container)["ExitCode"] == 6


def test_a_shim_whose_socket_alone_was_deleted_is_adopted(engine: Engine) -> None:
    """The keeper does not watch these: every container that ends deletes one."""
    container = engine.run("sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done")
    os.unlink(f"{engine.record()['run']}/s/{container[:16]}.sock")
    kill(engine.record()["daemon"]["pid"])
    engine.start()
    assert engine.state(container)["Running"] is True
    assert engine.ask("POST", f"/containers/{container}/stop?t=5").status == 204
    assert engine.state(container)["ExitCode"] == 6


def test_a_listener_that_comes_while_the_daemon_starts_is_served_beside_the_first(
    tmp_path: Path,
) -> None:
    """The run folder was deleted meanwhile: clients are in the queues of both."""
    run, store = tmp_path / "run", Paths(str(tmp_path / "store"))
    os.makedirs(store.containers)
    first = place.listen(str(run))
    keeper, link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    clients = [connected(place.socket_path(str(run)))]
    second = place.listen(str(run))
    clients.append(connected(place.socket_path(str(run))))
    send_packet(keeper, {"op": "listen"}, [second.fileno()])
    lock = os.open(store.lock, os.O_RDONLY)
    info = {"run": str(run), "tier": "single", "build": "source", "store": store.store}
    daemon = os.fork()
    if daemon == 0:
        try:
            serve_inherited(store, first.detach(), link.detach(), lock, info)
        finally:
            os._exit(0)
    try:
        for client in clients:
            with client:
                client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                assert read_all(client).endswith(b"OK")
    finally:
        os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)
        os.close(lock)
        for sock in (first, second, keeper, link):
            sock.close()


def connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(path)
    return sock


def test_what_an_interrupted_daemon_left_is_put_right(engine: Engine) -> None:
    """Half a create, half a removal, a record that cannot be read, and a run of another boot."""
    container = engine.create("true", name="rebooted")
    engine.ask("POST", "/dockpy/stop")
    store = engine.paths
    eventually(lambda: not os.path.exists(store.daemon_json))
    state = {"status": "running", "pid": 1, "pid_start": 1, "boot": "another"}
    Path(store.containers, container, "state.json").write_text(json.dumps(state))
    Path(store.containers, "a" * 64).mkdir()
    Path(store.containers, "b" * 64).mkdir()
    Path(store.containers, "b" * 64, "container.json").write_bytes(b"\0" * 100)
    Path(store.containers, "c" * 64).mkdir()
    Path(store.containers, "c" * 64, "container.json").write_bytes(b"{torn")
    Path(store.tmp, "container-" + "d" * 64, "log").mkdir(parents=True)
    engine.start()
    told = engine.state("rebooted")
    assert (told["Status"], told["ExitCode"]) == ("exited", 255)
    eventually(lambda: not os.path.exists(f"{store.tmp}/container-{'d' * 64}"))
    assert os.listdir(store.containers) == [container]
    assert os.listdir(store.damaged) == ["container-" + "c" * 64]
    shutil.rmtree(store.damaged)


def test_nothing_is_left_after_idle_minutes(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[daemon]\nidle-exit = "1s"\n')
    engine = Engine(str(tmp_path))
    engine.start()
    record = engine.record()
    container = engine.run("sleep", "1.5")
    time.sleep(1.2)
    assert os.path.exists(f"/proc/{record['daemon']['pid']}"), "it ended over a running container"
    eventually(lambda: not os.path.exists(f"/proc/{record['keeper']['pid']}"))
    assert not os.path.exists(f"/proc/{record['daemon']['pid']}")
    engine.start()
    assert engine.state(container)["ExitCode"] == 0
    engine.stop()


def test_a_daemon_whose_store_is_deleted_ends_with_its_keeper(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(0o700)
    (store / "config.toml").write_text('[daemon]\nidle-exit = "5s"\n')
    engine = Engine(str(store))
    engine.start()
    record = engine.record()
    process = engine.state(engine.run("sleep", "20"))["Pid"]  # busy: not the idle exit
    assert isinstance(process, int)
    for _ in range(5):
        shutil.rmtree(store, ignore_errors=True)
    pids = [record[role]["pid"] for role in ("keeper", "daemon")]
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    os.kill(process, signal.SIGKILL)


def test_a_store_made_anew_is_the_next_daemons_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(0o700)
    (store / "config.toml").write_text('[daemon]\nidle-exit = "5s"\n')
    engine = Engine(str(store))
    engine.start()
    before = engine.record()
    kill(before["keeper"]["pid"])  # one that the daemon has made has no longer a claim
    eventually(lambda: engine.record()["keeper"]["pid"] != before["keeper"]["pid"])
    before = engine.record()
    store.rename(tmp_path / "moved")
    engine.start()
    after = engine.record()
    pids = [before[role]["pid"] for role in ("keeper", "daemon")]
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    assert engine.record() == after
    assert engine.ask("GET", "/_ping").status == 200
    engine.stop()
    log = (tmp_path / "moved/daemon.log").read_text()
    assert log.count(f"the store {store} is gone") == 1
    assert log.count("the keeper has died") == 1


def test_a_deleted_stores_killed_keeper_is_not_made_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    engine = Engine(str(store))
    engine.start()
    assert engine.ask("GET", "/_ping").status == 200
    record = engine.record()
    with open(store / "daemon.log") as log:
        store.rename(tmp_path / "moved")
        kill(record["keeper"]["pid"])
        eventually(lambda: not os.path.exists(f"/proc/{record['daemon']['pid']}"))
        assert "Traceback" not in log.read()
    assert not store.exists()


def test_a_keeper_whose_store_is_deleted_starts_no_next_daemon(tmp_path: Path) -> None:
    store = tmp_path / "store"
    engine = Engine(str(store))
    engine.start()
    assert engine.ask("GET", "/_ping").status == 200
    record = engine.record()
    store.rename(tmp_path / "moved")
    kill(record["daemon"]["pid"])
    eventually(lambda: not os.path.exists(f"/proc/{record['keeper']['pid']}"))
    assert not store.exists()


def test_the_end_of_a_daemon_is_not_the_end_of_containers(engine: Engine) -> None:
    container = engine.run("sleep", "60")
    keeper = engine.record()["keeper"]["pid"]
    assert engine.ask("POST", "/dockpy/stop").status == 204
    eventually(lambda: not os.path.exists(f"/proc/{keeper}"))
    engine.start()
    assert engine.state(container)["Running"] is True


def test_execs_are_found_again(engine: Engine) -> None:
    container = engine.run("sleep", "60")

    def begin(*cmd: str) -> str:
        body = {"Cmd": cmd, "AttachStdin": True, "AttachStdout": True, "User": "0", "Env": ["A=1"]}
        raw = engine.ask("POST", f"/containers/{container}/exec", body).json()
        assert isinstance(raw, dict)
        return str(raw["Id"])

    def inspect(exec_id: str) -> dict[str, object]:
        raw = engine.ask("GET", f"/exec/{exec_id}/json").json()
        assert isinstance(raw, dict)
        return raw

    ended, ending, staying = begin("sh", "-c", "exit 2"), begin("sh", "-c", "cat"), begin("cat")
    engine.ask("POST", f"/exec/{ended}/start", {"Detach": True})
    eventually(lambda: inspect(ended)["ExitCode"] == 2)
    assert engine.inspect(container)["ExecIDs"] == [ending, staying]
    sock, _ = engine.upgrade(f"/exec/{ending}/start", b"{}")
    other, rest = engine.upgrade(f"/exec/{staying}/start", b"{}")
    before = {exec_id: inspect(exec_id) for exec_id in (ended, staying)}
    record = engine.record()
    os.kill(record["keeper"]["pid"], signal.SIGSTOP)  # so that no other daemon comes too soon
    kill(record["daemon"]["pid"])
    sock.sendall(b"after")
    sock.shutdown(socket.SHUT_WR)
    with sock:
        assert b"after" in read_all(sock)
    kill(record["keeper"]["pid"])
    engine.start()
    assert {exec_id: inspect(exec_id) for exec_id in (ended, staying)} == before
    assert (inspect(ending)["Running"], inspect(ending)["ExitCode"]) == (False, 0)
    assert engine.inspect(container)["ExecIDs"] == [staying]
    with other:
        other.sendall(b"still there")
        other.shutdown(socket.SHUT_WR)
        assert b"still there" in rest + read_all(other)
    eventually(lambda: inspect(staying)["ExitCode"] == 0)
