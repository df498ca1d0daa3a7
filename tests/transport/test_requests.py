"""How long a server of ours waits for a request: the daemon's, too."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
import trio

from dockpy.http.codec import BadRequest, ServerCodec
from dockpy.transport.requests import next_request
from dockpy.transport.unix import Connection

HEAD = b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n"


def pair() -> tuple[socket.socket, Connection]:
    near, far = socket.socketpair()
    far.setblocking(False)
    return near, Connection(far)


def test_a_head_has_so_long_as_a_whole_and_silence_before_it_as_long_as_it_likes() -> None:
    async def main() -> None:
        client, wire = pair()
        codec = ServerCodec()

        async def trickle() -> None:
            await trio.sleep(0.3)
            with suppress(OSError):
                for byte in b"GET / HTTP/1.1\r\nLong: " + b"x" * 1000:
                    client.send(bytes([byte]))
                    await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            with trio.fail_after(3), pytest.raises(BadRequest, match="took too long") as raised:
                await next_request(wire, codec, head=0.2)
            nursery.cancel_scope.cancel()
        assert raised.value.status == 408
        client.close()

    trio.run(main)


def test_requests_come_until_the_client_closes_or_says_nothing() -> None:
    async def main() -> None:
        client, wire = pair()
        client.sendall(HEAD)
        found = await next_request(wire, ServerCodec(), head=1)
        assert found is not None and found.path == "/x"
        assert await next_request(wire, ServerCodec(), head=1, idle=0.05) is None
        client.close()
        assert await next_request(wire, ServerCodec(), head=1) is None

    trio.run(main)
