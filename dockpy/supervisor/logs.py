"""Reading logs back: pieces ready to be sent, and waiting for more without looking again and again.

Where nobody asked for times, the local driver's bytes go out by sendfile in large runs; else line by
line. What a container has written before its exit is read to its end also when it is removed meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

import trio

from dockpy.errors import DockpyError, NotServed
from dockpy.shim.log import (
    FOREVER,
    Entry,
    JsonFileReader,
    LocalReader,
    Run,
    json_path,
    rfc3339_nano,
)
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.shims import Lost, Shim

# A block of lines is put together before it is sent.
BLOCK = 1 << 17
FOLLOW_WAIT = 3600.0
# When a shim cannot tell that its log has grown.
LOOK_AGAIN = 0.5

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


def open_log(containers: Containers, container: Container, query: LogQuery) -> Reader:
    """Blocking, short: opens the files, and seeks the tail."""
    driver = container.record.host_config.log_config.type
    if driver == "none":
        raise NotServed("configured logging driver does not support reading")
    bundle = containers.folders.bundle(container.id)
    streams = frozenset(([1] if query.stdout else []) + ([2] if query.stderr else []))
    reader: LocalReader | JsonFileReader
    if driver == "json-file":
        reader = JsonFileReader(
            json_path(bundle, container.id),
            tail=query.tail,
            since=query.since,
            until=query.until,
            streams=streams,
        )
    else:
        reader = LocalReader(
            f"{bundle}/log", tail=query.tail, since=query.since, until=query.until, streams=streams
        )
    return Reader(reader, framed=not container.record.config.tty, query=query)


class Reader:
    """One reading of one log."""

    def __init__(
        self, reader: LocalReader | JsonFileReader, *, framed: bool, query: LogQuery
    ) -> None:
        self._reader = reader
        self._framed = framed
        self._query = query

    def seconds_left(self) -> float:
        """Until nothing more is wanted."""
        until = self._query.until
        return float("inf") if until == FOREVER else max((until - time.time_ns()) / 1e9, 0.0)

    def close(self) -> None:
        self._reader.close()

    def position(self) -> tuple[int, int]:
        return self._reader.position()

    def pieces(self) -> Iterator[tuple[bytes, Piece]]:
        """(frame header or b"", payload) pairs up to the present end."""
        if isinstance(self._reader, LocalReader) and not self._query.timestamps:
            while True:
                runs = self._reader.runs()
                if not runs:
                    return
                for run in runs:
                    header = _header(run.stream, run.length) if self._framed else b""
                    yield header, run
        yield from self._blocks(self._reader.entries())

    def rest(self) -> Iterator[tuple[bytes, Piece]]:
        """An unfinished line, when nothing more will come."""
        if isinstance(self._reader, LocalReader) and not self._query.timestamps:
            return
        yield from self._blocks(self._reader.finish())

    def _blocks(self, entries: Iterator[Entry]) -> Iterator[tuple[bytes, Piece]]:
        parts: list[bytes] = []
        size = 0
        for entry in entries:
            data = entry.data
            if self._query.timestamps:
                data = f"{rfc3339_nano(entry.time, fixed=True)} ".encode() + data
            if self._framed:
                parts.append(_header(entry.stream, len(data)))
            parts.append(data)
            size += len(data)
            if size >= BLOCK:
                yield b"", b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"", b"".join(parts)


def _header(stream: int, length: int) -> bytes:
    return bytes((stream, 0, 0, 0)) + length.to_bytes(4, "big")


async def more(container: Container, reader: Reader) -> bool:
    """Waits until the log may have grown; False when it will not any more."""
    if not container.state.live and not container.being_restarted:
        return False
    over = container.exits.add()
    async with trio.open_nursery() as nursery:

        async def wait_over() -> None:
            await over.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_over)
        await _grown(container.shim, reader.position())
        nursery.cancel_scope.cancel()
    return True


async def _grown(shim: Shim | None, position: tuple[int, int]) -> None:
    try:
        if shim is None:
            raise Lost("between two runs")
        await shim.ask(lambda link: link.grown(position), within=FOLLOW_WAIT)
    except DockpyError:
        await trio.sleep(LOOK_AGAIN)
