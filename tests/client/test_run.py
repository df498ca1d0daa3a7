"""`run` and `exec` against a daemon that speaks both upgrades: frames as docker's, and descriptors handed over."""

from __future__ import annotations

import array
import json
import os
import pty
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from dockpy.http.stdcopy import frame
from tests.client.recorder import CLIENT, CONTAINER, Recorder, Request, reply

FDS = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: dockpy-fds\r\n\r\n"
TCP = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


class Daemon:
    """Creates one container; `workload(socket, descriptors)` is what it does once started."""

    def __init__(
        self,
        workload: Callable[[socket.socket, dict[str, int]], None],
        *,
        code: int = 0,
        start: bytes | None = None,
    ) -> None:
        self._workload = workload
        self._code = code
        self._start_reply = start
        self.started = threading.Event()
        self.done = threading.Event()
        self.order: list[str] = []

    def __call__(self, request: Request, connection: socket.socket) -> bytes | None:
        target = request.target
        self.order.append(target.partition("?")[0].rpartition("/")[2])
        if target.startswith("/containers/create"):
            return reply(201, b'{"Id":"%b","Warnings":["careful"]}' % CONTAINER.encode())
        if "/attach" in target or ("/start" in target and target.startswith("/exec")):
            self._attach(request, connection)
            return None
        if "/wait" in target:
            connection.sendall(CHUNKED)
            self.done.wait(20)
            return chunks(b'{"StatusCode":%d}' % self._code)
        if "/start" in target:
            self.started.set()
            return self._start_reply or reply(204)
        if target.endswith("/exec"):
            self.started.set()
            return reply(201, b'{"Id":"e"}')
        if target == "/exec/e/json":
            return reply(200, b'{"Running":false,"ExitCode":%d}' % self._code)
        return reply(204)

    def _attach(self, request: Request, connection: socket.socket) -> None:
        lent: dict[str, int] = {}
        if request.headers["upgrade"] == "dockpy-fds":
            connection.sendall(FDS)
            names = [
                name
                for name in request.target.partition("fds=")[2].partition("&")[0].split("%2C")
                if name
            ]
            if names:
                data, ancillary, _, _ = connection.recvmsg(1, 4096)
                assert data == b"F"
                found = array.array("i")
                for _, _, raw in ancillary:
                    found.frombytes(raw)
                lent = dict(zip(names, found))
        else:
            connection.sendall(TCP)
        self.started.wait(20)
        self._workload(connection, lent)
        for fd in lent.values():
            os.close(fd)
        connection.shutdown(socket.SHUT_RDWR)
        self.done.set()


def own_environment(daemon: Recorder, folder: Path) -> dict[str, str]:
    """The daemon as this user's own: named by the store."""
    (folder / "daemon.json").write_text(json.dumps({"version": 1, "socket": daemon.path}))
    return {"DOCKPY_STORE": str(folder), "HOME": str(folder), "DOCKER_HOST": ""}


def test_attach_and_wait_come_before_start_and_the_code_is_the_containers() -> None:
    def workload(connection: socket.socket, _: dict[str, int]) -> None:
        connection.sendall(frame(1, b"out\n") + frame(2, b"err\n") + frame(1, b"more\n"))

    answer = Daemon(workload, code=42)
    with Recorder(answer) as daemon:
        result = daemon.run(CLIENT, "run", "--rm", "img", "cmd")
    assert result.stdout == b"out\nmore\n"
    assert result.stderr == b"WARNING: careful\nerr\n"
    assert result.returncode == 42
    assert answer.order[0] == "create"
    assert answer.order[-1] == "start"
    assert sorted(answer.order[1:3]) == ["attach", "wait"]
    assert any("condition=removed" in request.target for request in daemon.requests)


def test_typed_bytes_are_sent_and_their_end_is_half_a_close() -> None:
    def echo(connection: socket.socket, _: dict[str, int]) -> None:
        while data := connection.recv(65536):
            connection.sendall(frame(1, data))
        connection.sendall(frame(1, b"EOF"))

    data = os.urandom(3 << 20)
    with Recorder(Daemon(echo)) as daemon:
        result = daemon.run(CLIENT, "run", "-i", "img", input=data)
    assert result.stdout == data + b"EOF"
    assert result.returncode == 0


def test_files_and_pipes_are_handed_over_and_the_shells_flags_stay(tmp_path: Path) -> None:
    seen: dict[str, tuple[bool, bytes]] = {}

    def workload(connection: socket.socket, lent: dict[str, int]) -> None:
        for name, fd in lent.items():
            seen[name] = (os.get_blocking(fd), os.readlink(f"/proc/self/fd/{fd}").encode())
        os.write(lent["stdout"], b"direct " + os.read(lent["stdin"], 100))

    with Recorder(Daemon(workload, code=3)) as daemon:
        with open(tmp_path / "in", "wb") as file:
            file.write(b"skip|rest")
        source = os.open(tmp_path / "in", os.O_RDONLY)
        os.lseek(source, 5, os.SEEK_SET)
        read, write = os.pipe()
        with open(tmp_path / "err", "ab") as errors:
            process = subprocess.Popen(
                [*CLIENT, "run", "-i", "img"],
                stdin=source,
                stdout=write,
                stderr=errors,
                env=own_environment(daemon, tmp_path),
            )
            assert process.wait(20) == 3
        assert os.get_blocking(write)
        os.close(write)
        assert os.read(read, 100) == b"direct rest"
        os.close(read)
    assert sorted(seen) == ["stderr", "stdin", "stdout"]
    assert seen["stdout"][0] is False  # a pipe: opened anew, non-blocking
    assert seen["stdin"][1].endswith(b"/in")
    assert (tmp_path / "err").read_bytes() == b"WARNING: careful\n"
    (attach,) = [request for request in daemon.requests if "/attach" in request.target]
    assert "fds=stdin%2Cstdout%2Cstderr" in attach.target


def test_a_socket_as_stdout_is_pumped(tmp_path: Path) -> None:
    def workload(connection: socket.socket, lent: dict[str, int]) -> None:
        assert "stdout" not in lent
        connection.sendall(frame(1, b"pumped"))

    here, there = socket.socketpair()
    with Recorder(Daemon(workload)) as daemon:
        process = subprocess.Popen(
            [*CLIENT, "run", "img"],
            stdin=subprocess.DEVNULL,
            stdout=there.fileno(),
            env=own_environment(daemon, tmp_path),
        )
        there.close()
        assert process.wait(20) == 0
        assert here.recv(100) == b"pumped"
    here.close()


def test_the_client_ends_when_the_reader_of_a_lent_pipe_is_gone(tmp_path: Path) -> None:
    def workload(connection: socket.socket, lent: dict[str, int]) -> None:
        try:
            while True:
                os.write(lent["stdout"], b"y\n" * 1000)
        except BlockingIOError:
            connection.recv(1)
        except BrokenPipeError:
            connection.recv(1)

    with Recorder(Daemon(workload)) as daemon:
        read, write = os.pipe()
        process = subprocess.Popen(
            [*CLIENT, "run", "img"],
            stdin=subprocess.DEVNULL,
            stdout=write,
            env=own_environment(daemon, tmp_path),
        )
        os.close(write)
        os.read(read, 2)
        os.close(read)
        assert process.wait(20) == -signal.SIGPIPE


def test_a_signal_is_passed_on_and_the_client_stays() -> None:
    killed = threading.Event()

    def workload(connection: socket.socket, _: dict[str, int]) -> None:
        connection.sendall(frame(1, b"ready\n"))
        killed.wait(20)

    answer = Daemon(workload, code=143)

    def with_kill(request: Request, connection: socket.socket) -> bytes | None:
        if "/kill" in request.target:
            killed.set()
        return answer(request, connection)

    with Recorder(with_kill) as daemon:
        process = subprocess.Popen(
            [*CLIENT, "run", "img"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={"DOCKER_HOST": f"unix://{daemon.path}", "HOME": "/nonexistent"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        process.stdout.close()
    assert [request.target for request in daemon.requests if "/kill" in request.target] == [
        f"/containers/{CONTAINER}/kill?signal=15"
    ]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": stat /x: no such file or directory', 127),
        ('exec: "/x": permission denied', 126),
        ('exec: "/": is a directory', 126),
        ("something else", 125),
    ],
)
def test_a_command_that_cannot_start_gives_the_shells_codes(message: str, code: int) -> None:
    answer = Daemon(lambda *_: None, start=reply(400, json.dumps({"message": message}).encode()))
    with Recorder(answer) as daemon:
        result = daemon.run(CLIENT, "run", "img", "x")
    assert result.returncode == code
    assert result.stderr.decode().endswith(
        f"docker: Error response from daemon: {message}\n\nRun 'dockpy run --help' for more information\n"
    )


def test_detached_prints_the_id() -> None:
    with Recorder(Daemon(lambda *_: None)) as daemon:
        result = daemon.run(CLIENT, "run", "-d", "img")
    assert result.stdout == CONTAINER.encode() + b"\n"
    assert [request.target.rpartition("/")[2] for request in daemon.requests] == ["create", "start"]


def test_exec_gives_the_code_of_the_process() -> None:
    with Recorder(
        Daemon(lambda connection, _: connection.sendall(frame(1, b"x")), code=9)
    ) as daemon:
        result = daemon.run(CLIENT, "exec", "-e", "A=1", "c", "cmd")
    assert (result.stdout, result.returncode) == (b"x", 9)
    assert json.loads(daemon.requests[0].body)["Env"] == ["A=1"]


class Terminal:
    """A client on a terminal of its own."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(CLIENT[0], [*CLIENT, *words], environ)

    def read_until(self, text: bytes, seconds: float = 10.0) -> bytes:
        seen, end = b"", time.monotonic() + seconds
        while text not in seen and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    seen += os.read(self.fd, 65536)
                except OSError:
                    break
        return seen

    def wait(self) -> int:
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


@pytest.mark.parametrize("own", [True, False])
def test_the_detach_keys_leave_the_container_and_the_terminal_as_it_was(
    own: bool, tmp_path: Path
) -> None:
    got: list[bytes] = []

    def workload(connection: socket.socket, lent: dict[str, int]) -> None:
        os.write(lent["stdout"], b"prompt$ ") if lent else connection.sendall(b"prompt$ ")
        while data := connection.recv(100):
            got.append(data)

    with Recorder(Daemon(workload)) as daemon:
        environ = own_environment(daemon, tmp_path)
        if not own:
            environ["DOCKER_HOST"] = f"unix://{daemon.path}"
        terminal = Terminal(["run", "-it", "img"], environ)
        assert b"prompt$ " in terminal.read_until(b"prompt$ ")
        os.write(terminal.fd, b"ls\x10")
        time.sleep(0.2)
        os.write(terminal.fd, b"\x11")
        assert terminal.wait() == 0
        time.sleep(0.1)
    typed = b"".join(got)
    assert typed == (b"ls\x10\x11" if own else b"ls")


def test_the_window_size_follows(tmp_path: Path) -> None:
    import fcntl
    import struct
    import termios

    over = threading.Event()

    def workload(connection: socket.socket, lent: dict[str, int]) -> None:
        os.write(lent["stdout"], b"up")
        over.wait(20)

    answer = Daemon(workload, code=5)

    def with_resize(request: Request, connection: socket.socket) -> bytes | None:
        if "/resize?h=44&w=99" in request.target:
            over.set()
        return answer(request, connection)

    with Recorder(with_resize) as daemon:
        terminal = Terminal(["run", "-it", "img"], own_environment(daemon, tmp_path))
        terminal.read_until(b"up")
        fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
        assert over.wait(10)
        assert terminal.wait() == 5


def test_a_terminal_is_demanded_for_it() -> None:
    with Recorder() as daemon:
        result = daemon.run(CLIENT, "run", "-it", "img")
    assert (result.returncode, result.stderr) == (1, b"the input device is not a TTY\n")
    assert not daemon.requests


def test_a_daemon_that_dies_while_we_wait_is_asked_again() -> None:
    answer = Daemon(lambda connection, _: connection.sendall(frame(1, b"x")), code=7)
    asked: list[str] = []

    def dying(request: Request, connection: socket.socket) -> bytes | None:
        if "/wait" in request.target:
            asked.append(request.target.rpartition("=")[2])
            if len(asked) == 1:
                connection.sendall(CHUNKED)
                answer.done.wait(20)
                connection.shutdown(socket.SHUT_RDWR)
                return None
            if len(asked) == 2:
                return reply(503, b'{"message":"in a moment"}')
        return answer(request, connection)

    with Recorder(dying) as daemon:
        result = daemon.run(CLIENT, "run", "img")
    assert (result.stdout, result.returncode) == (b"x", 7)
    assert asked == ["next-exit", "not-running", "not-running"]
