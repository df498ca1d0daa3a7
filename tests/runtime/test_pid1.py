"""Our init as pid 1 of a real pid namespace."""

from __future__ import annotations

import errno
import os
import platform
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from dockpy.linux import credentials
from dockpy.linux.mounts import MS_PRIVATE, MS_REC, mount
from dockpy.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, unshare
from dockpy.linux.processes import PR_SET_NO_NEW_PRIVS, prctl
from dockpy.oci.seccomp import Seccomp, Syscall
from dockpy.runtime import bpf, pid1, pid1_code


class Inside:
    """A shell script below our init in namespaces of its own; `output` is its stdout and stderr."""

    def __init__(
        self, script: str, machine: str, *, terminal: bool = False, probe: bool = False
    ) -> None:
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
                _as_init(script, machine, write, terminal, probe)
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


def _as_init(script: str, machine: str, output: int, terminal: bool, probe: bool) -> NoReturn:
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

    pid1.supervise(execute, ["sh", "-c", "…"], machine)


class Starter:
    """Makes Insides whose init is of one kind, and ends them all."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.made: list[Inside] = []

    @property
    def small(self) -> bool:
        return self.machine == "x86_64"

    def __call__(self, script: str, *, terminal: bool = False, probe: bool = False) -> Inside:
        self.made.append(Inside(script, self.machine, terminal=terminal, probe=probe))
        return self.made[-1]


@pytest.fixture(params=["x86_64", "interpreter"])
def start(request: pytest.FixtureRequest) -> Iterator[Starter]:
    if request.param == "x86_64" and platform.machine() != "x86_64":
        pytest.skip("the small init is x86-64 code")
    starter = Starter(request.param)
    yield starter
    for one in starter.made:
        one.close()


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_it_ends_as_its_child(start: Starter, script: str, status: int) -> None:
    assert start(script).wait() == status


def test_orphans_are_reaped_while_the_workload_runs(start: Starter) -> None:
    script = "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done; sleep 0.6; ps -eo stat= | grep -c Z; :"
    one = start(script)
    assert one.wait() == 0
    assert one.until(b"\n") == b"0\n"


def test_what_outlives_the_workload_ends_with_it(start: Starter) -> None:
    started = time.monotonic()
    assert start("sleep 30 & exit 3").wait() == 3
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_forwarded(start: Starter, number: int) -> None:
    script = f"trap 'echo got; exit 42' {number}; echo ready; while :; do sleep 0.05; done"
    one = start(script)
    one.until(b"ready")
    os.kill(one.init, number)
    assert one.wait() == 42
    assert b"got" in one.until(b"got")


def test_a_workload_without_a_handler_dies_of_a_forwarded_signal(start: Starter) -> None:
    # Bare pid 1 would ignore it: that is what --init is for.
    one = start("echo ready; exec sleep 30")
    one.until(b"ready")
    os.kill(one.init, signal.SIGTERM)
    assert one.wait() == 143


def test_the_workload_begins_with_no_signal_blocked(start: Starter) -> None:
    one = start("exec grep SigBlk /proc/self/status")
    assert one.until(b"\n").split() == [b"SigBlk:", b"0000000000000000"]


PROBE = """
import ctypes, os
for name in ("exe", "root", "cwd", "maps", "mem", "environ", "auxv", "ns/net"):
    try:
        os.open("/proc/1/" + name, os.O_RDONLY)
    except PermissionError:
        print(name)
print(*os.listdir("/proc/1/fd"))
print("ptrace", ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0))
try:
    print(os.readlink("/proc/1/exe"), end=" ")
    print(*{line.split(None, 5)[5].strip() for line in open("/proc/1/maps") if "/" in line})
    os.open("/proc/1/exe", os.O_WRONLY)
except OSError as error:
    print(error.strerror)
print(open("/proc/1/cmdline", "rb").read().rstrip(b"\\0"))
print(open("/proc/1/comm").read().strip())
print(open("/proc/1/status").read().count("State:"), "end")
"""
HIDDEN = ("exe", "root", "cwd", "maps", "mem", "environ", "auxv", "ns/net")


def test_nothing_of_the_host_can_be_reached_through_pid_1(start: Starter) -> None:
    """As root of the namespace with all capabilities in it, CAP_SYS_PTRACE among them."""
    lines = start(PROBE, probe=True).until(b"end\n").decode().splitlines()
    if start.small:
        # Everything may be looked at: there is nothing but the 168 bytes, and they are sealed.
        exe = "/memfd:docker-init (deleted)"
        assert lines[:4] == ["", "ptrace 0", f"{exe} {exe}", "Text file busy"]
    else:
        assert lines[:-3] == [*HIDDEN, "", "ptrace -1", "Permission denied"]
    assert lines[-3:] == [
        repr(b"docker-init\x00--\x00sh\x00-c\x00\xe2\x80\xa6"),
        "docker-init",
        "1 end",
    ]


def test_the_small_init_costs_next_to_nothing(start: Starter) -> None:
    if not start.small:
        pytest.skip("the interpreter costs what it costs")
    one = start("echo ready; exec sleep 30")
    one.until(b"ready")
    rollup = Path(f"/proc/{one.init}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 64


def test_the_small_init_is_what_an_assembler_makes_of_its_source(tmp_path: Path) -> None:
    if shutil.which("as") is None or shutil.which("objcopy") is None:
        pytest.skip("no binutils here")
    source, made, code = tmp_path / "init.s", tmp_path / "init.o", tmp_path / "init"
    source.write_text(pid1_code.SOURCE)
    subprocess.run(["as", "--64", str(source), "-o", str(made)], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(made), str(code)], check=True)
    assert code.read_bytes() == pid1_code.CODE


@pytest.mark.parametrize("name", ["memfd_create", "execveat"])
def test_where_the_small_init_cannot_be_executed_the_interpreter_goes_on(name: str) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        refused = Syscall((name,), "SCMP_ACT_ERRNO", (), errno.EPERM)
        code = bpf.program(Seccomp("SCMP_ACT_ALLOW", (), (refused,)))
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        credentials.seccomp(credentials.SECCOMP_SET_MODE_FILTER, 0, code)

        def execute() -> NoReturn:
            os.execv("/bin/sh", ["sh", "-c", "exit 4"])

        pid1.supervise(execute, ["x"])
    os.close(write)
    os.close(read)
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 4


def test_a_filter_without_rt_sigtimedwait_does_not_make_it_spin() -> None:
    pid = os.fork()
    if pid == 0:
        refused = Syscall(("rt_sigtimedwait",), "SCMP_ACT_ERRNO", (), errno.EPERM)
        code = bpf.program(Seccomp("SCMP_ACT_ALLOW", (), (refused,)))
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        credentials.seccomp(credentials.SECCOMP_SET_MODE_FILTER, 0, code)

        def execute() -> NoReturn:
            os.execv("/bin/sh", ["sh", "-c", "sleep 0.5; exit 6"])

        pid1.supervise(execute, ["x"], "x86_64")
    _, status, usage = os.wait4(pid, 0)
    assert os.WEXITSTATUS(status) == 6
    assert usage.ru_utime + usage.ru_stime < 0.3


def test_it_holds_no_descriptor(start: Starter) -> None:
    one = start("echo ready; exec >&- 2>&-; sleep 30")
    one.until(b"ready")
    # The readers see the end of the streams although init lives.
    assert os.read(one._read, 10) == b""
    deadline = time.monotonic() + 5  # the highest are closed last, a moment after the streams
    while (left := os.listdir(f"/proc/{one.init}/fd")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []


def test_a_terminal_has_the_workload_in_its_foreground(start: Starter) -> None:
    script = (
        "import os, signal, sys, time\n"
        "print('foreground', os.tcgetpgrp(0) == os.getpgrp(), os.getsid(0) != os.getpid())\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('interrupted'), sys.exit(5)))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.02)\n"
    )
    one = start(script, terminal=True, probe=True)
    assert b"foreground True True" in one.until(b"ready")
    os.write(one.master, b"\x03")
    assert one.wait() == 5
    one.until(b"interrupted")


def test_a_workload_that_cannot_be_executed_ends_it() -> None:
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
