"""create, start, exec, logs, wait, ps, inspect, kill, rm: the other verbs of a container's life."""

from __future__ import annotations

import json
import re
import time

from tests.e2e.engines import Engine


def test_create_start_attach_and_restart(engine: Engine) -> None:
    name = engine.name()
    made = engine.cli("create", "--name", name, engine.image, "sh", "-c", "echo once; exit 5")
    assert re.fullmatch(r"[0-9a-f]{64}\n", made.out)
    assert engine.cli("inspect", "-f", "{{.State.Status}}", name).out == "created\n"
    for _ in range(2):
        attached = engine.cli("start", "-a", name)
        assert (attached.code, attached.out) == (5, "once\n")
    assert engine.cli("logs", name).out == "once\nonce\n"
    assert engine.cli("start", name).out == f"{name}\n"
    assert engine.cli("wait", name).out == "5\n"
    assert engine.cli("rm", name).code == 0


def test_exec_in_a_running_container(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, "-e", "FROM_RUN=1", engine.image, "sleep", "100")
    assert engine.cli("exec", name, "sh", "-c", "exit 9").code == 9
    both = engine.cli("exec", name, "sh", "-c", "echo out; echo err >&2")
    assert (both.out, both.err) == ("out\n", "err\n")
    assert engine.cli("exec", "-i", name, "cat", input=b"in").out == "in"
    env = engine.cli(
        "exec", "-e", "FROM_EXEC=2", "-w", "/tmp", name, "sh", "-c", "echo $FROM_RUN$FROM_EXEC; pwd"
    ).out
    assert env == "12\n/tmp\n"
    assert engine.cli("exec", "-u", "app", name, "id", "-u").out == "1000\n"
    # docker 20.10 says 126 here, newer ones 127
    assert engine.cli("exec", name, "no-such-command").code in (
        (127,) if engine.is_dockpy else (126, 127)
    )
    assert engine.cli("exec", name, "/etc/passwd").code == 126
    assert engine.cli("exec", name, "readlink", "/proc/1/exe").out.strip().endswith("busybox")
    status = engine.cli(
        "exec", name, "grep", "-E", "^(CapEff|Seccomp):", "/proc/self/status"
    ).out.split()
    assert status[1::2] == ["00000000a80425fb", "2"]
    engine.cli("rm", "-f", name)


def test_exec_in_a_stopped_container_is_refused(engine: Engine) -> None:
    name = engine.name()
    engine.cli("create", "--name", name, engine.image, "true")
    result = engine.cli("exec", name, "true")
    assert result.code == 1
    assert "is not running" in result.err
    engine.cli("rm", name)


def test_exec_as_a_user_that_is_not_there(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, "sleep", "100")
    result = engine.cli("exec", "-u", "nosuch", name, "id")
    assert result.code == 126
    assert (result.out + result.err).startswith("unable to find user nosuch: no matching entries")
    engine.cli("rm", "-f", name)


def test_what_the_daemon_refuses_of_create_is_1_and_of_run_125(engine: Engine) -> None:
    for verb, code in (("create", 1), ("run", 125)):
        result = engine.cli(verb, "--name", "-bad", engine.image, "true")
        assert result.code == code
        assert "Invalid container name (-bad)" in result.err
    assert engine.cli("create", "--ulimit", "nosuch", engine.image).code == 125


def test_ps_refuses_a_status_that_there_is_not(engine: Engine) -> None:
    result = engine.cli("ps", "-f", "status=nosuch")
    assert result.code == 1
    assert "nvalid filter 'status=nosuch'" in result.err


def test_exec_detached(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, "sleep", "100")
    assert engine.cli("exec", "-d", name, "sh", "-c", "echo done >/tmp/flag").code == 0
    for _ in range(50):
        if engine.cli("exec", name, "cat", "/tmp/flag").out == "done\n":
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the detached command left no trace")
    engine.cli("rm", "-f", name)


def test_logs_tail_since_timestamps_and_streams(engine: Engine) -> None:
    name = engine.name()
    script = "for i in 1 2 3 4 5; do echo line $i; done; sleep 0.2; echo bad >&2; sleep 0.2; printf partial"
    engine.cli("run", "--name", name, engine.image, "sh", "-c", script)
    logs = engine.cli("logs", name)
    assert logs.out == "line 1\nline 2\nline 3\nline 4\nline 5\npartial"
    assert logs.err == "bad\n"
    tail = engine.cli("logs", "--tail", "2", name)
    assert (tail.out, tail.err) == ("partial", "bad\n")
    stamped = engine.cli("logs", "-t", name).out.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line 1", stamped[0])
    assert engine.cli("logs", "--since", "2020-01-01T00:00:00Z", name).out == logs.out
    assert engine.cli("logs", "--until", "2020-01-01T00:00:00Z", name).out == ""
    engine.cli("rm", name)


def test_logs_follow_ends_with_the_container(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, "sh", "-c", "echo a; sleep 1; echo b")
    assert engine.cli("logs", "-f", name).out == "a\nb\n"
    engine.cli("rm", name)


def test_ps_shows_what_docker_shows(engine: Engine) -> None:
    name = engine.name()
    full = engine.cli("run", "-d", "--name", name, engine.image, "sleep", "100").out.strip()
    table = engine.cli("ps").out.splitlines()
    assert table[0].split() == [
        "CONTAINER",
        "ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    row = next(line for line in table if line.endswith(name))
    assert row.startswith(full[:12]) and '"sleep 100"' in row and "Up " in row
    assert engine.cli("ps", "-q", "--no-trunc", "-f", f"name={name}").out.strip() == full
    shown = engine.cli(
        "ps", "--filter", f"id={full[:10]}", "--format", "{{.ID}}|{{.State}}|{{.Image}}"
    ).out
    assert shown == f"{full[:12]}|running|{engine.image}\n"
    engine.cli("kill", name)
    engine.cli("wait", name)
    assert name not in engine.cli("ps", "--format", "{{.Names}}").out.split()
    assert re.search(r"Exited \(137\)", engine.cli("ps", "-a", "-f", f"name={name}").out)
    engine.cli("rm", name)


def test_inspect_is_json_with_dockers_names(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, "sleep", "100")
    document = json.loads(engine.cli("inspect", name).out)[0]
    assert document["Name"] == f"/{name}"
    assert document["Path"] == "sleep" and document["Args"] == ["100"]
    assert document["State"]["Running"] is True and document["State"]["Pid"] > 1
    assert document["Config"]["Image"] == engine.image
    for key in (
        "Id",
        "Created",
        "Image",
        "HostConfig",
        "NetworkSettings",
        "Mounts",
        "LogPath",
        "RestartCount",
    ):
        assert key in document, key
    missing = engine.cli("inspect", "no-such-thing")
    assert missing.code == 1
    assert missing.out == "[]\n" and "no-such-thing" in missing.err.lower()
    engine.cli("rm", "-f", name)


def test_rm_refuses_a_running_container_and_f_does_not(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, "sleep", "100")
    refused = engine.cli("rm", name)
    assert refused.code == 1
    assert "running" in refused.err
    assert engine.cli("rm", "-f", name).out == f"{name}\n"
    assert engine.cli("rm", name).code == 1


def test_kill_with_a_signal(engine: Engine) -> None:
    name = engine.name()
    script = "trap 'exit 33' HUP; while :; do sleep 0.1; done"
    engine.cli("run", "-d", "--name", name, engine.image, "sh", "-c", script)
    time.sleep(0.3)
    assert engine.cli("kill", "-s", "HUP", name).code == 0
    assert engine.cli("wait", name).out == "33\n"
    assert engine.cli("kill", name).code == 1
    assert engine.cli("kill", "-s", "NO_SUCH", name).code == 1
    engine.cli("rm", name)


def test_verbs_on_what_does_not_exist_fail_with_its_name(engine: Engine) -> None:
    for verb in (["start"], ["stop"], ["kill"], ["rm"], ["wait"], ["logs"]):
        result = engine.cli(*verb, "no-such-container")
        assert result.code == 1, verb
        assert "No such container: no-such-container" in result.err, verb


def test_info_and_version_answer(engine: Engine) -> None:
    assert engine.cli("info").code == 0
    assert engine.cli("version", "--format", "{{.Server.APIVersion}}").out.strip().startswith("1.")


def test_kill_s_errors_begin_with_docker_s_words(engine: Engine) -> None:
    """Docker 25 and later spell them small."""
    nobody = engine.cli("kill", "nobody-here")
    assert nobody.code == 1
    assert (
        "cannot kill container: nobody-here: no such container: nobody-here" in nobody.err.lower()
    )
    name = engine.name()
    engine.cli("create", "--name", name, engine.image, "true")
    idle = engine.cli("kill", name)
    engine.cli("rm", name)
    assert idle.code == 1
    assert f"cannot kill container: {name}: container " in idle.err.lower()
    assert idle.err.rstrip().endswith("is not running")
