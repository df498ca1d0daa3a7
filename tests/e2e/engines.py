"""An engine under test: a command line run as some user, and where its files and socket are.

The same cases run against the built dockpy file as several users, and against a real docker where
one is installed: a case that fails there is wrong about docker, not about us.
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_counter = itertools.count(1)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass
class Engine:
    """`command` is what the user types; it runs as `uid`:`gid` with exactly `environ`."""

    label: str
    command: list[str]
    uid: int
    gid: int
    environ: dict[str, str]
    is_dockpy: bool
    image: str = "localhost/busybox:latest"
    extra: dict[str, str] = field(default_factory=dict)

    def name(self) -> str:
        """A container name that no other test uses."""
        return f"e2e-{os.getpid()}-{next(_counter)}"

    def popen_as(self, env: dict[str, str] | None = None) -> dict[str, Any]:
        """Keyword arguments for subprocess that make a child this user's."""
        options: dict[str, Any] = {"env": {**self.environ, **(env or {})}, "cwd": "/"}
        if os.getuid() == 0 and self.uid != 0:
            options.update(user=self.uid, group=self.gid, extra_groups=[])
        return options

    def cli(
        self,
        *args: str,
        input: bytes | None = None,
        timeout: float = 90,
        env: dict[str, str] | None = None,
    ) -> Result:
        feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(
            [*self.command, *args],
            capture_output=True,
            timeout=timeout,
            **feed,
            **self.popen_as(env),
        )
        return Result(
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([*self.command, *args], **options, **self.popen_as())

    def shell(self, *args: str) -> str:
        """The command as a shell would be given it."""
        return shlex.join([*self.command, *args])

    def give(self, path: Path) -> None:
        """Makes a folder of the test this user's."""
        os.chown(path, self.uid, self.gid)


@dataclass(frozen=True)
class DockerCli:
    """The docker client on the socket of a dockpy engine."""

    program: str
    engine: Engine

    def cli(self, *args: str, input: bytes | None = None) -> Result:
        socket = self.engine.cli("version", "--format", "{{.Client.Context}}")  # starts the daemon
        assert socket.code == 0, socket.err
        path = self.engine.extra["socket"]
        feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(
            [self.program, *args], capture_output=True, timeout=90, **feed,
            **self.engine.popen_as({"DOCKER_HOST": f"unix://{path}", "PATH": os.environ["PATH"]}),
        )  # fmt: skip
        return Result(
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
