"""Bytes between a container and whatever a shell puts at the client's ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.e2e.engines import Engine


def read_until(fd: int, wanted: bytes, seconds: float = 10) -> bytes:
    """What `fd` gave until `wanted` was in it; AssertionError with what there was when it never came."""
    seen = b""
    end = time.monotonic() + seconds
    while wanted not in seen:
        ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        if not ready:
            raise AssertionError(f"{wanted!r} never came: {seen!r}")
        try:
            part = os.read(fd, 65536)
        except OSError:
            part = b""
        if not part:
            raise AssertionError(f"the end came before {wanted!r}: {seen!r}")
        seen += part
    return seen


def test_output_appends_to_a_file_that_others_write(engine: Engine, folder: Path) -> None:
    out = folder / "out"
    script = f"(echo before; {engine.shell('run', '--rm', engine.image, 'echo', 'inside')}; echo after) >>{out}"
    subprocess.run(["sh", "-c", script], check=True, timeout=60, **engine.popen_as())
    assert out.read_text() == "before\ninside\nafter\n"


def test_a_reader_that_stops_early_ends_the_run(engine: Engine) -> None:
    name = engine.name()
    command = engine.shell(
        "run", "--rm", "--name", name, engine.image, "sh", "-c", "while echo y; do :; done"
    )
    result = subprocess.run(
        ["sh", "-c", f"{command} | head -1"],
        stdout=subprocess.PIPE,
        timeout=60,
        **engine.popen_as(),
    )
    engine.cli("rm", "-f", name)  # the container goes on, as docker's does
    assert result.stdout == b"y\n"


def test_run_i_in_a_loop_reads_what_docker_reads(engine: Engine) -> None:
    command = engine.shell("run", "--rm", "-i", engine.image, "cat")
    result = subprocess.run(
        ["sh", "-c", f"printf 'a\\nb\\nc\\n' | while read x; do echo got $x; {command}; done"],
        stdout=subprocess.PIPE, timeout=60, **engine.popen_as(),
    )  # fmt: skip
    assert result.stdout == b"got a\nb\nc\n"


def test_a_folder_as_stdin_is_empty_to_a_container_and_an_error_to_a_reader(engine: Engine) -> None:
    def with_folder(*args: str) -> tuple[int, bytes]:
        done = subprocess.run(
            ["sh", "-c", f"{engine.shell(*args)} </"],
            stdout=subprocess.PIPE, timeout=60, **engine.popen_as(),
        )  # fmt: skip
        return done.returncode, done.stdout

    assert with_folder("run", "--rm", "-i", engine.image, "sh", "-c", "cat; echo over") == (
        0,
        b"over\n",
    )
    assert with_folder("import", "-")[0] == 1


def test_a_killed_client_lets_the_substitution_around_it_end(engine: Engine) -> None:
    name = engine.name()
    process = engine.start(
        "run", "--name", name, engine.image, "sh", "-c", "echo up; sleep 60", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up")
    os.kill(process.pid, signal.SIGKILL)
    began = time.monotonic()
    assert process.stdout.read() == b""
    assert time.monotonic() - began < 5
    process.wait()
    assert engine.cli("inspect", "-f", "{{.State.Running}}", name).out == "true\n"
    engine.cli("rm", "-f", name)


def test_large_output_arrives_whole(engine: Engine) -> None:
    size = (
        2 << 30 if engine.is_dockpy else 64 << 20
    )  # docker takes a minute for what takes us seconds
    process = engine.start(
        "run",
        "--rm",
        "-i",
        engine.image,
        "cat",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin is not None and process.stdout is not None
    block = os.urandom(1 << 20)
    child = os.fork()
    if child == 0:
        process.stdout.close()
        for _ in range(size >> 20):
            view = memoryview(block)
            while view:
                view = view[process.stdin.write(view) :]
        os._exit(0)
    process.stdin.close()
    received = 0
    whole = True
    carry = b""
    while True:
        part = process.stdout.read(1 << 20)
        if not part:
            break
        received += len(part)
        carry += part
        while len(carry) >= len(block):
            whole = whole and carry[: len(block)] == block
            carry = carry[len(block) :]
    os.waitpid(child, 0)
    assert process.wait(60) == 0
    assert (received, whole) == (size, True)


def test_a_stalled_reader_stalls_only_its_container(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker 20.10 never answers a kill of a container whose client does not read")
    stalled, other = engine.name(), engine.name()
    process = engine.start(
        "run",
        "--name",
        stalled,
        engine.image,
        "sh",
        "-c",
        "while :; do echo 0123456789; done",
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    time.sleep(2)  # its pipe is full by now, and nobody reads
    assert engine.cli("run", "--rm", "--name", other, engine.image, "echo", "fine").out == "fine\n"
    began = time.monotonic()
    assert engine.cli("kill", stalled).code == 0
    assert engine.cli("wait", stalled).out == "137\n"
    assert time.monotonic() - began < 10
    process.kill()
    process.stdout.close()
    process.wait()
    engine.cli("rm", "-f", stalled)


@pytest.fixture
def terminal() -> object:
    pair = pty.openpty()
    yield pair
    for fd in pair:
        try:
            os.close(fd)
        except OSError:
            pass


def test_a_terminal_inside_is_a_terminal(engine: Engine, terminal: tuple[int, int]) -> None:
    outer, inner = terminal
    process = engine.start(
        "run", "--rm", "-it", engine.image, "sh", stdin=inner, stdout=inner, stderr=inner
    )
    os.write(outer, b"tty; stty size; echo e''nd\n")
    seen = read_until(outer, b"end\r\n")
    assert b"/dev/pts/0" in seen or b"/dev/console" in seen
    os.write(outer, b"exit 4\n")
    assert process.wait(20) == 4


def test_detach_keys_leave_the_container(engine: Engine, terminal: tuple[int, int]) -> None:
    outer, inner = terminal
    name = engine.name()
    process = engine.start(
        "run", "--name", name, "-it", engine.image, "sh", stdin=inner, stdout=inner, stderr=inner
    )
    os.write(outer, b"echo re''ady\n")
    read_until(outer, b"ready\r\n")
    os.write(outer, b"\x10\x11")
    process.wait(20)
    assert engine.cli("inspect", "-f", "{{.State.Running}}", name).out == "true\n"
    engine.cli("rm", "-f", name)


def test_nothing_of_ours_takes_the_place_of_a_closed_stream(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("what docker does then differs by version")
    line = engine.shell(
        "run", "--rm", "-i", engine.image, "sh", "-c", "wc -c >&2; echo out; exit 7"
    )
    for closed, err in (("<&-", "0\n"), (">&-", "0\n"), ("<&- >&-", "0\n"), ("<&- >&- 2>&-", "")):
        done = subprocess.run(
            ["/bin/sh", "-c", f"{line} {closed}"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, **engine.popen_as()
        )  # fmt: skip
        said = done.stderr.decode().splitlines(keepends=True)[-1:]
        assert (done.returncode, "".join(said)) == (7, err), closed


def test_output_that_a_full_disk_does_not_take_is_a_failure(engine: Engine) -> None:
    with open("/dev/full", "wb") as full:
        process = engine.start("run", "--rm", engine.image, "echo", "hi", stdout=full, stderr=subprocess.PIPE)  # fmt: skip
        assert b"write /dev/stdout: no space left on device" in process.communicate(timeout=20)[1]
    assert process.returncode == 1


def test_the_third_interrupt_ends_the_client_whatever_the_container_does(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker's clients of old go on; 28 ends as this")
    name = engine.name()
    script = "trap : INT; echo up; while :; do sleep 0.1; done"
    process = engine.start("run", "--name", name, engine.image, "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up")
    for _ in range(3):
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    assert b"got 3 SIGTERM/SIGINTs, forcefully exiting" in process.communicate(timeout=10)[1]
    assert process.returncode == 1
    with open("/dev/full", "wb") as full:
        lost = engine.start("exec", name, "echo", "hi", stdout=full)
        assert lost.wait(10) == 1
    engine.cli("rm", "-f", name)


def test_t_without_a_terminal_is_refused(engine: Engine) -> None:
    result = engine.cli("run", "--rm", "-it", engine.image, "true", input=b"")
    assert result.code == 1
    assert "the input device is not a TTY" in result.err


def test_signals_reach_the_container(engine: Engine) -> None:
    script = "trap 'echo caught; exit 6' TERM; echo up; while :; do sleep 0.1; done"
    process = engine.start("run", "--rm", engine.image, "sh", "-c", script, stdout=subprocess.PIPE)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == b"caught\n"
    assert process.wait(20) == 6


def test_two_attached_clients_get_the_same_bytes(engine: Engine) -> None:
    name = engine.name()
    engine.cli("create", "--name", name, "-i", engine.image, "sh", "-c", "read x; echo got $x")
    first = engine.start("start", "-ai", name, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 10
    while engine.cli("inspect", "-f", "{{.State.Running}}", name).out != "true\n":
        assert time.monotonic() < deadline
    second = engine.start("attach", "--no-stdin", name, stdout=subprocess.PIPE)
    time.sleep(1)
    assert first.stdin is not None
    first.stdin.write(b"word\n")
    first.stdin.close()
    assert first.stdout is not None and second.stdout is not None
    assert first.stdout.read() == b"got word\n"
    assert second.stdout.read() == b"got word\n"
    first.wait(20)
    second.wait(20)
    engine.cli("rm", "-f", name)


def test_a_client_that_never_reads_holds_up_no_exit_and_its_end_frees_the_others(
    engine: Engine,
) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker 20.10 leaves the other client waiting")
    name = engine.name()
    script = "read go; i=0; while [ $i -lt 60000 ]; do echo $i is the number of this line; i=$((i+1)); done"
    engine.cli("create", "--name", name, "-i", engine.image, "sh", "-c", script)
    feeder = engine.start("start", "-ai", name, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while engine.cli("inspect", "-f", "{{.State.Running}}", name).out != "true\n":
        assert time.monotonic() < deadline
    stalled = engine.start("attach", "--no-stdin", name, stdout=subprocess.PIPE)
    reading = engine.start("attach", "--no-stdin", name, stdout=subprocess.PIPE)
    time.sleep(1)
    assert feeder.stdin is not None and reading.stdout is not None
    feeder.stdin.write(b"go\n")
    feeder.stdin.close()
    time.sleep(1)
    stalled.kill()
    expected = "".join(f"{i} is the number of this line\n" for i in range(60000)).encode()
    assert reading.stdout.read() == expected
    assert stalled.stdout is not None
    stalled.stdout.close()
    for process in (feeder, stalled, reading):
        process.wait(20)
    assert engine.cli("logs", name).out.encode() == expected
    engine.cli("rm", "-f", name)


def test_a_background_job_shares_its_terminal_with_the_shell(
    engine: Engine, terminal: tuple[int, int]
) -> None:
    outer, inner = terminal
    shell = subprocess.Popen(
        ["/bin/bash", "--norc", "--noediting", "-i"],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        **engine.popen_as({"PS1": "$ "}),
    )
    command = engine.shell("run", "--rm", engine.image, "sh", "-c", "sleep 1; echo from be''hind")
    os.write(outer, f"{command} &\n".encode())
    os.write(outer, b"echo in fro''nt\n")
    read_until(outer, b"in front")
    read_until(outer, b"from behind")
    os.write(outer, b"echo still he''re; exit 3\n")
    read_until(outer, b"still here")
    assert shell.wait(20) == 3
