"""Exit codes, exit file, control socket, execs: the shim as a process."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from dockpy.http.stdcopy import EXIT
from dockpy.shim.loop import Loop
from dockpy.shim.protocol import (
    Detached,
    ExecExit,
    ExecFailed,
    ExecStarted,
    Exit,
    Failed,
    LogConfig,
    Refusal,
    Reply,
    ShimLink,
    Started,
)
from tests.shim.harness import CID, client, frames, in_thread, read_all, start_shim, started


def test_exit_code_is_told_and_written(tmp_path: Path) -> None:
    shim = start_shim(tmp_path, "sh", "-c", "exit 7")
    begun = shim.hear(Started)
    assert begun.shim == shim.pid
    assert shim.code() == 7
    record = shim.exit_file()
    assert (record["code"], record["boot"], record["oom"]) == (7, "boot", False)
    assert record["started"] <= record["finished"]
    assert shim.ended()
    assert not (tmp_path / "s.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_death_by_signal_is_128_and_its_number(tmp_path: Path, number: signal.Signals) -> None:
    shim = started(tmp_path, "sleep", "60")
    shim.link.kill(number)
    assert isinstance(shim.hear(Reply), Reply)
    assert shim.code() == 128 + number


def test_exit_file_is_there_before_the_event(tmp_path: Path) -> None:
    shim = started(tmp_path, "true")
    shim.hear(Exit)
    assert (shim.bundle / "exit.json").exists()


def test_an_exit_that_cannot_be_written_is_told_and_kept_until_it_can_be(tmp_path: Path) -> None:
    shim = start_shim(tmp_path, "sh", "-c", "sleep 0.1; exit 7")
    obstacle = shim.bundle / "exit.json"
    obstacle.mkdir()  # as good as a full disk
    shim.hear(Started)
    assert shim.code() == 7
    assert not shim.ended(0.2)
    shim.link.state()
    assert shim.hear(Reply).fields["code"] == 7
    obstacle.rmdir()
    assert shim.ended()
    assert shim.exit_file()["code"] == 7


def test_what_cannot_be_started_is_told_and_written(tmp_path: Path) -> None:
    ours, attachment = client()
    shim = start_shim(tmp_path, "no-such-program", attachments=(attachment,))
    failed = shim.hear(Failed)
    assert failed.code == 127
    assert "executable file not found in $PATH" in failed.message
    assert shim.exit_file()["error"] == failed.message
    assert read_all(ours) == b""
    assert shim.ended()


def test_shim_record_names_socket_and_init(tmp_path: Path) -> None:
    shim = start_shim(tmp_path, "sleep", "60")
    begun = shim.hear(Started)
    record = json.loads((shim.bundle / "shim.json").read_bytes())
    assert record["pid"] == shim.pid
    assert record["init"] == {"pid": begun.pid, "start": begun.start}
    assert record["socket"] == str(tmp_path / "s.sock")
    os.kill(begun.pid, signal.SIGKILL)


def test_shim_outlives_signals_that_end_programs(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "0.5")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        os.kill(shim.pid, number)
        # pytest's faulthandler gives handlers a small stack, which five at once overflow.
        time.sleep(0.01)
    assert shim.code() == 0


def test_exit_without_any_daemon_is_in_the_file_and_the_log_is_whole(tmp_path: Path) -> None:
    shim = started(tmp_path, "sh", "-c", "sleep 0.2; seq 1 5000; exit 3")
    shim.link.close()
    assert shim.ended()
    assert shim.exit_file()["code"] == 3
    assert shim.log() == b"".join(b"%d\n" % number for number in range(1, 5001))


def test_a_later_daemon_asks_for_the_state(tmp_path: Path) -> None:
    shim = start_shim(tmp_path, "sleep", "60")
    begun = shim.hear(Started)
    shim.link.close()
    shim.link = ShimLink.connect(str(tmp_path / "s.sock"))
    shim.link.state()
    fields = shim.hear(Reply).fields
    assert (fields["pid"], fields["start"], fields["code"]) == (begun.pid, begun.start, None)
    shim.link.kill(signal.SIGKILL)
    assert shim.code() == 137


def test_an_exec_that_ended_unheard_is_in_the_state(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    shim.link.exec("e1", {"args": ["sh", "-c", "sleep 0.2; exit 5"]})
    shim.hear(ExecStarted)
    shim.link.close()
    time.sleep(0.5)
    shim.link = ShimLink.connect(str(tmp_path / "s.sock"))
    shim.link.state()
    assert shim.hear(Reply).fields["execs"]["e1"]["code"] == 5
    shim.link.state()
    assert shim.hear(Reply).fields["execs"] == {}
    shim.link.kill(signal.SIGKILL)


def test_a_daemon_that_does_not_read_stops_nothing(tmp_path: Path) -> None:
    shim = started(tmp_path, "sh", "-c", "sleep 0.5; echo done")
    second = ShimLink.connect(str(tmp_path / "s.sock"))
    for _ in range(300):
        try:
            second.state()
        except BlockingIOError:
            break
    assert shim.code() == 0
    assert shim.log() == b"done\n"


def test_a_deleted_socket_is_made_again_on_sighup(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    (tmp_path / "s.sock").unlink()
    shim.link.close()
    shim.link = ShimLink.reach(str(tmp_path / "s.sock"), shim.pid)
    shim.link.kill(signal.SIGKILL)
    assert shim.code() == 137
    assert shim.ended()
    assert not (tmp_path / "s.sock").exists()


def test_exec_has_its_own_streams_and_exit(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    ours, attachment = client()
    shim.link.exec(
        "e1",
        {"args": ["sh", "-c", "echo out; sleep 0.05; echo err >&2; exit 9"]},
        attachments=(attachment,),
    )
    os.close(attachment.conn)
    pid = shim.hear(ExecStarted).pid
    assert shim.hear(Reply).fields["pid"] == pid
    assert frames(read_all(ours)) == [(1, b"out\n"), (2, b"err\n")]
    assert shim.hear(ExecExit) == ExecExit("e1", 9)
    assert shim.log() == b""
    shim.link.kill(signal.SIGKILL)
    assert shim.ended()


def test_a_client_that_asks_is_told_the_exit_code_at_the_end(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    ours, attachment = client()
    attachment.exit = True
    shim.link.exec("e1", {"args": ["sh", "-c", "echo out; exit 9"]}, attachments=(attachment,))
    os.close(attachment.conn)
    assert frames(read_all(ours)) == [(1, b"out\n"), (EXIT, b"\x09")]
    shim.link.kill(signal.SIGKILL)


def test_exec_stdin_ends_with_its_client(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    ours, attachment = client(stdin=True, early=b"first ")
    shim.link.exec("e1", {"args": ["cat"]}, attachments=(attachment,))
    os.close(attachment.conn)
    ours.sendall(b"second")
    ours.shutdown(socket.SHUT_WR)
    assert frames(read_all(ours)) == [(1, b"first second")]
    assert shim.hear(ExecExit).code == 0
    shim.link.kill(signal.SIGKILL)


def test_exec_that_cannot_start_says_so_in_the_stream(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    ours, attachment = client()
    shim.link.exec("e1", {"args": ["nothing-here"]}, attachments=(attachment,))
    os.close(attachment.conn)
    assert shim.hear(ExecFailed).code == 127
    assert "not found in $PATH" in shim.hear(Refusal).error
    ((stream, text),) = frames(read_all(ours))
    assert stream == 1
    assert text.endswith(b"executable file not found in $PATH\r\n")
    shim.link.kill(signal.SIGKILL)


def test_exec_that_leaves_a_writer_behind_ends_after_a_while(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    ours, attachment = client()
    shim.link.exec("e1", {"args": ["sh", "-c", "sleep 60 & echo gone"]}, attachments=(attachment,))
    os.close(attachment.conn)
    begun = time.monotonic()
    assert shim.hear(ExecExit).code == 0
    assert time.monotonic() - begun < 1
    assert frames(read_all(ours)) == [(1, b"gone\n")]
    assert 1.5 < time.monotonic() - begun < 4
    shim.link.kill(signal.SIGKILL)
    assert shim.ended()


def test_orphans_of_the_container_die_with_it(tmp_path: Path) -> None:
    shim = started(tmp_path, "sh", "-c", "sleep 77 & echo $!; (setsid sh -c 'sleep 77 & wait' &)")
    assert shim.code() == 0
    assert shim.ended()
    pid = int(shim.log())
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.01)


def test_bad_requests_are_refused_one_by_one(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    for op, kind in (("nonsense", "invalid"), ("kill", "invalid"), ("exec", "invalid")):
        shim.link._request(op, {})
        assert shim.hear(Refusal).kind == kind
    shim.link.kill(9, exec_id="nobody")
    assert shim.hear(Refusal).kind == "not-found"
    shim.link.kill(signal.SIGKILL)
    assert shim.code() == 137


def test_a_large_exec_request_arrives(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    ours, attachment = client()
    words = ["sh", "-c", "echo $#", *("x" * 1000 for _ in range(500))]
    shim.link.exec("e1", {"args": words}, attachments=(attachment,))
    os.close(attachment.conn)
    assert frames(read_all(ours)) == [(1, b"499\n")]
    shim.link.kill(signal.SIGKILL)


def test_followers_hear_when_the_log_grows_and_when_it_ends(tmp_path: Path) -> None:
    shim = started(tmp_path, "sh", "-c", "sleep 0.3; echo x; sleep 0.3")
    shim.link.grown((0, 0))
    begun = time.monotonic()
    shim.hear(Reply)
    assert time.monotonic() - begun > 0.1
    assert shim.log() == b"x\n"
    shim.link.grown((0, 0))
    shim.hear(Reply)
    shim.link.grown((0, 1))
    shim.hear(Reply)
    assert shim.hear(Exit).code == 0


def test_detach_keys_close_that_client_only(tmp_path: Path) -> None:
    ours, attachment = client(stdin=True, framed=False, detach_keys="ctrl-p,ctrl-q")
    other, second = client(stdin=True, framed=False)
    shim = started(tmp_path, "cat", tty=True, open_stdin=True, attachments=(attachment, second))
    ours.sendall(b"a\x10b\n\x10")
    time.sleep(0.05)
    ours.sendall(b"\x11never\n")
    assert shim.hear(Detached).exec is None
    assert b"never" not in read_all(ours)
    other.sendall(b"still\n")
    said = b""
    while said.count(b"still") < 2:
        said += other.recv(1000)
    shim.link.kill(signal.SIGKILL)
    assert shim.code() == 137


def test_title_shows_role_and_container(tmp_path: Path) -> None:
    shim = started(tmp_path, "sleep", "60")
    assert Path(f"/proc/{shim.pid}/comm").read_text() == "dockpy-shim\n"
    shim.link.state()
    shim.hear(Reply)
    assert CID[:12].encode() in Path(f"/proc/{shim.pid}/cmdline").read_bytes()
    shim.link.kill(signal.SIGKILL)


def test_json_file_and_none_drivers(tmp_path: Path) -> None:
    log = LogConfig("json-file", max_size=0, max_file=1)
    shim = started(tmp_path, "sh", "-c", "printf 'a<b\\nrest'; sleep 0.05; echo e >&2", log=log)
    assert shim.code() == 0
    lines = (shim.bundle / f"{CID}-json.log").read_bytes().splitlines()
    assert lines[0].startswith(b'{"log":"a\\u003cb\\n","stream":"stdout","time":"')
    assert {(json.loads(line)["log"], json.loads(line)["stream"]) for line in lines} == {
        ("a<b\n", "stdout"),
        ("rest", "stdout"),
        ("e\n", "stderr"),
    }
    shim.ended()
    shim = started(tmp_path, "echo", "x", log=LogConfig("none"))
    assert shim.code() == 0
    assert not (shim.bundle / "log").exists()


def test_a_timer_that_is_far_away_disturbs_no_rest() -> None:
    loop = Loop()
    loop.after(60, lambda: None)
    assert not loop.turn(10)
    loop.after(0.005, lambda: None)
    assert loop.turn(1000)


def test_a_shim_rests_once_until_something_happens(tmp_path: Path) -> None:
    read, write = os.pipe()
    shim = started(tmp_path, "sleep", "30", rest=write)
    os.close(write)
    assert os.read(read, 9) == b"z"
    assert not select.select([read], [], [], 0.3)[0]
    shim.link.kill(signal.SIGKILL)
    assert shim.code() == 137
    assert shim.ended()
    os.close(read)


def test_many_writers_and_a_kill_at_any_instant_lose_no_byte_that_was_read(tmp_path: Path) -> None:
    shim = started(tmp_path, "sh", "-c", "for i in $(seq 1 300); do echo $i; done; exit 4")
    in_thread(shim.link.close)
    assert shim.ended()
    assert shim.log().split() == [b"%d" % number for number in range(1, 301)]
    assert shim.exit_file()["code"] == 4


def test_when_its_time_is_over_the_stop_signal_comes_first_and_the_code_is_124(
    tmp_path: Path,
) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.02; done"
    shim = started(tmp_path, "sh", "-c", script, timeout=0.3)
    shim.link.close()  # no daemon is needed
    assert shim.ended()
    record = shim.exit_file()
    assert (record["code"], record["error"]) == (124, "its time (--timeout 0.3s) was over")
    assert shim.log() == b"up\nbye\n"


def test_what_does_not_heed_its_stop_signal_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; while :; do sleep 0.02; done"
    shim = started(tmp_path, "sh", "-c", script, timeout=0.1, stop_timeout=0.2)
    told = shim.hear(Exit)
    assert (told.code, told.error) == (124, "its time (--timeout 0.1s) was over")


def test_a_process_that_ends_in_time_has_its_own_code(tmp_path: Path) -> None:
    shim = started(tmp_path, "sh", "-c", "exit 7", timeout=60.0, lease=False)
    assert (shim.hear(Exit).code, shim.ended()) == (7, True)


def test_with_a_lease_the_container_ends_with_the_clients_that_started_it(tmp_path: Path) -> None:
    (one, first), (two, second) = client(stdin=True), client()
    shim = started(
        tmp_path, "sleep", "60", attachments=(first, second), lease=True, open_stdin=True
    )
    later, third = client()
    shim.link.attach(third)
    shim.hear(Reply)
    os.close(third.conn)
    one.shutdown(socket.SHUT_WR)  # the end of its input is not its own
    two.close()
    shim.link.state()
    assert shim.hear(Reply).fields["code"] is None
    shim.link.close()
    one.close()  # as the kernel does when the client is killed
    assert shim.ended()
    assert shim.exit_file()["error"] == "the client that held its lease (--lease) has gone"
    assert shim.exit_file()["code"] == 128 + signal.SIGTERM
    later.close()


def test_a_lease_of_a_client_that_has_gone_before_the_start_is_over_at_once(tmp_path: Path) -> None:
    gone, attachment = client()
    gone.close()
    shim = start_shim(tmp_path, "sleep", "60", attachments=(attachment,), lease=True)
    assert shim.hear(Exit).code == 128 + signal.SIGTERM
