"""`start`, `attach` and `exec` where they are not as `run` is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dockpy.http.stdcopy import frame
from tests.client.recorder import CLIENT, CONTAINER, Recorder, Request, reply
from tests.client.test_run import Daemon, Terminal, own_environment


def there(daemon: Daemon, *, tty: bool = False, running: bool = False) -> Daemon:
    """`daemon` with a container that is there already."""

    class Known(Daemon):
        def __init__(self) -> None:
            self.__dict__ = daemon.__dict__

        def __call__(self, request: Request, connection: socket.socket) -> bytes | None:
            if request.target.partition("?")[0] == "/containers/c/json":
                known = {
                    "Id": CONTAINER,
                    "Config": {"Tty": tty, "OpenStdin": True},
                    "State": {"Running": running},
                    "HostConfig": {},
                }
                return reply(200, json.dumps(known).encode())
            return daemon(request, connection)

    return Known()


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def catches(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("words", [["start"], ["start", "-a"], ["attach"], ["exec"], ["run"]])
def test_detach_keys_that_are_none_are_told_in_a_sentence(words: list[str]) -> None:
    with Recorder(there(Daemon(lambda *_: None), running=True)) as daemon:
        more = ["true"] if words == ["exec"] else []
        result = daemon.run(CLIENT, *words, "--detach-keys", "ctrl-?", "c", *more)
    assert result.returncode == (125 if words == ["run"] else 1)
    assert b"invalid detach keys (ctrl-?): Unknown character: 'ctrl-?'" in result.stderr
    assert b"Traceback" not in result.stderr
    assert daemon.requests == []


def test_a_wait_that_fails_is_no_success() -> None:
    daemon = there(Daemon(lambda *_: None))

    def answer(request: Request, connection: socket.socket) -> bytes | None:
        if "/wait" in request.target:
            return reply(200, b'{"StatusCode":-1,"Error":{"Message":"it is lost"}}')
        return daemon(request, connection)

    with Recorder(answer) as recorder:
        result = recorder.run(CLIENT, "start", "-a", "c")
    assert result.returncode == 125
    assert result.stderr.endswith(b"it is lost\n")


def test_a_terminal_s_container_is_started_and_fed_from_a_pipe() -> None:
    """As docker's: only run, attach and exec ask for a terminal then."""
    got: list[bytes] = []

    def workload(connection: socket.socket, _: dict[str, int]) -> None:
        while data := connection.recv(100):
            got.append(data)

    with Recorder(there(Daemon(workload, code=3), tty=True)) as daemon:
        result = daemon.run(CLIENT, "start", "-ai", "c", input=b"exit 3\n")
    assert (result.returncode, b"".join(got)) == (3, b"exit 3\n")


@pytest.mark.parametrize("words", [["start", "-a"], ["attach", "--no-stdin"]])
@pytest.mark.parametrize("tty", [True, False])
def test_signals_are_passed_on_where_no_terminal_does_it(words: list[str], tty: bool) -> None:
    told: list[str] = []
    killed = threading.Event()

    def workload(connection: socket.socket, _: dict[str, int]) -> None:
        connection.sendall(b"ready\n" if tty else frame(1, b"ready\n"))
        killed.wait(20)

    answer = Daemon(workload, code=143)
    known = there(answer, tty=tty, running=True)

    def with_kill(request: Request, connection: socket.socket) -> bytes | None:
        if "/kill" in request.target:
            told.append(request.target)
            killed.set()
        if words[0] == "attach":
            answer.started.set()
        return known(request, connection)

    with Recorder(with_kill) as daemon:
        process = subprocess.Popen(
            [*CLIENT, *words, "c"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={"DOCKER_HOST": f"unix://{daemon.path}", "HOME": "/nonexistent"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wait_for(lambda: tty or catches(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        killed.set()
        process.stdout.close()
    assert code == (-signal.SIGTERM if tty else 143)
    assert bool(told) is not tty


def test_a_client_that_is_ended_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    def workload(connection: socket.socket, lent: dict[str, int]) -> None:
        connection.sendall(b"prompt$ ")
        while connection.recv(100):
            pass

    with Recorder(Daemon(workload)) as daemon:
        environ = {**own_environment(daemon, tmp_path), "DOCKER_HOST": f"unix://{daemon.path}"}
        terminal = Terminal(["exec", "-it", "c", "sh"], environ)
        before = termios.tcgetattr(terminal.fd)
        assert b"prompt$ " in terminal.read_until(b"prompt$ ")
        wait_for(lambda: not termios.tcgetattr(terminal.fd)[3] & termios.ECHO)
        os.kill(terminal.pid, signal.SIGTERM)
        assert os.WEXITSTATUS(os.waitpid(terminal.pid, 0)[1]) == 128 + signal.SIGTERM
        assert termios.tcgetattr(terminal.fd) == before
        os.close(terminal.fd)


def test_an_exec_s_missing_container_comes_before_its_missing_terminal() -> None:
    def nothing(request: Request, _: socket.socket) -> bytes:
        return reply(404, b'{"message":"No such container: c"}')

    with Recorder(nothing) as daemon:
        result = daemon.run(CLIENT, "exec", "-it", "c", "sh")
    assert (result.returncode, result.stderr) == (
        1,
        b"Error response from daemon: No such container: c\n",
    )
