"""The life of containers through the API, with real ones."""

from __future__ import annotations

import array
import json
import os
import socket
import time

import pytest

from tests.daemon.conftest import IMAGE, Engine, frames, read_all


def test_create_attach_wait_start_as_docker_run_does(engine: Engine) -> None:
    container = engine.create(
        "sh", "-c", "echo out; echo err >&2; exit 7", host={"AutoRemove": True}
    )
    attached, rest = engine.upgrade(f"/containers/{container}/attach?stream=1&stdout=1&stderr=1")
    with engine.connect() as waiting, attached:
        waiting.sendall(
            f"POST /containers/{container}/wait?condition=removed HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode()
        )
        assert b"200 OK" in waiting.recv(4096)
        assert engine.ask("POST", f"/containers/{container}/start").status == 204
        assert sorted(frames(rest + read_all(attached))) == [(1, b"out\n"), (2, b"err\n")]
        assert b'{"StatusCode":7}' in read_all(waiting)
    assert engine.ask("GET", f"/containers/{container}/json").status == 404


def test_the_name_is_free_once_a_removal_was_told(engine: Engine) -> None:
    for _ in range(3):
        container = engine.create("true", name="again", host={"AutoRemove": True})
        with engine.connect() as waiting:
            waiting.sendall(
                f"POST /containers/{container}/wait?condition=removed HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode()
            )
            waiting.recv(4096)
            engine.ask("POST", f"/containers/{container}/start")
            assert b'{"StatusCode":0}' in read_all(waiting)
        assert engine.ask("GET", "/containers/again/json").status == 404


def test_standard_input_ends_with_the_half_close(engine: Engine) -> None:
    container = engine.create("cat", OpenStdin=True, StdinOnce=True, AttachStdin=True)
    sock, rest = engine.upgrade(f"/containers/{container}/attach?stream=1&stdin=1&stdout=1")
    with sock:
        sock.sendall(b"before ")
        engine.ask("POST", f"/containers/{container}/start")
        sock.sendall(b"after")
        sock.shutdown(socket.SHUT_WR)
        got = frames(rest + read_all(sock))
    assert b"".join(data for _, data in got) == b"before after"
    assert engine.wait(container) == 0


def test_descriptors_of_the_client_are_written_directly(engine: Engine) -> None:
    container = engine.create("sh", "-c", "echo out; echo err >&2")
    reading, writing = os.pipe()
    sock, _ = engine.upgrade(
        f"/containers/{container}/attach?stream=1&stdout=1&stderr=1&fds=stdout",
        protocol="dockpy-fds",
    )
    with sock:
        sock.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))])
        os.close(writing)
        engine.ask("POST", f"/containers/{container}/start")
        assert frames(read_all(sock)) == [(2, b"err\n")]
    assert os.read(reading, 100) == b"out\n"
    os.close(reading)


@pytest.mark.parametrize("query", ["fds=stdout,stdout", "fds=other"])
def test_wrong_descriptors_are_refused_while_there_is_a_status(engine: Engine, query: str) -> None:
    container = engine.create("true")
    assert engine.ask("POST", f"/containers/{container}/attach?stream=1&{query}").status == 400


def test_wait_conditions(engine: Engine) -> None:
    container = engine.create("sh", "-c", "exit 3")
    assert engine.wait(container) == 0  # created: not running
    engine.ask("POST", f"/containers/{container}/start")
    assert engine.wait(container) == 3
    assert engine.wait(container, "not-running") == 3


def test_only_a_missing_image_is_404_at_create(engine: Engine) -> None:
    for mode in ("nosuch", "container:nosuch"):
        body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": mode}}
        assert engine.ask("POST", "/containers/create", body).status == 400
    assert engine.ask("POST", "/containers/create", {"Image": "nosuch"}).status == 404


def test_docker_py_gets_the_log_driver_that_it_reads(engine: Engine) -> None:
    data = json.dumps({"Image": IMAGE, "Cmd": ["true"]}).encode()
    head = (
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
        "User-Agent: docker-sdk-python/7.1.0\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    made = json.loads(engine.raw(head.encode() + data).rpartition(b"\r\n\r\n")[2])
    found = engine.ask("GET", f"/containers/{made['Id']}/json")
    assert json.loads(found.body)["HostConfig"]["LogConfig"]["Type"] == "json-file"


def test_states_and_statuses(engine: Engine) -> None:
    container = engine.create("sleep", "60")
    assert engine.state(container)["Status"] == "created"
    assert engine.ask("POST", f"/containers/{container}/kill").status == 409
    assert engine.ask("POST", f"/containers/{container}/stop").status == 304
    assert engine.ask("POST", f"/containers/{container}/start").status == 204
    assert engine.ask("POST", f"/containers/{container}/start").status == 304
    assert engine.state(container)["Running"] is True
    assert engine.ask("DELETE", f"/containers/{container}").status == 409
    assert engine.ask("POST", f"/containers/{container}/kill?signal=KILL").status == 204
    assert engine.wait(container) == 137
    assert engine.state(container)["ExitCode"] == 137
    assert engine.ask("DELETE", f"/containers/{container}").status == 204
    assert engine.ask("DELETE", f"/containers/{container}").status == 404


def test_stop_signals_first_and_kills_later(engine: Engine) -> None:
    polite = engine.run("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")
    stubborn = engine.run("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    time.sleep(0.2)
    assert engine.ask("POST", f"/containers/{polite}/stop").status == 204
    assert engine.state(polite)["ExitCode"] == 5
    assert engine.ask("POST", f"/containers/{stubborn}/stop?t=1").status == 204
    assert engine.state(stubborn)["ExitCode"] == 137


def test_restart_and_rename(engine: Engine) -> None:
    container = engine.run("sleep", "60", name="first")
    before = engine.state(container)["Pid"]
    assert engine.ask("POST", f"/containers/{container}/restart?t=0").status == 204
    assert engine.state(container)["Pid"] not in (0, before)
    assert engine.ask("POST", f"/containers/{container}/rename?name=second").status == 204
    assert engine.inspect("second")["Name"] == "/second"
    assert engine.ask("GET", "/containers/first/json").status == 404
    engine.create("true", name="first")
    answer = engine.ask("POST", "/containers/second/rename?name=first")
    assert answer.status == 409
    assert answer.message.startswith("Error when allocating new name: Conflict. ")


@pytest.mark.parametrize(
    ("command", "code", "status", "text"),
    [
        (["nonexistent"], 127, 400, "executable file not found in $PATH"),
        (["/etc/passwd"], 126, 400, "permission denied"),
        (["/nowhere/x"], 127, 400, "no such file or directory"),
    ],
)
def test_what_cannot_run_is_told_as_docker_does(
    engine: Engine, command: list[str], code: int, status: int, text: str
) -> None:
    container = engine.create(*command)
    answer = engine.ask("POST", f"/containers/{container}/start")
    assert answer.status == status
    assert text in answer.message
    state = engine.state(container)
    assert (state["Status"], state["ExitCode"]) == ("created", code)


def test_a_name_is_taken_once(engine: Engine) -> None:
    engine.create("true", name="one")
    answer = engine.ask("POST", "/containers/create?name=one", {"Image": IMAGE})
    assert answer.status == 409
    assert "already in use" in answer.message


def test_logs_in_all_their_ways(engine: Engine) -> None:
    container = engine.run(
        "sh", "-c", "for i in 1 2 3; do echo line $i; done; echo last >&2; printf end"
    )
    engine.wait(container)
    assert engine.output(container, "stdout=1") == b"line 1\nline 2\nline 3\nend"
    # docker's SDKs show each frame as a line.
    frames = engine.logs(container, "stdout=1")
    assert [data for _, data in frames] == [b"line 1\n", b"line 2\n", b"line 3\n", b"end"]
    assert engine.output(container, "stderr=1") == b"last\n"
    assert engine.output(container, "stdout=1&tail=2") == b"line 3\nend"
    assert engine.output(container, "stdout=1&since=1") == b"line 1\nline 2\nline 3\nend"
    assert engine.output(container, "stdout=1&until=1") == b""
    stamped = engine.output(container, "stderr=1&timestamps=1")
    assert stamped[4:5] == b"-"
    assert stamped.endswith(b"Z last\n")
    assert engine.ask("GET", f"/containers/{container}/logs").status == 400


def test_followed_logs_end_with_the_container(engine: Engine) -> None:
    container = engine.run("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done")
    assert engine.output(container, "stdout=1&follow=1") == b"1\n2\n3\n"


def test_json_file_logs_are_dockers(engine: Engine) -> None:
    container = engine.run("echo", "hi", host={"LogConfig": {"Type": "json-file"}})
    engine.wait(container)
    with open(str(engine.inspect(container)["LogPath"]), encoding="utf-8") as file:
        assert file.read().startswith('{"log":"hi\\n","stream":"stdout","time":"')
    assert engine.output(container) == b"hi\n"


def test_no_log_cannot_be_read(engine: Engine) -> None:
    container = engine.run("echo", "hi", host={"LogConfig": {"Type": "none"}})
    engine.wait(container)
    assert engine.ask("GET", f"/containers/{container}/logs?stdout=1").status == 501


def test_exec_runs_beside(engine: Engine) -> None:
    container = engine.run("sleep", "60")
    answer = engine.ask(
        "POST",
        f"/containers/{container}/exec",
        {"Cmd": ["sh", "-c", "echo $A; exit 4"], "AttachStdout": True, "Env": ["A=b"]},
    )
    assert answer.status == 201, answer.body
    raw = answer.json()
    assert isinstance(raw, dict)
    exec_id = raw["Id"]
    sock, rest = engine.upgrade(f"/exec/{exec_id}/start", b'{"Detach":false,"Tty":false}')
    with sock:
        assert frames(rest + read_all(sock)) == [(1, b"b\n")]
    # At the end of the stream the code is there: docker's client asks once.
    told = engine.ask("GET", f"/exec/{exec_id}/json").json()
    assert isinstance(told, dict)
    assert (told["Running"], told["ExitCode"]) == (False, 4)
    assert engine.ask("POST", f"/exec/{exec_id}/start", {}).status == 409


def test_an_exec_that_cannot_start_says_so_in_the_stream(engine: Engine) -> None:
    container = engine.run("sleep", "60")
    raw = engine.ask(
        "POST", f"/containers/{container}/exec", {"Cmd": ["nope"], "AttachStdout": True}
    ).json()
    assert isinstance(raw, dict)
    sock, rest = engine.upgrade(f"/exec/{raw['Id']}/start", b"{}")
    with sock:
        data = b"".join(data for _, data in frames(rest + read_all(sock)))
    assert b"executable file not found" in data
    found = engine.ask("GET", f"/exec/{raw['Id']}/json").json()
    assert isinstance(found, dict)
    assert (found["ExitCode"], found["Running"]) == (127, False)


def test_exec_needs_a_running_container(engine: Engine) -> None:
    container = engine.create("true")
    answer = engine.ask("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})
    assert answer.status == 409
    assert "is not running" in answer.message


def test_lists_and_filters(engine: Engine) -> None:
    engine.create("true", name="one", Labels={"k": "v"})
    engine.run("sleep", "60", name="two")

    def names(query: str) -> list[str]:
        rows = engine.ask("GET", f"/containers/json?{query}").json()
        assert isinstance(rows, list)
        return [row["Names"][0] for row in rows]

    assert names("") == ["/two"]
    assert names("all=1") == ["/two", "/one"]
    assert names("limit=1") == ["/two"]
    assert names('all=1&filters={"label":["k=v"]}') == ["/one"]
    assert names('filters={"status":["created"]}') == ["/one"]
    assert names('all=1&filters={"name":{"tw":true}}') == ["/two"]
    assert names('all=1&filters={"ancestor":["dockpy.builtin/host"]}') == ["/two", "/one"]
    # As docker: but for a status, whoever wants those that do not run says so.
    assert names('filters={"since":["one"]}') == ["/two"]
    assert names('filters={"before":["two"]}') == []
    assert names('all=1&filters={"before":["two"]}') == ["/one"]
    assert names('filters={"exited":["0"]}') == []
    assert names('all=1&filters={"expose":["80/udp"]}') == []
    assert names('all=1&filters={"is-task":["true"]}') == []


def test_top_shows_the_containers_processes(engine: Engine) -> None:
    container = engine.run("sh", "-c", "sleep 60 & wait")
    time.sleep(0.1)
    raw = engine.ask("GET", f"/containers/{container}/top").json()
    assert isinstance(raw, dict)
    assert raw["Titles"][-1] == "CMD"
    assert [row[-1] for row in raw["Processes"] if "wait" not in row[-1]] == ["sleep 60"]
    raw = engine.ask("GET", f"/containers/{container}/top?ps_args=-o%20pid,comm").json()
    assert isinstance(raw, dict)
    assert (raw["Titles"], len(raw["Processes"])) == (["PID", "COMMAND"], 2)
    for options, text in (
        ("-o%20comm", "Couldn't find PID field in ps output"),
        ("-o%20pid%20comm=PIDS", 'specifying "comm=PIDS" is not allowed'),
        ("--nope", "ps: error: unknown gnu long option"),
    ):
        answer = engine.ask("GET", f"/containers/{container}/top?ps_args={options}")
        assert (answer.status, answer.message) == (400, text)


def test_binds_and_their_sources(engine: Engine, tmp_path: object) -> None:
    folder = f"{tmp_path}/made"
    container = engine.run("sh", "-c", "echo hi > /mnt/file", host={"Binds": [f"{folder}:/mnt"]})
    assert engine.wait(container) == 0
    with open(f"{folder}/file", encoding="utf-8") as file:
        assert file.read() == "hi\n"
    body = {
        "Image": IMAGE,
        "HostConfig": {"Mounts": [{"Type": "bind", "Source": "/nope", "Target": "/x"}]},
    }
    answer = engine.ask("POST", "/containers/create", body)
    assert answer.status == 400
    assert "bind source path does not exist: /nope" in answer.message


def test_containers_share_namespaces_by_name(engine: Engine) -> None:
    first = engine.run("sleep", "60", name="first")
    second = engine.run("readlink", "/proc/self/ns/net", host={"NetworkMode": "container:first"})
    engine.wait(second)
    third = engine.run("readlink", "/proc/self/ns/net", host={"NetworkMode": "none"})
    engine.wait(third)
    pid = engine.state(first)["Pid"]
    assert engine.output(second).decode().strip() == os.readlink(f"/proc/{pid}/ns/net")
    assert engine.output(third) != engine.output(second)
    engine.ask("DELETE", "/containers/first?force=1")
    fourth = engine.ask(
        "POST",
        "/containers/create",
        {"Image": IMAGE, "HostConfig": {"NetworkMode": "container:first"}},
    )
    assert fourth.status == 400


def test_events_tell_a_life_in_order(engine: Engine) -> None:
    container = engine.run("sh", "-c", "exit 2")
    engine.wait(container)
    engine.ask("DELETE", f"/containers/{container}")
    answer = engine.ask(
        "GET", f'/events?since=1&until={time.time()}&filters={{"container":["{container}"]}}'
    )
    import json

    told = [json.loads(line) for line in answer.body.splitlines()]
    assert [event["Action"] for event in told] == ["create", "start", "die", "destroy"]
    assert told[2]["Actor"]["Attributes"]["exitCode"] == "2"


def test_refusals_name_what_is_not_served(engine: Engine) -> None:
    answer = engine.ask(
        "POST", "/containers/create", {"Image": IMAGE, "HostConfig": {"Binds": ["v:/v"]}}
    )
    assert answer.status == 501
    assert "-v v:/v" in answer.message


def test_who_waits_for_one_that_could_not_start_is_told_why(engine: Engine) -> None:
    container = engine.create("no-such-program")
    assert engine.ask("POST", f"/containers/{container}/start").status == 400
    told = engine.ask("POST", f"/containers/{container}/wait").json()
    assert told == {"Error": {"Message": engine.state(container)["Error"]}, "StatusCode": 127}
    # A run's end is no error, whatever its state says of it.
    one = engine.run("sh", "-c", "exit 3")
    assert engine.ask("POST", f"/containers/{one}/wait").body.strip() == b'{"StatusCode":3}'
