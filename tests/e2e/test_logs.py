"""Log drivers, their options, and `logs` in its ways, as docker's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.engines import Engine


@pytest.mark.parametrize(
    ("driver", "option", "words"),
    [
        ("json-file", "max-size=abc", "invalid size: 'abc'"),
        ("json-file", "max-size=0", "max-size must be a positive number"),
        ("json-file", "max-file=0", "max-file cannot be less than 1"),
        ("json-file", "max-file=x", 'strconv.Atoi: parsing "x": invalid syntax'),
        (
            "json-file",
            "compress=true",
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("json-file", "compress=maybe", 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("json-file", "foo=1", "unknown log opt 'foo' for json-file log driver"),
        ("json-file", "mode=x", "logger: logging mode not supported: x"),
        (
            "json-file",
            "max-buffer-size=1m",
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        ("json-file", "tag={{.Foo}}", "can't evaluate field Foo in type *logger.Info"),
        ("local", "max-size=abc", "invalid value for max-size: abc: invalid size: 'abc'"),
        ("local", "max-file=1", "compression cannot be enabled when max file count is 1"),
        ("local", "foo=1", "unknown log opt 'foo' for log driver local"),
        ("none", "foo=1", "invalid logging opts for driver none"),
    ],
)
def test_options_are_refused_in_dockers_words(
    engine: Engine, driver: str, option: str, words: str
) -> None:
    name = engine.name()
    result = engine.cli(
        "run", "--name", name, "--log-driver", driver, "--log-opt", option, engine.image, "true"
    )
    assert result.code == 125
    assert words in result.err
    engine.cli("rm", "-f", name)


def test_a_driver_that_keeps_nothing_cannot_be_read(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "--name", name, "--log-driver", "none", engine.image, "echo", "gone")
    result = engine.cli("logs", name)
    assert result.code == 1
    assert "configured logging driver does not support reading" in result.err
    engine.cli("rm", name)


def test_json_lines_bear_labels_variables_and_the_tag(engine: Engine) -> None:
    name = engine.name()
    engine.cli(
        "run", "--name", name, "--log-driver", "json-file", "-l", "one=<1>", "-l", "two=2", "-e", "THREE=3",
        "--log-opt", "labels=one,none", "--log-opt", "labels-regex=^tw", "--log-opt", "env=THREE",
        "--log-opt", "tag={{.Name}}", engine.image, "echo", "hi",
    )  # fmt: skip
    assert engine.cli("logs", "--details", name).out == (
        f"THREE=3,one=%3C1%3E,tag={name},two=2 hi\n"
    )
    path = engine.cli("inspect", "-f", "{{.LogPath}}", name).out.strip()
    assert Path(path).name.endswith("-json.log")
    line = Path(path).read_text()
    attrs = f'{{"THREE":"3","one":"\\u003c1\\u003e","tag":"{name}","two":"2"}}'
    assert line.startswith(f'{{"log":"hi\\n","stream":"stdout","attrs":{attrs},"time":"')
    engine.cli("rm", name)


def test_json_files_rotate_at_the_size_and_are_compressed(engine: Engine) -> None:
    name = engine.name()
    engine.cli(
        "run", "--name", name, "--log-driver", "json-file", "--log-opt", "max-size=2k", "--log-opt", "max-file=3",
        engine.image, "seq", "1000", "1300",
    )  # fmt: skip
    path = Path(engine.cli("inspect", "-f", "{{.LogPath}}", name).out.strip())
    names = sorted(file.name[len(path.name) :] for file in path.parent.glob(f"{path.name}*"))
    assert names == ["", ".1", ".2"]
    assert 2000 <= Path(f"{path}.1").stat().st_size < 2100
    out = engine.cli("logs", name).out.split()
    assert out[-1] == "1300"
    assert out == [str(number) for number in range(int(out[0]), 1301)]
    assert engine.cli("logs", "--tail", "40", name).out.split() == out[-40:]
    engine.cli("rm", name)


def test_a_deleted_log_is_told(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker says nothing where its file was deleted")
    name = engine.name()
    engine.cli("run", "--name", name, "--log-driver", "json-file", engine.image, "echo", "hi")
    os.unlink(engine.cli("inspect", "-f", "{{.LogPath}}", name).out.strip())
    result = engine.cli("logs", name)
    assert result.code == 1
    assert "was deleted" in result.err
    engine.cli("rm", name)


@pytest.mark.parametrize("driver", ["local", "json-file"])
@pytest.mark.parametrize("more", [(), ("-t",)], ids=["plain", "times"])
def test_a_followed_tail_survives_the_daemon(
    engine: Engine, driver: str, more: tuple[str, ...]
) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker's client ends with its daemon")
    name = engine.name()
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.005; done"
    engine.cli(
        "run", "-d", "--name", name, "--log-driver", driver, engine.image, "sh", "-c", script
    )
    time.sleep(0.5)
    logs = engine.start("logs", "-f", "--tail", "5", *more, name,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    for _ in range(2):
        time.sleep(0.5)
        rows = json.loads(engine.cli("daemon", "status", "--format", "json").out)["processes"]
        os.kill(next(row["pid"] for row in rows if row["role"] == "daemon"), signal.SIGKILL)
    out, err = logs.communicate(timeout=30)
    assert (logs.returncode, err) == (0, b"")
    numbers = [int(line.split()[-1]) for line in out.decode().splitlines()]
    assert numbers == list(range(numbers[0], 300))
    assert numbers[0] > 0
    engine.cli("rm", "-f", name)


def test_follow_goes_on_through_restarts(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker's follow ends with the run that it began in")
    name = engine.name()
    script = "echo run; sleep 0.2; exit 3"
    engine.cli(
        "run", "-d", "--name", name, "--restart", "on-failure:2", engine.image, "sh", "-c", script
    )
    assert engine.cli("logs", "-f", name).out == "run\n" * 3
    engine.cli("rm", "-f", name)


def test_follow_ends_with_the_container(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, engine.image, "sh", "-c", "echo a; sleep 1; echo b")
    assert engine.cli("logs", "-f", name).out == "a\nb\n"
    engine.cli("rm", "-f", name)
