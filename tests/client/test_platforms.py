"""`--platform` on images that are here: of another platform they are not, and another daemon is asked as docker's client asks."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from tests.client.recorder import CLIENT, Recorder, Request, reply
from tests.client.test_run import own_environment

ARM = '{"architecture":"arm64","os":"linux"}'


def images(request: Request, _: socket.socket) -> bytes:
    if request.target.partition("?")[0].endswith("/json"):
        return reply(200, b'{"Id":"sha256:0","Os":"linux","Architecture":"amd64"}')
    return reply(200, b"[]")


@pytest.mark.parametrize(
    "words", [["history"], ["image", "inspect"], ["rmi"], ["save", "-o", "/dev/null"]]
)
def test_an_image_of_another_platform_is_not_what_was_asked_for(
    words: list[str], tmp_path: Path
) -> None:
    with Recorder(images) as daemon:
        own = own_environment(daemon, tmp_path)
        for platform, code in (("linux/amd64", 0), ("linux/arm64", 1), ("amd64,nonsense?", 1)):
            result = daemon.run(CLIENT, *words, "--platform", platform, "img", env=own)
            assert result.returncode == code, (platform, result)
            if code:
                assert b"platform" in result.stderr and b"Traceback" not in result.stderr
        asked = [one for one in daemon.requests if not one.target.endswith("/json")]
    assert len(asked) <= 1, "refused before anything was done"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["history"], "platform"),
        (["image", "inspect"], "platform"),
        (["rmi"], "platforms"),
        (["save", "-o", "/dev/null"], "platform"),
    ],
)
def test_another_daemon_is_asked_by_docker_s_names(words: list[str], name: str) -> None:
    with Recorder(images) as daemon:
        daemon.run(CLIENT, *words, "--platform", "arm64", "img")
    (request,) = daemon.requests
    assert dict(parse_qsl(request.target.partition("?")[2]))[name] == ARM


def test_an_archive_gives_what_this_host_runs(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"")
    load = ["load", "-i", str(tmp_path / "archive"), "--platform", "mips64le"]
    with Recorder(images) as daemon:
        result = daemon.run(CLIENT, *load, env=own_environment(daemon, tmp_path))
        assert (result.returncode, daemon.requests) == (1, [])
        assert b"--platform mips64le is not served by this build" in result.stderr
        daemon.run(CLIENT, *load)
    query = dict(parse_qsl(daemon.requests[0].target.partition("?")[2]))
    assert json.loads(query["platform"]) == {"architecture": "mips64le", "os": "linux"}
