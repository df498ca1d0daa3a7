"""A real shim in a fork of the test process, with a plain child as its container."""

from __future__ import annotations

import _socket
import json
import os
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dockpy.linux.title import Title
from dockpy.shim.main import catch_signals
from dockpy.shim.main import main as shim_main
from dockpy.shim.packets import close_others, send_raw
from dockpy.shim.protocol import (
    Attachment,
    Exit,
    LogConfig,
    ShimLink,
    Sinks,
    Start,
    Started,
)
from tests.shim.standin import PlainLauncher

if TYPE_CHECKING:
    from dockpy.shim.protocol import Message

Kind = TypeVar("Kind")
CID = "c0ffee" * 10 + "abcd"


@dataclass
class Shim:
    bundle: Path
    pid: int
    link: ShimLink
    heard: list[Message] = field(default_factory=list)

    def hear(self, kind: type[Kind], timeout: float = 10.0) -> Kind:
        """The next message of that kind, whatever comes before it."""
        deadline = time.monotonic() + timeout
        while True:
            for at, earlier in enumerate(self.heard):
                if isinstance(earlier, kind):
                    del self.heard[at]
                    return earlier
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.link], [], [], left)[0]:
                raise TimeoutError(f"no {kind.__name__}, but {self.heard}")
            message = self.link.receive()
            if message is None:
                raise EOFError(f"no {kind.__name__}, but {self.heard}, and the shim has ended")
            self.heard.append(message)

    def code(self, timeout: float = 10.0) -> int:
        return self.hear(Exit, timeout).code

    def ended(self, timeout: float = 10.0) -> bool:
        """Whether the shim process itself ends in time."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.pid < 0 or os.waitpid(self.pid, os.WNOHANG)[0]:
                self.pid = -1
                return True
            time.sleep(0.005)
        return False

    def exit_file(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.bundle / "exit.json").read_bytes())
        return record

    def log(self) -> bytes:
        folder = self.bundle / "log"
        names = sorted(folder.glob("*.data"), key=lambda path: int(path.stem))
        return b"".join(path.read_bytes() for path in names)


def start_shim(
    folder: Path,
    *args: str,
    attachments: tuple[Attachment, ...] = (),
    rest: int | None = None,
    **options: Any,
) -> Shim:
    """Starts it with `args` as the process; the attachments' descriptors are closed here. With `rest`
    it rests as soon as it can, and writes a byte there each time.
    """
    bundle = folder / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_text(json.dumps({"process": {"args": args}}))
    options.setdefault("log", LogConfig("local", str(bundle / "log")))
    start = Start(
        CID, str(bundle), str(folder / "s.sock"), "boot", attachments=attachments, **options
    )
    link, control = ShimLink.pair()
    fds: list[int] = []
    packet = json.dumps({"op": "shim", "seq": 1, "start": start.to_json(fds)}).encode()
    line, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    send_raw(line, packet, [control, *fds])
    pid = os.fork()
    if pid == 0:
        try:
            close_others([theirs.fileno()] if rest is None else [theirs.fileno(), rest])
            catch_signals()
            quiet = 5000 if rest is None else 50
            shim_main(theirs, PlainLauncher(), Title(), lambda: tell(rest), quiet)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(70)
    line.close()
    theirs.close()
    for fd in {control, *fds}:
        os.close(fd)
    return Shim(bundle, pid, link)


def tell(rest: int | None) -> None:
    if rest is not None:
        os.write(rest, b"z")


def started(folder: Path, *args: str, **options: Any) -> Shim:
    shim = start_shim(folder, *args, **options)
    shim.hear(Started)
    return shim


def client(**options: Any) -> tuple[socket.socket, Attachment]:
    """The client's end of a connection and the attachment with the other one."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    sinks = Sinks(
        **{name: options.pop(name + "_fd", None) for name in ("stdin", "stdout", "stderr")}
    )
    return ours, Attachment(theirs.detach(), sinks=sinks, **options)


def read_all(source: socket.socket | int, timeout: float = 10.0) -> bytes:
    """Until the end; TimeoutError when that does not come."""
    parts: list[bytes] = []
    deadline = time.monotonic() + timeout
    fd = source if isinstance(source, int) else source.fileno()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise TimeoutError(f"no end after {b''.join(parts)[-200:]!r}")
        part = os.read(fd, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)


def read_until(source: socket.socket | int, wanted: bytes, timeout: float = 10.0) -> bytes:
    said = b""
    deadline = time.monotonic() + timeout
    fd = source if isinstance(source, int) else source.fileno()
    while wanted not in said:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise TimeoutError(f"{wanted!r} is not in {said[-500:]!r}")
        part = os.read(fd, 1 << 16)
        if not part:
            raise EOFError(f"{wanted!r} is not in {said[-500:]!r}")
        said += part
    return said


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """stdcopy frames, those of one stream in a row joined."""
    found: list[tuple[int, bytes]] = []
    while data:
        stream, size = data[0], int.from_bytes(data[4:8], "big")
        payload, data = data[8 : 8 + size], data[8 + size :]
        if found and found[-1][0] == stream:
            found[-1] = (stream, found[-1][1] + payload)
        else:
            found.append((stream, payload))
    return found


def in_thread(call: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=call, args=args, daemon=True)
    thread.start()
    return thread
