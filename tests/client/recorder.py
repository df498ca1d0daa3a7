"""A daemon that only listens: it records requests and answers with what it is given, over a real unix socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable

TOP = Path(__file__).parents[2]
CLIENT = [
    sys.executable,
    "-ISc",
    f"import sys; sys.path.append({str(TOP)!r}); from dockpy.client.main import main; sys.exit(main(sys.argv[1:]))",
]
CONTAINER = "a" * 64
PING = (
    b"HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nOstype: linux\r\nBuilder-Version: 1\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)


class Request:
    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


Answer = Callable[[Request, socket.socket], "bytes | None"]


def reply(status: int, body: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def refuse_all(request: Request, _: socket.socket) -> bytes:
    if "/containers/create" in request.target:
        return reply(201, b'{"Id":"%b","Warnings":[]}' % CONTAINER.encode())
    return reply(500, b'{"message":"recorded"}')


class Recorder:
    """`with Recorder(answer) as daemon:` requests are in `daemon.requests`, the socket at `daemon.path`."""

    def __init__(self, answer: Answer = refuse_all) -> None:
        self._folder = tempfile.mkdtemp()
        self.path = os.path.join(self._folder, "s")
        self.requests: list[Request] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(50)

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        shutil.rmtree(self._folder)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_until_gone, args=(connection,), daemon=True).start()

    def _serve_until_gone(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        except ConnectionError:
            pass  # the client went first: that is its right

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while True:
                line = file.readline()
                if not line:
                    return
                headers: dict[str, str] = {}
                while True:
                    name, _, value = file.readline().decode().strip().partition(":")
                    if not name:
                        break
                    headers[name.lower()] = value.strip()
                body = file.read(int(headers.get("content-length", "0")))
                while headers.get("transfer-encoding") == "chunked":
                    size = int(file.readline(), 16)
                    body += file.read(size)
                    file.readline()
                    if not size:
                        break
                method, target, _ = line.decode().split()
                if target.endswith("/_ping"):
                    text = b"" if method == "HEAD" else b"OK"
                    connection.sendall(PING % (len(text), text))
                    continue
                request = Request(method, target, headers, body)
                self.requests.append(request)
                answer = self._answer(request, connection)
                if answer is None:
                    return
                connection.sendall(answer)

    def run(
        self, program: list[str], *arguments: str, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": self._folder,
            "DOCKER_HOST": f"unix://{self.path}",
            **more.pop("env", {}),
        }
        if "input" not in more:
            more.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [*program, *arguments],
            env=environ,
            capture_output=True,
            timeout=30,
            check=False,
            **more,
        )
