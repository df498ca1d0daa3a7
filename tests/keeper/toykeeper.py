"""A keeper with the plain launcher and a daemon of a few lines: one JSON line a connection runs a
process.

`{"cid":…,"args":[…]}` is answered by the process's events as JSON lines, at its exit the connection ends.
`{"stop":true}` ends daemon and keeper, `{"idle":true}` too unless somebody waits, `{"crash":true}` the daemon
only.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Any

from dockpy import ids, reexec
from dockpy.keeper.main import run
from dockpy.keeper.options import Options
from dockpy.keeper.place import is_there
from dockpy.keeper.protocol import Born, KeeperLink, NewListener, NotBorn
from dockpy.keeper.takeover import spawn
from dockpy.paths import Paths
from dockpy.shim.protocol import (
    Exit,
    Failed,
    LogConfig,
    ShimLink,
    Start,
    Started,
)
from tests.shim.standin import PlainLauncher

NAMES: dict[type, str] = {Started: "started", Failed: "failed", Exit: "exit"}
BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from tests.keeper.toykeeper import main; main(sys.argv[1:])"
)


def toy_argv(root: str) -> Callable[..., list[str]]:
    """In place of reexec.argv: processes of ours play the toy's roles."""
    return lambda role, *args: [sys.executable, "-IS", "-c", BOOT, root, *args]


def main(argv: list[str]) -> None:
    reexec.argv = toy_argv(sys.path[0])
    os._exit(run(Options(argv), PlainLauncher(), serve))


def serve(paths: Paths, listen: int, keeper: int, lock: int, info: dict[str, str]) -> int:
    return Toy(paths, listen, keeper, lock, info).serve()


class Toy:
    def __init__(
        self, paths: Paths, listen: int, keeper: int, lock: int, info: dict[str, str]
    ) -> None:
        self.paths, self.lock, self.info = paths, lock, info
        self.listeners = [socket.socket(fileno=os.dup(listen))]
        self.link = KeeperLink(keeper)

    def serve(self) -> int:
        while True:
            readable, _, _ = select.select([*self.listeners, self.link], [], [])
            if self.link in readable:
                answer = self.link.receive()
                if answer is None:
                    if not is_there(self.paths, self.lock):
                        return 0  # the test is over
                    self.link = KeeperLink(
                        spawn(self.paths, self.listeners[-1].fileno(), self.lock, self.info)
                    )
                elif isinstance(answer, NewListener):
                    self.listeners.append(socket.socket(fileno=answer.fd))
                continue
            conn, _ = readable[0].accept()
            line = conn.makefile().readline()
            if not line:
                continue
            request = json.loads(line)
            if request.get("stop"):
                self.link.stop()
                return 0
            if request.get("idle"):
                return 0
            if request.get("crash"):
                os.abort()
            self.run(conn, request)

    def run(self, conn: socket.socket, request: dict[str, Any]) -> None:
        cid = request["cid"]
        bundle = f"{self.paths.containers}/{cid}"
        os.makedirs(bundle, exist_ok=True)
        with open(f"{bundle}/config.json", "w") as file:
            json.dump({"process": {"args": request["args"]}}, file)
        shim, control = ShimLink.pair()
        start = Start(
            cid,
            bundle,
            f"{self.info['run']}/s/{cid[:16]}.sock",
            ids.boot_id(),
            LogConfig("local", f"{bundle}/log"),
        )
        self.link.start_shim(start, control)
        os.close(control)
        select.select([self.link], [], [])
        while isinstance(answer := self.link.receive(), NewListener):
            self.listeners.append(socket.socket(fileno=answer.fd))
            select.select([self.link], [], [])
        assert isinstance(answer, (Born, NotBorn))
        if isinstance(answer, Born):
            os.close(answer.pidfd)
        if request.get("leave"):
            conn.close()
            return
        while True:
            select.select([shim], [], [])
            message = shim.receive()
            if message is None:
                break
            conn.sendall(
                json.dumps({"event": NAMES[type(message)], **message.__dict__}).encode() + b"\n"
            )
            if isinstance(message, Failed):
                break
        shim.close()
        conn.close()
