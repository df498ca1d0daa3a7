"""Reading logs back: pieces ready to be sent, and waiting for more without looking again and again.

Where nobody asked for times, the local driver's bytes go out to our own client, and from terminals, by
sendfile in large runs; else line by line. What a container has written before its exit is read to its
end also when it is removed meanwhile.

A follow ends with the run it began in, as docker's. Our own client asks for more: it hears marks, from
which a later request goes on at the right byte (of a next daemon, say), and is kept through restarts.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Union
from urllib.parse import quote_plus

import trio

from dockpy.errors import Conflict, DockpyError, NotServed
from dockpy.http import stdcopy
from dockpy.shim.log import (
    FOREVER,
    Entry,
    LocalReader,
    Run,
    json_path,
    recover,
    rfc3339_nano,
)
from dockpy.shim.log import (
    LogDamaged as LogDamaged,
)
from dockpy.shim.logjson import JsonFileReader
from dockpy.shim.packed import pack_json, pack_local
from dockpy.supervisor import logoptions
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.shims import Lost, Shim

log = logging.getLogger(__name__)

# A block of lines is put together before it is sent.
BLOCK = 1 << 17
FOLLOW_WAIT = 3600.0
# When a shim cannot tell that its log has grown.
LOOK_AGAIN = 0.5
# What was rotated away is compressed later, in the daemon: a flood is deleted before its turn comes.
PACK_EVERY, PACK_AGE = 30.0, 20.0

Piece = Union[bytes, Run]


@dataclass(frozen=True)
class LogQuery:
    stdout: bool
    stderr: bool
    follow: bool = False
    tail: int | None = None
    since: int = 0  # nanoseconds
    until: int = FOREVER
    timestamps: bool = False
    details: bool = False
    marks: bool = False  # our own client's: framed in any case, with marks between
    start: str = ""  # a mark
    raw: bool = False  # never framed


class NotReadable(NotServed):
    """The driver keeps nothing."""


def open_log(containers: Containers, container: Container, query: LogQuery) -> Reader:
    """Blocking, short: opens the files, and seeks the tail."""
    if container.removing:
        raise Conflict("can not get logs from container which is dead or marked for removal")
    log_config = container.record.host_config.log_config
    if log_config.type == "none":
        raise NotReadable("configured logging driver does not support reading")
    bundle = containers.folders.bundle(container.id)
    streams = frozenset(([1] if query.stdout else []) + ([2] if query.stderr else []))
    local = log_config.type != "json-file"
    path = f"{bundle}/log" if local else json_path(bundle, container.id)
    if container.state.begun and not os.path.exists(path):
        raise LogDamaged(f"the log of container {container.name} is missing: {path} was deleted")
    if local and not container.state.live and container.state.boot != containers.host.boot:
        recover(path)
    kind = LocalReader if local else JsonFileReader
    reader = kind(
        path,
        tail=query.tail,
        since=query.since,
        until=query.until,
        streams=streams,
        start=query.start,
    )
    attributes = logoptions.attributes(container.record) if local and query.details else {}
    framed = query.marks or not (query.raw or container.record.config.tty)
    return Reader(reader, framed=framed, query=query, attributes=attributes)


class Reader:
    """One reading of one log."""

    def __init__(
        self,
        reader: LocalReader | JsonFileReader,
        *,
        framed: bool,
        query: LogQuery,
        attributes: Mapping[str, str],
    ) -> None:
        self._reader = reader
        self._framed = framed
        self._query = query
        self._attributes = attributes
        # Clients other than ours, docker's SDKs foremost, take a frame for a line, as docker's are.
        self._plain = not query.timestamps and not query.details and (query.marks or not framed)
        self._entries: Iterator[tuple[bytes, Piece]] | None = None
        self._stood: tuple[int, int] | None = None

    def seconds_left(self) -> float:
        """Until nothing more is wanted."""
        until = self._query.until
        return float("inf") if until == FOREVER else max((until - time.time_ns()) / 1e9, 0.0)

    def close(self) -> None:
        self._reader.close()

    def position(self) -> tuple[int, int]:
        return self._reader.position()

    def stuck(self, position: tuple[int, int], waited: float) -> bool:
        """Whether it was told at once, and again, that there is more where it found nothing."""
        again = self._stood == position and waited < LOOK_AGAIN
        self._stood = position
        return again

    def mark(self) -> bytes:
        """A frame that says where it stands; b"" where nobody asked, or it stands within a line."""
        mark = self._reader.mark() if self._query.marks else ""
        return stdcopy.frame(stdcopy.MARK, f"{mark}\n".encode()) if mark else b""

    def batch(self) -> list[tuple[bytes, Piece]]:
        """The next (frame header or b"", payload) pairs; empty at the present end. Blocking: it may
        unpack a file. LogDamaged when somebody has changed the files.
        """
        if self._plain and isinstance(self._reader, JsonFileReader):
            return [
                (stdcopy.header(stream, len(text)) if self._framed else b"", text)
                for stream, text in self._reader.texts()
            ]
        if self._plain and isinstance(self._reader, LocalReader):
            return [
                (stdcopy.header(run.stream, run.length) if self._framed else b"", run)
                for run in self._reader.runs()
            ]
        if self._entries is None:
            self._entries = self._blocks(self._reader.entries())
        found = list(islice(self._entries, 1))
        if not found:
            self._entries = None
        return found

    def rest(self) -> list[tuple[bytes, Piece]]:
        """An unfinished line, when nothing more will come."""
        return [] if self._plain else list(self._blocks(self._reader.finish()))

    def _blocks(self, entries: Iterator[Entry]) -> Iterator[tuple[bytes, Piece]]:
        parts: list[bytes] = []
        size = 0
        for entry in entries:
            data = entry.data
            if self._query.details:
                data = _details(entry.attrs or self._attributes) + b" " + data
            if self._query.timestamps:
                data = f"{rfc3339_nano(entry.time, fixed=True)} ".encode() + data
            if self._framed:
                parts.append(stdcopy.header(entry.stream, len(data)))
            parts.append(data)
            size += len(data)
            if size >= BLOCK:
                yield b"", b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"", b"".join(parts)


def _details(attributes: Mapping[str, str]) -> bytes:
    """As docker shows them: sorted, and quoted as in a query."""
    return ",".join(
        f"{quote_plus(str(key))}={quote_plus(str(attributes[key]))}" for key in sorted(attributes)
    ).encode()


async def more(container: Container, reader: Reader, *, through_restarts: bool) -> bool:
    """Waits until the log may have grown; False when it will not any more."""
    if not container.state.running and not (
        through_restarts and (container.state.live or container.being_restarted)
    ):
        return False
    over = container.exits.add()
    before, began = reader.position(), trio.current_time()
    async with trio.open_nursery() as nursery:

        async def wait_over() -> None:
            await over.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_over)
        await _grown(container.shim, before)
        if reader.stuck(before, trio.current_time() - began):
            # The shim's log is not the one that is read: somebody has changed the files.
            await trio.sleep(LOOK_AGAIN)
        nursery.cancel_scope.cancel()
    return through_restarts or not over.ready.is_set()


async def _grown(shim: Shim | None, position: tuple[int, int]) -> None:
    try:
        if shim is None:
            raise Lost("between two runs")
        await shim.ask(lambda link: link.grown(position), within=FOLLOW_WAIT)
    except DockpyError:
        await trio.sleep(LOOK_AGAIN)


# ---------------------------------------------------------------------------------- compression


async def pack_for_ever(containers: Containers) -> None:
    """Compresses rotated files, of running containers and of those that have ended since it looked."""
    ended: set[str] = set()
    while True:
        for container in containers.all():
            if container.id in ended or not logoptions.compressed(container.record):
                continue
            if not container.state.live:
                ended.add(container.id)
            else:
                ended.discard(container.id)
            await trio.to_thread.run_sync(_pack, containers, container, limiter=containers.disk)
        await trio.sleep(PACK_EVERY)


def _pack(containers: Containers, container: Container) -> None:
    bundle = containers.folders.bundle(container.id)
    latest = time.time() - PACK_AGE if container.state.live else float("inf")

    def old_enough(status: os.stat_result) -> bool:
        return status.st_mtime <= latest

    try:
        if container.record.host_config.log_config.type == "json-file":
            pack_json(json_path(bundle, container.id), old_enough)
        else:
            pack_local(f"{bundle}/log", old_enough)
    except FileNotFoundError:
        pass  # never started, or removed meanwhile
    except OSError as error:
        log.warning("the log of container %s stays as it is: %s", container.id[:12], error)
