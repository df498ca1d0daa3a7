"""Usage, help, exit codes: what a person or a script sees before and around the daemon."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from dockpy.client.catalog import COMMANDS, GROUPS, LONG
from dockpy.client.flags import FlagError, HelpWanted, parse, table
from tests.client.recorder import CLIENT, Recorder, Request, reply


def dockpy(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "DOCKER_HOST": "unix:///nonexistent/s",
        **environ,
    }
    return subprocess.run(
        [*CLIENT, *words], capture_output=True, text=True, check=False, env=env, timeout=30
    )


def test_version_needs_no_daemon() -> None:
    for words in (["--version"], ["-v"]):
        result = dockpy(*words)
        assert result.returncode == 0
        assert result.stdout.startswith("Docker version ")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words: list[str]) -> None:
    result = dockpy(*words)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage:  dockpy [OPTIONS] COMMAND\n")
    for name in [name for name in COMMANDS if " " not in name] + list(GROUPS):
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_a_function(name: str) -> None:
    result = dockpy(*name.split(), "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage:  dockpy {name} ".rstrip())
    for flag in table(COMMANDS[name][5]):
        assert f"--{flag.long}" in result.stdout
    assert max(map(len, result.stdout.split("\n"))) <= 100
    module = __import__(f"dockpy.client.commands.{COMMANDS[name][0]}", fromlist=["*"])
    assert callable(getattr(module, name.replace(" ", "_").replace("-", "_") + "_command"))


def test_long_forms_name_commands() -> None:
    for group, verbs in LONG.items():
        assert group in GROUPS
        for name in verbs.values():
            assert name in COMMANDS
    assert dockpy("container", "ls", "--help").stdout.startswith("Usage:  dockpy container ls ")
    assert "Commands:\n" in dockpy("container").stdout


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["foo"], 1, "docker: unknown command: dockpy foo\n\nRun 'dockpy --help' for more information\n"),
        (["container", "foo"], 1, "docker: unknown command: dockpy container foo\n\nUsage:  dockpy container\n\nRun 'dockpy container --help' for more information\n"),
        (["--foo"], 125, "unknown flag: --foo\n"),
        (["-z"], 125, "unknown shorthand flag: 'z' in -z\n"),
        (["ps", "--foo"], 125, "unknown flag: --foo\n\nUsage:  dockpy ps [OPTIONS]\n\nRun 'dockpy ps --help' for more information\n"),
        (["rm"], 1, "docker: 'dockpy rm' requires at least 1 argument\n\nUsage:  dockpy rm [OPTIONS] CONTAINER [CONTAINER...]\n\nSee 'dockpy rm --help' for more information\n"),
        (["ps", "x"], 1, "docker: 'dockpy ps' accepts no arguments\n\nUsage:  dockpy ps [OPTIONS]\n\nRun 'dockpy ps --help' for more information\n"),
        (["logs"], 1, "docker: 'dockpy logs' requires 1 argument\n\nUsage:  dockpy logs [OPTIONS] CONTAINER\n\nRun 'dockpy logs --help' for more information\n"),
        (["exec", "a"], 1, "docker: 'dockpy exec' requires at least 2 arguments\n\n"),
        (["build", "."], 1, "docker: 'dockpy build' is not served by this build\n"),
        (["run", "--name"], 125, "flag needs an argument: --name\n"),
        (["run", "-e"], 125, "flag needs an argument: 'e' in -e\n"),
        (["ps"], 1, "Cannot connect to the Docker daemon at unix:///nonexistent/s. Is the docker daemon running?\n"),
        (["run", "img"], 125, "docker: Cannot connect to the Docker daemon at unix:///nonexistent/s. Is the docker daemon running?\n\nRun 'dockpy run --help' for more information\n"),
        (["-H", "ssh://x", "ps"], 1, "the host ssh://x is not served by this build: name a unix:// or tcp:// one\n"),
        (["-c", "foo", "ps"], 0, ""),
        (["--tls", "ps"], 125, "docker: --tls is not served by this build"),
    ],
)  # fmt: skip
def test_errors_have_dockers_words_and_codes(words: list[str], code: int, text: str) -> None:
    if words[0] == "-c":
        result = dockpy(*words, DOCKER_HOST="")
        assert result.returncode == 1
        assert result.stderr.startswith('context "foo" is not known')
        return
    result = dockpy(*words)
    assert result.stderr.startswith(text)
    assert result.returncode == code


@pytest.mark.parametrize("verb", ["inspect", "start", "stop", "pause", "logs", "top", "wait"])
def test_an_empty_name_is_no_request(verb: str) -> None:
    """`/containers//json` is another place, and `inspect ""` listed the networks."""
    with Recorder(lambda request, _: reply(200, b"[1]")) as daemon:
        result = dockpy(verb, "", DOCKER_HOST=f"unix://{daemon.path}")
    assert result.returncode == 1
    assert "invalid container name or ID: value is empty\n" in result.stderr
    assert not [seen for seen in daemon.requests if "/containers/" in seen.target]


@pytest.mark.parametrize(
    "line",
    ["tag '' a", "tag a ''", "tag a b:", "commit c cc:", "pull ''", "pull a:", "import - a:"],
)
def test_a_name_that_is_none_is_refused_before_a_request(line: str) -> None:
    with Recorder() as daemon:
        result = dockpy(*shlex.split(line), DOCKER_HOST=f"unix://{daemon.path}")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "invalid reference format\n"


def test_a_missing_attribute_of_an_event_is_no_value() -> None:
    """It was told as an error of the template, before the first event."""
    event = b'{"Type":"image","Action":"pull","Actor":{"ID":"a","Attributes":{"name":"b"}}}\n'
    with Recorder(lambda request, _: reply(200, event)) as daemon:
        form = "{{.Actor.Attributes.name}} {{.Actor.Attributes.image}}"
        result = dockpy("events", "--format", form, DOCKER_HOST=f"unix://{daemon.path}")
    assert (result.returncode, result.stdout) == (0, "b <no value>\n")


def test_a_limit_of_nothing_is_refused() -> None:
    with Recorder() as daemon:
        result = dockpy("system", "limit", "0", DOCKER_HOST=f"unix://{daemon.path}")
    assert (result.returncode, daemon.requests) == (1, [])
    assert "none" in result.stderr


def test_a_folder_is_no_archive() -> None:
    with Recorder() as daemon:
        for words in (["load", "-i", "/tmp"], ["import", "/tmp"]):
            result = dockpy(*words, DOCKER_HOST=f"unix://{daemon.path}")
            assert (result.returncode, result.stderr) == (1, "read /tmp: is a directory\n")


FLAGS = table("all/a bool x\nname/n string x\nenv/e list x\nnumber int x\nhelp bool x\nsig bool x")


@pytest.mark.parametrize(
    ("line", "values", "rest"),
    [
        ("-a -n x y", {"all": ["true"], "name": ["x"]}, ["y"]),
        ("-an x y", {"all": ["true"], "name": ["x"]}, ["y"]),
        ("-nx -n=y --name=z --name w", {"name": ["x", "y", "z", "w"]}, []),
        ("-ae=b c", {"all": ["true"], "env": ["b"]}, ["c"]),
        ("--all=false -a=F", {"all": ["false", "F"]}, []),
        ("-e a -e b=c,d", {"env": ["a", "b=c,d"]}, []),
        ("x -a", {"all": ["true"]}, ["x"]),
        ("-- -a", {}, ["-a"]),
        ("- -a", {"all": ["true"]}, ["-"]),
        ("-n -- x", {"name": ["--"]}, ["x"]),
        ("--number 0x10 --number -5", {"number": ["0x10", "-5"]}, []),
    ],
)
def test_flags_are_read_as_pflag_reads_them(
    line: str, values: dict[str, list[str]], rest: list[str]
) -> None:
    options, positional = parse(FLAGS, line.split())
    assert {name: options.many(name) for name in options.names()} == values
    assert positional == rest


def test_flags_end_at_the_first_word_of_the_command() -> None:
    options, positional = parse(FLAGS, ["-a", "img", "-n", "--all=false"], interspersed=False)
    assert options.on("all")
    assert positional == ["img", "-n", "--all=false"]


def test_values_have_types_and_defaults() -> None:
    options, _ = parse(FLAGS, ["--number=010"])
    assert options.number("number") == 8
    assert options.number("other", -1) == -1
    assert options.on("sig", True)
    assert not parse(FLAGS, ["--sig=0"])[0].on("sig", True)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--=x", "bad flag syntax: --=x"),
        ("---a", "bad flag syntax: ---a"),
        ("-ax", "unknown shorthand flag: 'x' in -x"),
        ("--number=1x", 'invalid argument "1x" for "--number" flag: strconv.ParseInt: parsing "1x": invalid syntax'),
        ("--all=2", 'invalid argument "2" for "-a, --all" flag: strconv.ParseBool: parsing "2": invalid syntax'),
    ],
)  # fmt: skip
def test_bad_flags(line: str, text: str) -> None:
    with pytest.raises(FlagError) as error:
        parse(FLAGS, line.split())
    assert str(error.value) == text


def test_help_is_wanted_by_h_where_no_flag_has_it() -> None:
    with pytest.raises(HelpWanted):
        parse(FLAGS, ["-h"])


def test_the_daemons_refusal_is_told_and_each_name_has_its_turn() -> None:
    def answer(request: Request, _: object) -> bytes:
        if "/bad/" in request.target:
            return reply(404, b'{"message":"No such container: bad"}')
        return reply(204)

    with Recorder(answer) as daemon:
        result = daemon.run(CLIENT, "stop", "-t", "3", "a", "bad", "b c")
    assert result.stdout == b"a\nb c\n"
    assert result.stderr == b"Error response from daemon: No such container: bad\n"
    assert result.returncode == 1
    assert [request.target for request in daemon.requests] == [
        "/containers/a/stop?t=3",
        "/containers/bad/stop?t=3",
        "/containers/b%20c/stop?t=3",
    ]


def test_what_answers_but_is_no_daemon_is_one_sentence() -> None:
    with Recorder(lambda *_: b"SSH-2.0-OpenSSH\r\n\r\n\r\n") as daemon:
        result = daemon.run(CLIENT, "ps")
    assert result.returncode == 1
    assert (
        result.stderr == b"what answers is no docker daemon: the far end does not speak HTTP/1.1\n"
    )


@pytest.mark.parametrize("body", [b"not json", b'{"a":', b"[" * 100000, b'"text"', b"null"])
def test_an_answer_that_is_not_what_was_asked_for_is_one_sentence(body: bytes) -> None:
    with Recorder(lambda *_: reply(200, body)) as daemon:
        result = daemon.run(CLIENT, "ps")
    assert result.returncode == 1
    assert result.stderr.startswith(b"the daemon's answer ")
    assert result.stderr.count(b"\n") == 1


def test_a_missing_image_is_pulled_once_and_its_sentence_told() -> None:
    def answer(request: Request, _: object) -> bytes:
        if "/images/create" in request.target:
            return reply(501, b'{"message":"no registry here"}')
        return reply(404, b'{"message":"No such image: nope:latest"}')

    with Recorder(answer) as daemon:
        result = daemon.run(CLIENT, "run", "nope")
        quiet = daemon.run(CLIENT, "run", "--pull", "never", "nope")
    assert result.returncode == quiet.returncode == 125
    assert result.stderr == (
        b"Unable to find image 'nope:latest' locally\ndocker: Error response from daemon: no registry here\n\n"
        b"Run 'dockpy run --help' for more information\n"
    )
    assert quiet.stderr.startswith(
        b"docker: Error response from daemon: No such image: nope:latest\n"
    )
    assert [request.target for request in daemon.requests] == [
        "/containers/create",
        "/images/create?fromImage=nope&tag=latest",
        "/containers/create",
    ]


def test_an_archive_that_cannot_be_written_is_told_by_its_own_name(tmp_path: Path) -> None:
    with Recorder(lambda request, _: reply(200, b"tar")) as daemon:
        for place, why in (
            (tmp_path, "is a directory"),
            (Path("/proc/archive"), "no such file or directory"),
        ):
            result = daemon.run(CLIENT, "save", "-o", str(place), "image")
            assert result.returncode == 1
            assert result.stderr.decode() == f"open {place}: {why}\n"


def test_the_cidfile_holds_the_id_and_an_existing_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cid"
    with Recorder() as daemon:
        assert daemon.run(CLIENT, "create", "--cidfile", str(path), "img").returncode == 0
        assert path.read_text() == "a" * 64
        again = daemon.run(CLIENT, "create", "--cidfile", str(path), "img")
        assert again.returncode == 1
        assert (
            b"container ID file found, make sure the other container isn't running" in again.stderr
        )
    path.unlink()
    with Recorder(lambda *_: reply(500, b'{"message":"no"}')) as daemon:
        assert daemon.run(CLIENT, "create", "--cidfile", str(path), "img").returncode == 1
        assert not path.exists()


def test_the_reader_of_a_list_may_go_away() -> None:
    item = b'{"Id":"%b","Names":["/n"],"Image":"i","Command":"c","Created":1,"State":"running"}' % (
        b"b" * 64
    )
    body = b"[" + b",".join([item] * 5000) + b"]"
    with Recorder(lambda *_: reply(200, body)) as daemon:
        read, write = os.pipe()
        os.close(read)
        process = subprocess.Popen(
            [*CLIENT, "ps"],
            stdout=write,
            stderr=subprocess.PIPE,
            env={"DOCKER_HOST": f"unix://{daemon.path}", "HOME": "/nonexistent"},
        )
        os.close(write)
        assert process.communicate()[1] == b""
    assert process.returncode == -13


def listed(words: list[str]) -> tuple[str, subprocess.CompletedProcess[bytes]]:
    def one(request: Request, _: object) -> bytes:
        return reply(200, b'[{"Id":"%b","Names":["/a"],"Created":1}]' % (b"0123456789ab" * 5))

    with Recorder(one) as daemon:
        result = daemon.run(CLIENT, "ps", *words)
    return daemon.requests[0].target, result


def test_ps_shows_as_many_as_its_number_says() -> None:
    assert listed(["-l"])[0] == "/containers/json?limit=1"
    assert listed(["-l", "-n", "5"])[0] == "/containers/json?limit=5"


def test_ps_asks_for_sizes_where_they_are_shown() -> None:
    assert "size=1" in listed(["--format", "{{.Size}}"])[0]
    assert "size=1" not in listed(["--format", "{{.Size}}", "--size=false"])[0]


def test_ps_with_quiet_and_a_format_shows_ids() -> None:
    target, result = listed(["-q", "--format", "{{.Size}} x"])
    assert "size" not in target
    assert result.stdout == b"0123456789ab\n"
    assert result.stderr.startswith(b"WARNING: Ignoring custom format, because both --format and")


def test_inspect_says_of_a_name_that_can_be_none_that_there_is_no_such_object() -> None:
    def nothing(request: Request, _: object) -> bytes:
        if "/images/" in request.target:
            return reply(400, b'{"message":"invalid reference format"}')
        return reply(404, b'{"message":"no such thing"}')

    with Recorder(nothing) as daemon:
        result = daemon.run(CLIENT, "inspect", "A B")
    assert (result.stdout, result.stderr) == (b"[]\n", b"Error: No such object: A B\n")
    assert dockpy("inspect", "--type", "", "a").stderr.startswith("type is empty: must be one of")


def test_inspect_has_sizes_of_containers_only() -> None:
    def image(request: Request, _: object) -> bytes:
        return reply(200 if "/images/" in request.target else 404, b"{}")

    with Recorder(image) as daemon:
        result = daemon.run(CLIENT, "inspect", "--size", "a")
    assert (result.returncode, result.stderr) == (0, b"WARNING: --size ignored for image\n")


def test_logs_that_are_no_frames_are_told_in_a_sentence() -> None:
    def garbage(request: Request, _: object) -> bytes:
        return reply(200, b"{}" if request.target.endswith("/json") else b"no frames at all")

    with Recorder(garbage) as daemon:
        result = daemon.run(CLIENT, "logs", "a")
    assert (result.returncode, result.stderr) == (1, b"Unrecognized input header: 110\n")


def test_the_warnings_of_an_update_are_told_after_the_names_and_on_stdout() -> None:
    def answer(request: Request, _: socket.socket) -> bytes:
        return reply(200, b'{"Warnings":["w1","w2"]}')

    with Recorder(answer) as recorder:
        done = recorder.run(CLIENT, "update", "--restart", "no", "a", "b")
    assert (done.stdout, done.stderr, done.returncode) == (b"a\nb\nw1\nw2\nw1\nw2\n", b"", 0)
