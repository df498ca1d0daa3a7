"""Streams with real pipes, files, sockets and terminals; stalled, vanished and greedy clients."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import signal
import socket
import struct
import termios
import time
import tty
from pathlib import Path

import pytest

from dockpy.shim.protocol import Attachment, LogConfig, Reply
from dockpy.shim.stdin import DetachKeys, parse_keys
from tests.shim.harness import (
    client,
    frames,
    in_thread,
    read_all,
    read_until,
    start_shim,
    started,
)

NO_LOG = LogConfig("none")


def reopened(fd: int) -> int:
    """As our client does it: an open file of its own, so that O_NONBLOCK is nobody else's."""
    return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def test_frames_on_the_connection_and_its_end(tmp_path: Path) -> None:
    ours, attachment = client()
    shim = started(
        tmp_path, "sh", "-c", "echo o; sleep 0.05; echo e >&2; exit 3", attachments=(attachment,)
    )
    assert frames(read_all(ours)) == [(1, b"o\n"), (2, b"e\n")]
    assert shim.code() == 3
    assert shim.log() == b"o\ne\n"
    assert shim.ended()


def test_only_the_streams_that_were_asked_for(tmp_path: Path) -> None:
    ours, attachment = client(stdout=False)
    started(tmp_path, "sh", "-c", "echo o; echo e >&2", attachments=(attachment,))
    assert frames(read_all(ours)) == [(2, b"e\n")]


def test_an_appended_file_keeps_what_it_had(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"before\n")
    fd = os.open(target, os.O_WRONLY | os.O_APPEND)
    ours, attachment = client(stdout_fd=fd)
    started(tmp_path, "seq", "3", attachments=(attachment,))
    assert read_all(ours) == b""
    assert target.read_bytes() == b"before\n1\n2\n3\n"


def test_a_file_shared_by_both_streams_has_one_offset(tmp_path: Path) -> None:
    target = tmp_path / "out"
    fd = os.open(target, os.O_WRONLY | os.O_CREAT)
    ours, attachment = client(stdout_fd=fd, stderr_fd=os.dup(fd))
    started(tmp_path, "sh", "-c", "echo 1; sleep 0.05; echo 2 >&2", attachments=(attachment,))
    assert read_all(ours) == b""
    assert target.read_bytes() == b"1\n2\n"


@pytest.mark.parametrize("log", [NO_LOG, None], ids=["splice", "copy"])
def test_a_pipe_gets_every_byte_and_its_flags_stay(tmp_path: Path, log: LogConfig | None) -> None:
    reading, writing = os.pipe()
    ours, attachment = client(stdout_fd=reopened(writing))
    options = {} if log is None else {"log": log}
    shim = started(tmp_path, "seq", "200000", attachments=(attachment,), **options)
    os.close(writing)
    expected = b"".join(b"%d\n" % number for number in range(1, 200001))
    assert read_all(reading) == expected
    assert read_all(ours) == b""
    assert shim.code() == 0
    if log is None:
        assert shim.log() == expected


def test_a_blocking_pipe_is_served_without_waiting_and_without_changing_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    kept = os.dup(writing)
    ours, attachment = client(stdout_fd=writing)
    shim = started(
        tmp_path, "sh", "-c", "seq 100000; echo end >&2; sleep 60", attachments=(attachment,)
    )
    time.sleep(0.3)
    # The pipe is full and nobody reads; the shim still answers.
    shim.link.state()
    shim.hear(Reply, 2)
    assert os.get_blocking(kept)
    read_until(reading, b"100000\n")
    assert (2, b"end\n") in frames(read_until(ours, b"end\n"))
    assert os.get_blocking(kept)
    shim.link.kill(signal.SIGKILL)


def test_a_socket_as_stdout(tmp_path: Path) -> None:
    mine, theirs = socket.socketpair()
    ours, attachment = client(stdout_fd=theirs.detach())
    started(tmp_path, "seq", "50000", attachments=(attachment,))
    assert read_all(mine).endswith(b"\n50000\n")
    assert read_all(ours) == b""


def test_dev_null_as_every_stream(tmp_path: Path) -> None:
    fds = [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
    ours, attachment = client(stdin=True, stdin_fd=fds[0], stdout_fd=fds[1], stderr_fd=fds[2])
    shim = started(
        tmp_path,
        "sh",
        "-c",
        "cat; seq 100000; seq 100000 >&2",
        open_stdin=True,
        stdin_once=True,
        attachments=(attachment,),
    )
    assert read_all(ours) == b""
    assert shim.code() == 0


def test_head_closes_the_pipe_and_the_container_goes_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    ours, attachment = client(stdout_fd=reopened(writing))
    os.close(writing)
    shim = started(tmp_path, "seq", "300000", attachments=(attachment,))
    os.read(reading, 10)
    os.close(reading)
    assert shim.code() == 0
    assert shim.log().endswith(b"\n300000\n")
    assert read_all(ours) == b""


def test_a_vanished_client_loses_its_sinks_at_once_even_in_mid_write(tmp_path: Path) -> None:
    """`$(dockpy run … yes)` whose client is killed by -9: the shell must see the end of the pipe."""
    reading, writing = os.pipe()
    ours, attachment = client(stdout_fd=reopened(writing))
    os.close(writing)
    shim = started(tmp_path, "yes", attachments=(attachment,))
    time.sleep(0.3)  # pipe and queue are full
    ours.close()
    begun = time.monotonic()
    read_all(reading)
    assert time.monotonic() - begun < 2
    shim.link.kill(signal.SIGKILL)
    assert shim.code() == 137


def test_a_stalled_client_stops_neither_stop_nor_exit_nor_the_other_stream(tmp_path: Path) -> None:
    stalled, attachment = client(stderr=False)
    other, second = client(stdout=False)
    shim = started(
        tmp_path,
        "sh",
        "-c",
        "trap 'echo bye >&2; exit 5' TERM; echo ready >&2; while :; do seq 100000; done",
        attachments=(attachment, second),
    )
    read_until(other, b"ready\n")
    time.sleep(0.5)
    shim.link.kill(signal.SIGTERM)
    shim.link.kill(signal.SIGKILL)
    assert shim.code(3) in (5, 137)
    assert shim.exit_file()["code"] in (5, 137)
    # What it had not read is still delivered, then its end.
    assert len(read_all(stalled)) > 1 << 20
    assert shim.ended()


def test_a_stalled_client_slows_the_container_and_a_hang_up_sets_it_free(tmp_path: Path) -> None:
    stalled, attachment = client()
    reader, second = client()
    got: list[bytes] = []
    thread = in_thread(lambda: got.append(read_all(reader, 30)))
    shim = started(tmp_path, "sh", "-c", "seq 1000000", attachments=(attachment, second))
    time.sleep(0.7)
    assert 1 << 20 <= len(shim.log()) < 3 << 20  # a queue's bound, then the container waits
    stalled.close()
    assert shim.code(20) == 0
    thread.join(20)
    ((stream, text),) = frames(got[0])
    assert (stream, text) == (1, b"".join(b"%d\n" % number for number in range(1, 1000001)))


def test_a_client_that_never_reads_keeps_the_shim_but_not_the_exit(tmp_path: Path) -> None:
    stalled, attachment = client()
    # More than a socket holds, less than the queue does.
    shim = started(tmp_path, "sh", "-c", "seq 150000; exit 6", attachments=(attachment,))
    assert shim.code(5) == 6
    assert not shim.ended(0.3)
    stalled.close()
    assert shim.ended()


def test_stdin_over_the_connection_ends_by_half_close(tmp_path: Path) -> None:
    ours, attachment = client(stdin=True, early=b"early ")
    shim = started(tmp_path, "cat", open_stdin=True, stdin_once=True, attachments=(attachment,))
    ours.sendall(b"late")
    ours.shutdown(socket.SHUT_WR)
    assert frames(read_all(ours)) == [(1, b"early late")]
    assert shim.code() == 0


def test_stdin_that_was_sent_before_a_full_close_arrives(tmp_path: Path) -> None:
    ours, attachment = client(stdin=True)
    shim = start_shim(
        tmp_path,
        "sh",
        "-c",
        "sleep 0.2; wc -c",
        open_stdin=True,
        stdin_once=True,
        attachments=(attachment,),
    )
    ours.sendall(b"x" * 100_000)
    ours.close()
    assert shim.code() == 0
    assert shim.log().strip() == b"100000"


def test_stdin_as_a_pipe_of_the_client(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    ours, attachment = client(stdin=True, stdin_fd=reading)
    shim = started(tmp_path, "cat", open_stdin=True, stdin_once=True, attachments=(attachment,))
    data = os.urandom(3_000_000)

    def feed() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(writing, view) :]
        os.close(writing)

    in_thread(feed)
    assert b"".join(text for _, text in frames(read_all(ours))) == data
    assert shim.code() == 0


def test_stdin_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"z" * 500_000)
    ours, attachment = client(stdin=True, stdin_fd=os.open(tmp_path / "in", os.O_RDONLY))
    shim = started(
        tmp_path, "wc", "-c", open_stdin=True, stdin_once=True, attachments=(attachment,)
    )
    assert frames(read_all(ours)) == [(1, b"500000\n")]
    assert shim.code() == 0


def test_stdin_of_a_process_that_does_not_read_is_left_in_the_pipe(tmp_path: Path) -> None:
    """`while read line; do dockpy run -i … ; done`: no more is taken than pipes hold."""
    reading, writing = os.pipe()
    kept = os.dup(reading)
    fcntl.fcntl(writing, 1031, 1 << 20)
    os.write(writing, b"x" * (1 << 20))
    ours, attachment = client(stdin=True, stdin_fd=reading)
    shim = started(
        tmp_path, "sleep", "60", open_stdin=True, stdin_once=True, attachments=(attachment,)
    )
    time.sleep(0.3)
    left = struct.unpack("i", fcntl.ioctl(kept, termios.FIONREAD, b"\0" * 4))[0]
    assert left > 700_000
    shim.link.kill(signal.SIGKILL)
    assert shim.code() == 137
    assert read_all(ours) == b""


def test_without_open_stdin_it_is_dev_null(tmp_path: Path) -> None:
    ours, attachment = client(stdin=True)
    shim = started(tmp_path, "sh", "-c", "cat; readlink /proc/self/fd/0", attachments=(attachment,))
    assert frames(read_all(ours)) == [(1, b"/dev/null\n")]
    assert shim.code() == 0


def test_stdin_stays_open_for_later_clients_unless_once(tmp_path: Path) -> None:
    ours, attachment = client(stdin=True)
    shim = started(tmp_path, "cat", open_stdin=True, attachments=(attachment,))
    ours.sendall(b"one\n")
    read_until(ours, b"one\n")
    ours.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    second, attachment = client(stdin=True)
    shim.link.attach(attachment)
    os.close(attachment.conn)
    second.sendall(b"two\n")
    read_until(second, b"two\n")
    read_until(ours, b"two\n")
    shim.link.kill(signal.SIGKILL)
    assert shim.code() == 137


def test_a_client_that_vanishes_ends_stdin_once(tmp_path: Path) -> None:
    ours, attachment = client(stdin=True)
    shim = started(tmp_path, "cat", open_stdin=True, stdin_once=True, attachments=(attachment,))
    ours.close()
    assert shim.code() == 0


def test_a_process_that_closes_its_stdin_is_no_trouble(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    ours, attachment = client(stdin=True, stdin_fd=reading)
    shim = started(
        tmp_path,
        "sh",
        "-c",
        "exec <&-; sleep 0.3; echo alive",
        open_stdin=True,
        stdin_once=True,
        attachments=(attachment,),
    )
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with pytest.raises(OSError) as caught:  # the shim lets go of it, and so we hear of it
        for _ in range(200):
            os.write(writing, b"x" * 65536)
    assert caught.value.errno == errno.EPIPE
    assert frames(read_all(ours)) == [(1, b"alive\n")]
    assert shim.code() == 0


def terminal_client(**options: object) -> tuple[socket.socket, Attachment]:
    return client(stdin=True, stderr=False, framed=False, **options)


def test_a_terminal_has_its_size_and_can_be_resized(tmp_path: Path) -> None:
    ours, attachment = terminal_client()
    shim = started(
        tmp_path,
        "sh",
        "-c",
        "stty size; read x; stty size",
        tty=True,
        open_stdin=True,
        console_size=(40, 120),
        attachments=(attachment,),
    )
    read_until(ours, b"40 120\r\n")
    shim.link.resize(50, 80)
    shim.hear(Reply)
    ours.sendall(b"\n")
    assert read_all(ours).endswith(b"50 80\r\n")
    assert shim.code() == 0
    assert b"40 120\r\n" in shim.log()


def test_the_end_of_stdin_reaches_a_terminal_as_its_eof_character(tmp_path: Path) -> None:
    ours, attachment = terminal_client()
    shim = started(
        tmp_path,
        "sh",
        "-c",
        "cat; echo over",
        tty=True,
        open_stdin=True,
        stdin_once=True,
        attachments=(attachment,),
    )
    ours.sendall(b"line\n")
    read_until(ours, b"line\r\nline\r\n")
    ours.shutdown(socket.SHUT_WR)
    assert read_all(ours) == b"over\r\n"
    assert shim.code() == 0


def test_a_terminal_of_the_client_as_sink(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)
    fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    ours, attachment = client(stdout_fd=fd)
    shim = started(tmp_path, "seq", "20000", attachments=(attachment,))
    read_until(master, b"\n20000\n")
    assert read_all(ours) == b""
    assert shim.code() == 0
    assert os.get_blocking(slave)


def test_a_second_output_end_does_not_end_the_first(tmp_path: Path) -> None:
    ours, attachment = client()
    shim = started(tmp_path, "sh", "-c", "exec 2>&-; sleep 0.2; echo x", attachments=(attachment,))
    assert frames(read_all(ours)) == [(1, b"x\n")]
    assert shim.code() == 0


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_an_idle_shim_uses_no_time(tmp_path: Path) -> None:
    """A paused stream whose writer hangs up, a half-closed client: nothing may spin."""
    ours, attachment = client(stdin=True)
    quiet, second = client()
    shim = started(
        tmp_path,
        "sh",
        "-c",
        "seq 500000 & exec 1>&-; sleep 60",
        open_stdin=True,
        attachments=(attachment, second),
    )
    ours.shutdown(socket.SHUT_WR)
    time.sleep(0.5)

    before = ticks(shim.pid)
    time.sleep(1)
    assert ticks(shim.pid) - before <= 1
    quiet.close()
    shim.link.kill(signal.SIGKILL)


def test_a_full_stdin_uses_no_time(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ours, attachment = client(stdin=True, stdin_fd=reading)
    shim = started(
        tmp_path, "sleep", "60", open_stdin=True, stdin_once=True, attachments=(attachment,)
    )
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            os.write(writing, b"x" * 65536)
        time.sleep(0.01)
    before = ticks(shim.pid)
    time.sleep(1)
    assert ticks(shim.pid) - before <= 1
    ours.close()
    shim.link.kill(signal.SIGKILL)


def test_a_client_attached_late_gets_what_comes_then(tmp_path: Path) -> None:
    shim = started(tmp_path, "sh", "-c", "echo a; sleep 0.4; echo b")
    time.sleep(0.2)
    ours, attachment = client()
    shim.link.attach(attachment)
    os.close(attachment.conn)
    assert frames(read_all(ours)) == [(1, b"b\n")]
    assert shim.log() == b"a\nb\n"


def test_a_lingering_shim_refuses_new_clients(tmp_path: Path) -> None:
    stalled, attachment = client()
    shim = started(tmp_path, "seq", "150000", attachments=(attachment,))
    shim.code()
    ours, second = client()
    shim.link.attach(second)
    os.close(second.conn)
    assert read_all(ours) == b""
    stalled.close()
    assert shim.ended()


def test_detach_keys_are_found_across_reads_and_given_back_when_wrong() -> None:
    keys = DetachKeys("ctrl-p,ctrl-q")
    assert keys.filter(b"abc") == (b"abc", False)
    assert keys.filter(b"a\x10") == (b"a", False)
    assert keys.filter(b"b") == (b"\x10b", False)
    assert keys.filter(b"\x10\x10") == (b"\x10", False)
    assert keys.filter(b"\x11") == (b"", True)
    assert DetachKeys("").filter(b"\x10\x11") == (b"\x10\x11", False)


@pytest.mark.parametrize(
    ("spec", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-@,ctrl-_", b"\0\x1f"), ("ctrl-", b"")],
)
def test_detach_key_grammar(spec: str, keys: bytes) -> None:
    assert parse_keys(spec) == keys
