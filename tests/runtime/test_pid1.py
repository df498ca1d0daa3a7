"""Our init as pid 1 of a real pid namespace."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from dockpy.linux.mounts import MS_PRIVATE, MS_REC, mount
from dockpy.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, unshare
from dockpy.runtime import pid1


class Inside:
    """A shell script below our init in namespaces of its own; `output` is its stdout and stderr."""

    def __init__(self, script: str, *, terminal: bool = False, probe: bool = False) -> None:
        self.output = b""
        self.master = -1
        read, write = os.pipe()
        if terminal:
            self.master, slave = pty.openpty()
        self._outer = os.fork()
        if self._outer == 0:
            try:
                os.close(read)
                if terminal:
                    os.setsid()
                    os.dup2(slave, 0)
                    import fcntl
                    import termios

                    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
                _as_init(script, write, terminal, probe)
            finally:
                os._exit(98)
        os.close(write)
        if terminal:
            os.close(slave)
        self._read = read
        self._status: int | None = None

    def until(self, text: bytes, seconds: float = 10) -> bytes:
        end = time.monotonic() + seconds
        while text not in self.output:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            part = os.read(self._read, 4096) if ready else b""
            assert part, (text, self.output)
            self.output += part
        return self.output

    @property
    def init(self) -> int:
        """pid 1 as we see it: the only child of the process that made the namespaces."""
        children = Path(f"/proc/{self._outer}/task/{self._outer}/children")
        return int(children.read_text().split()[0])

    def wait(self, seconds: float = 20) -> int:
        if self._status is None:
            end = time.monotonic() + seconds
            while (gone := os.waitpid(self._outer, os.WNOHANG))[0] == 0:
                assert time.monotonic() < end, self.output
                time.sleep(0.005)
            status = gone[1]
            self._status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1000 + status
        return self._status

    def close(self) -> None:
        if self._status is None:
            try:
                os.kill(self.init, signal.SIGKILL)
            except (OSError, IndexError):
                os.kill(self._outer, signal.SIGKILL)
            self.wait()
        os.close(self._read)
        if self.master >= 0:
            os.close(self.master)


def _as_init(script: str, output: int, terminal: bool, probe: bool) -> NoReturn:
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    child = os.fork()
    if child:
        os.close(output)
        _, status = os.waitpid(child, 0)
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
    pid1.name(["sh", "-c", "…"])
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    os.dup2(output, 1)
    os.dup2(output, 2)
    if not terminal:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.set_inheritable(os.open("/", os.O_RDONLY), True)  # what careless code would leave open

    def execute() -> NoReturn:
        program = [sys.executable, "-c", script] if probe else ["/bin/sh", "-c", script]
        os.execv(program[0], program)

    pid1.supervise(execute)


@pytest.fixture
def inside(request: pytest.FixtureRequest) -> Iterator[list[Inside]]:
    made: list[Inside] = []
    yield made
    for one in made:
        one.close()


def start(
    made: list[Inside], script: str, *, terminal: bool = False, probe: bool = False
) -> Inside:
    made.append(Inside(script, terminal=terminal, probe=probe))
    return made[-1]


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_it_ends_as_its_child(inside: list[Inside], script: str, status: int) -> None:
    assert start(inside, script).wait() == status


def test_orphans_are_reaped_while_the_workload_runs(inside: list[Inside]) -> None:
    script = "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done; sleep 0.6; ps -eo stat= | grep -c Z; :"
    one = start(inside, script)
    assert one.wait() == 0
    assert one.until(b"\n") == b"0\n"


def test_what_outlives_the_workload_ends_with_it(inside: list[Inside]) -> None:
    started = time.monotonic()
    assert start(inside, "sleep 30 & exit 3").wait() == 3
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_forwarded(inside: list[Inside], number: int) -> None:
    script = f"trap 'echo got; exit 42' {number}; echo ready; while :; do sleep 0.05; done"
    one = start(inside, script)
    one.until(b"ready")
    os.kill(one.init, number)
    assert one.wait() == 42
    assert b"got" in one.until(b"got")


def test_a_workload_without_a_handler_dies_of_a_forwarded_signal(inside: list[Inside]) -> None:
    # Bare pid 1 would ignore it: that is what --init is for.
    one = start(inside, "echo ready; exec sleep 30")
    one.until(b"ready")
    os.kill(one.init, signal.SIGTERM)
    assert one.wait() == 143


def test_the_workload_begins_with_no_signal_blocked(inside: list[Inside]) -> None:
    one = start(inside, "exec grep SigBlk /proc/self/status")
    assert one.until(b"\n").split() == [b"SigBlk:", b"0000000000000000"]


def test_nothing_of_the_host_can_be_reached_through_pid_1(inside: list[Inside]) -> None:
    # As root of the namespace with all capabilities in it, CAP_SYS_PTRACE among them.
    script = """
import ctypes, os
for name in ("exe", "root", "cwd", "maps", "mem", "environ", "auxv", "ns/net"):
    try:
        os.open("/proc/1/" + name, os.O_RDONLY)
    except PermissionError:
        print(name)
print(*os.listdir("/proc/1/fd"))
libc = ctypes.CDLL(None, use_errno=True)
print("ptrace", libc.ptrace(16, 1, 0, 0))
print(open("/proc/1/cmdline", "rb").read().rstrip(b"\\0"))
print(open("/proc/1/comm").read().strip())
print(open("/proc/1/status").read().count("State:"), "end")
"""
    one = start(inside, script, probe=True)
    lines = one.until(b"end\n").decode().splitlines()
    assert lines == [
        *("exe", "root", "cwd", "maps", "mem", "environ", "auxv", "ns/net", ""),
        "ptrace -1",
        repr(b"docker-init\x00--\x00sh\x00-c\x00\xe2\x80\xa6"),
        "docker-init",
        "1 end",
    ]


def test_it_holds_no_descriptor(inside: list[Inside]) -> None:
    one = start(inside, "echo ready; exec >&- 2>&-; sleep 30")
    one.until(b"ready")
    # The readers see the end of the streams although init lives.
    assert os.read(one._read, 10) == b""
    assert os.listdir(f"/proc/{one.init}/fd") == []


def test_a_terminal_has_the_workload_in_its_foreground(inside: list[Inside]) -> None:
    script = (
        "import os, signal, sys, time\n"
        "print('foreground', os.tcgetpgrp(0) == os.getpgrp(), os.getsid(0) != os.getpid())\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('interrupted'), sys.exit(5)))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.02)\n"
    )
    one = start(inside, script, terminal=True, probe=True)
    assert b"foreground True True" in one.until(b"ready")
    os.write(one.master, b"\x03")
    assert one.wait() == 5
    one.until(b"interrupted")


def test_a_workload_that_cannot_be_executed_ends_it(inside: list[Inside]) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:

        def execute() -> NoReturn:
            raise FileNotFoundError("no such program")

        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        pid1.supervise(execute)
    os.close(write)
    os.close(read)
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 127
