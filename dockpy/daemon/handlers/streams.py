"""A container's streams over HTTP: attach, its websocket, logs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import trio

from dockpy.api import query as q
from dockpy.daemon.exchange import MULTIPLEXED_STREAM, RAW_STREAM, Exchange
from dockpy.daemon.router import Handler
from dockpy.daemon.websocket import bridge, pair
from dockpy.errors import Conflict, InvalidParameter, NotServed
from dockpy.http import stdcopy
from dockpy.http.websocket import accept
from dockpy.supervisor import streams
from dockpy.supervisor.container import Client, Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.logs import LogDamaged, LogQuery, Piece, Reader, more, open_log

# For a shim to take a client over.
SHIM_WITHIN = 10.0


class StreamHandlers:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def table(self) -> dict[str, Handler]:
        return {
            "container_attach": self.attach,
            "attach_websocket": self.websocket,
            "container_logs": self.logs,
        }

    def _named(self, exchange: Exchange) -> Container:
        return self._containers.get(exchange.names["id"])

    async def attach(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        exchange.check_sinks()
        streams.check_attachable(container)
        wanted = {
            name: q.boolean(exchange.query, name)
            for name in ("stdin", "stdout", "stderr", "stream", "logs")
        }
        framed = not container.record.config.tty
        if wanted["logs"] and not wanted["stream"]:
            query = LogQuery(wanted["stdout"], wanted["stderr"])
            await self._send_logs(exchange, container, query)
            return
        keys = check_detach_keys(exchange.query.get("detachKeys", ""))
        sock, sinks, early = await exchange.hijack(framed=framed)
        client = Client(
            sock,
            stdin=wanted["stdin"],
            stdout=wanted["stdout"],
            stderr=wanted["stderr"],
            framed=framed,
            sinks=sinks,
            detach_keys=keys,
            early=early,
        )
        if wanted["logs"]:
            await self._backlog(container, client)
        await streams.attach(self._containers, container, client)

    async def _backlog(self, container: Container, client: Client) -> None:
        """`attach --logs`: what was said so far goes first, on the same connection."""
        query = LogQuery(client.stdout, client.stderr, raw=not client.framed)
        reader = open_log(self._containers, container, query)
        try:
            for header, piece in _everything(reader):
                data = memoryview(header + (piece if isinstance(piece, bytes) else piece.read()))
                while data:
                    try:
                        data = data[client.connection.send(data) :]
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(client.connection)
        except BaseException:
            client.close()
            raise
        finally:
            reader.close()

    async def websocket(self, exchange: Exchange) -> None:
        """As attach, but never multiplexed: each piece of either stream is a message of its own, in binary."""
        container = self._named(exchange)
        streams.check_attachable(container)
        stdin, stdout, stderr, stream, logs = (
            q.boolean(exchange.query, name)
            for name in ("stdin", "stdout", "stderr", "stream", "logs")
        )
        keys = check_detach_keys(exchange.query.get("detachKeys", ""))
        early = await exchange.switch(accept(exchange.request.headers))
        plain, theirs = pair()
        client = Client(
            theirs, stdin=stdin, stdout=stdout, stderr=stderr, framed=False, detach_keys=keys
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(bridge, exchange.connection, plain, early, stdin=stdin))
            try:
                if logs:
                    await self._backlog(container, client)
                if stream:
                    with trio.move_on_after(SHIM_WITHIN, shield=True):
                        await streams.attach(self._containers, container, client)
                else:
                    client.close()
            except (ConnectionError, NotServed, Conflict, LogDamaged):
                client.close()  # the client went, or there is no log to tell: a goodbye is all that can be said

    async def logs(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        query = exchange.query
        stdout, stderr = q.boolean(query, "stdout"), q.boolean(query, "stderr")
        if not stdout and not stderr:
            raise InvalidParameter("Bad parameters: you must choose at least one stream")
        text = query.get("tail", "all")
        tail: int | None = int(text) if text.isdigit() and len(text) < 10 else None
        wanted = LogQuery(
            stdout=stdout,
            stderr=stderr,
            follow=q.boolean(query, "follow"),
            tail=tail,
            since=q.timestamp(query.get("since", ""), "since") or 0,
            timestamps=q.boolean(query, "timestamps"),
            details=q.boolean(query, "details"),
            marks=q.boolean(query, "marks"),
            start=query.get("mark", ""),
        )
        until = q.timestamp(query.get("until", ""), "until")
        if until is not None:
            wanted = replace(wanted, until=until)
        await self._send_logs(exchange, container, wanted)

    async def _send_logs(self, exchange: Exchange, container: Container, query: LogQuery) -> None:
        reader = open_log(self._containers, container, query)
        framed = query.marks or not container.record.config.tty
        try:
            await exchange.begin(
                MULTIPLEXED_STREAM if framed and exchange.version >= (1, 42) else RAW_STREAM
            )
            try:
                await exchange.write(reader.mark())
                await _send_pieces(exchange, reader)
                if query.follow:
                    await self._follow(exchange, container, reader, query)
                await _send_all(exchange, reader.rest())
            except LogDamaged as error:
                text = f"Error grabbing logs: {error}\n".encode()
                await exchange.write(stdcopy.frame(stdcopy.SYSTEM_ERROR, text) if framed else text)
            await exchange.end()
        finally:
            reader.close()

    async def _follow(
        self, exchange: Exchange, container: Container, reader: Reader, query: LogQuery
    ) -> None:
        async def wait_more() -> bool:
            return await more(container, reader, through_restarts=query.marks)

        with trio.move_on_after(reader.seconds_left()):
            while await exchange.while_connected(wait_more):
                await _send_pieces(exchange, reader)
        await _send_pieces(exchange, reader)


async def _send_pieces(exchange: Exchange, reader: Reader) -> None:
    while True:
        # A thread's turn each, since a file may have to be unpacked.
        batch = await trio.to_thread.run_sync(reader.batch)
        if not batch:
            return
        await _send_all(exchange, batch)
        await exchange.write(reader.mark())


async def _send_all(exchange: Exchange, batch: list[tuple[bytes, Piece]]) -> None:
    for header, piece in batch:
        if isinstance(piece, bytes):
            await exchange.write(header + piece)
        else:
            await exchange.write_file(header, piece.fd, piece.offset, piece.length)
        # A client that reads as fast as we write would have the daemon for itself.
        await trio.lowlevel.checkpoint()


def _everything(reader: Reader) -> Iterator[tuple[bytes, Piece]]:
    while True:
        batch = reader.batch()
        if not batch:
            break
        yield from batch
    yield from reader.rest()


def check_detach_keys(text: str) -> str:
    """docker's grammar: letters, or ctrl- with a-z or one of @[\\]^_, separated by commas."""
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii() and key.isalpha():
            continue
        if key.startswith("ctrl-") and len(key) == 6 and (key[5].islower() or key[5] in "@[\\]^_"):
            continue
        raise InvalidParameter(f"Invalid detach keys ({text}) provided")
    return text
