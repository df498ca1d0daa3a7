"""A websocket's messages to and from a socket of plain bytes, whose other end is a shim's client.

The daemon stands between here, as nowhere else: who is attached so is cut off when it ends, and the container is not.
A daemon that is stopped says so (1001, going away); of one that is killed the client sees the end of the stream only.
"""

from __future__ import annotations

import socket

import trio

from dockpy.http import websocket
from dockpy.transport.unix import CHUNK, Connection

# For the client's answer to our goodbye.
LINGER = 2.0


async def bridge(connection: Connection, plain: Connection, early: bytes, *, stdin: bool) -> None:
    """Until either side ends; says goodbye to the client. `early`: what it has sent already."""
    reader = websocket.Reader()
    code = websocket.NORMAL
    # Two tasks send: a frame must not begin within another.
    turn = trio.Lock()

    async def say(data: bytes) -> None:
        async with turn:
            connection.farewell = b""
            await connection.send(data)
            connection.farewell = websocket.close(websocket.GOING_AWAY)

    async def listen(scope: trio.CancelScope) -> None:
        nonlocal code
        try:
            data = early or await connection.receive(CHUNK)
            while data:
                for opcode, piece in reader.feed(data):
                    if opcode == websocket.CLOSE:
                        return
                    if opcode == websocket.PING:
                        await say(websocket.frame(websocket.PONG, piece))
                    elif opcode == websocket.BINARY and stdin and not over:
                        await put(piece)
                # A client that sends as fast as we read would have the daemon for itself.
                await trio.lowlevel.checkpoint()
                data = await connection.receive(CHUNK)
        except websocket.BadFrame:
            code = websocket.PROTOCOL_ERROR
        except ConnectionError:
            pass
        finally:
            scope.cancel()

    over: list[bool] = []  # the container takes no more

    async def put(piece: bytes) -> None:
        try:
            await plain.send(piece)
        except ConnectionError:
            over.append(True)

    async def speak(scope: trio.CancelScope) -> None:
        try:
            while data := await plain.receive(CHUNK):
                await say(websocket.frame(websocket.BINARY, data))
        except ConnectionError:
            pass
        finally:
            scope.cancel()

    try:
        connection.farewell = websocket.close(websocket.GOING_AWAY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, nursery.cancel_scope)
            nursery.start_soon(speak, nursery.cancel_scope)
        connection.farewell = b""
        with trio.move_on_after(LINGER):
            await connection.send(websocket.close(code))
            await connection.linger(LINGER)
    except (ConnectionError, trio.ClosedResourceError):
        pass
    finally:
        plain.close()


def pair() -> tuple[Connection, socket.socket]:
    """Our end, and the one for the shim."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    return Connection(ours), theirs
