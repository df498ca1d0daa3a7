"""From an accepted connection to exchanges, one after the other, until one side has enough.

Whatever a client sends, the answer is a status and a sentence, and the traceback, if there is one,
goes to the log.
"""

from __future__ import annotations

import json
import logging

import trio

from dockpy.daemon.exchange import Exchange, PeerGone
from dockpy.daemon.router import Router
from dockpy.daemon.status import status_of
from dockpy.errors import DockpyError, sentence
from dockpy.http.codec import REASONS, BadRequest, ServerCodec, raw_head
from dockpy.transport.requests import next_request
from dockpy.transport.unix import Connection

log = logging.getLogger(__name__)

# Between the first byte of a head and its last. Idle connections may stay, as with docker.
HEAD_WITHIN = 60.0

# After a refusal, what the client is still sending is read away for so long: else it gets a reset
# before it has read the answer.
LINGER = 1.0

_GONE = (PeerGone, BrokenPipeError, ConnectionError, trio.ClosedResourceError)


class Server:
    def __init__(self, router: Router) -> None:
        self._router = router
        self._open: set[Connection] = set()
        self.quiet_since = trio.current_time()

    @property
    def connections(self) -> int:
        return len(self._open)

    async def handle(self, connection: Connection) -> None:
        """Serves one connection; never raises but for cancellation."""
        self._open.add(connection)
        try:
            await self._serve(connection)
        except _GONE:
            pass
        except Exception:
            log.exception("a connection was given up")
        finally:
            self._open.discard(connection)
            self.quiet_since = trio.current_time()

    def hang_up(self) -> None:
        """Ends worker threads that sit in a transfer, at the daemon's end."""
        for connection in self._open:
            connection.hang_up()

    async def _serve(self, connection: Connection) -> None:
        codec = ServerCodec()
        while True:
            try:
                request = await next_request(connection, codec, head=HEAD_WITHIN)
            except BadRequest as error:
                await self._refuse(connection, codec, error)
                return
            if request is None:
                return
            exchange = Exchange(connection, codec, request)
            try:
                await self._router.dispatch(exchange)
            except DockpyError as error:
                await self._tell(exchange, status_of(error), str(error))
            except BadRequest as error:
                exchange.broken = True
                await self._tell(exchange, error.status, str(error))
            except _GONE:
                return
            except OSError as error:
                log.exception("%s %s failed", request.method, request.path)
                await self._tell(exchange, 500, sentence(error))
            except Exception:
                log.exception("%s %s failed", request.method, request.path)
                await self._tell(
                    exchange, 500, "internal error; `dockpy daemon logs` has the details"
                )
            if not await exchange.finish():
                if not connection.handed_over:
                    await connection.linger(LINGER)
                return

    async def _tell(self, exchange: Exchange, status: int, message: str) -> None:
        if exchange.begun:
            # The status has gone: what is left is to stop, so that the client sees a torn body.
            log.warning("%s %s: %s", exchange.request.method, exchange.request.path, message)
            exchange.broken = True
            return
        await exchange.reply(status, None if status == 304 else {"message": message})

    async def _refuse(self, connection: Connection, codec: ServerCodec, error: BadRequest) -> None:
        # h11 ends its sentences with the bytes that it did not like.
        sentence = str(error).partition(": ")[0]
        body = json.dumps({"message": f"bad request: {sentence}"}).encode() + b"\n"
        reason = REASONS.get(error.status, b"Bad Request").decode()
        head = raw_head(
            error.status,
            reason,
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ],
        )
        await connection.send(head + body)
        await connection.linger(LINGER)
