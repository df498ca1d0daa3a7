"""The listening side alone: its limits, with times that a test can wait for."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from dockpy.errors import InvalidParameter, Unavailable
from dockpy.transport.server import Exchange, Handler, HttpServer, Limits, listen
from dockpy.transport.tls import server_context

HEAD = b"HTTP/1.1 200 OK\r\n"


async def answer(exchange: Exchange) -> None:
    await exchange.reply(200, body=await exchange.body(100))


async def refuse(exchange: Exchange) -> None:
    await exchange.reply(401)


@asynccontextmanager
async def serving(limits: Limits, handle: Handler = answer) -> AsyncIterator[int]:
    listeners = listen("127.0.0.1:0")
    port = listeners[0].getsockname()[1]
    server = HttpServer(handle, limits=limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, listeners)
        yield port
        server.stop()


async def said(stream: trio.SocketStream) -> bytes:
    with trio.fail_after(5):
        return bytes(await stream.receive_some())


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        (Limits(idle=0.1), b""),
        (Limits(block=0.1), b"PUT / HTTP/1.1\r\nHost: s\r\nContent-Length: 5\r\n\r\nab"),
    ],
)
def test_who_falls_asleep_is_hung_up_on(limits: Limits, sent: bytes) -> None:
    async def main() -> None:
        async with serving(limits) as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            if sent:
                await stream.send_all(sent)
            assert await said(stream) == b""

    trio.run(main)


@pytest.mark.parametrize(
    ("limits", "handle", "begin"),
    [
        (Limits(head=0.3), answer, b"GET / HTTP/1.1\r\nLong: "),
        # Refused, and the rest of its body is not waited for.
        (Limits(block=0.3), refuse, b"PUT / HTTP/1.1\r\nHost: s\r\nContent-Length: 5000\r\n\r\n"),
        # Welcome, as an upload is from who may push.
        (Limits(block=0.3), answer, b"PUT / HTTP/1.1\r\nHost: s\r\nContent-Length: 90\r\n\r\n"),
    ],
)  # fmt: skip
def test_who_trickles_is_hung_up_on(limits: Limits, handle: Handler, begin: bytes) -> None:
    async def main() -> None:
        async with serving(limits, handle) as port, trio.open_nursery() as nursery:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(begin)

            async def trickle() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await stream.send_all(b"x")
                        await trio.sleep(0.05)

            nursery.start_soon(trickle)
            got = b""
            with trio.fail_after(3), suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    got += data
            assert got[9:12] in (b"", b"401", b"408")
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_who_is_slow_and_not_too_slow_is_heard_to_the_end() -> None:
    async def main() -> None:
        async with serving(Limits(block=0.1, slowest=10)) as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"PUT / HTTP/1.1\r\nHost: s\r\nContent-Length: 100\r\n\r\n")
            for _ in range(10):
                await trio.sleep(0.03)
                await stream.send_all(b"x" * 10)
            assert (await said(stream)).startswith(HEAD)

    trio.run(main)


def test_who_does_not_read_is_hung_up_on() -> None:
    async def flood(exchange: Exchange) -> None:
        await exchange.begin(200, [])
        while True:
            await exchange.write(bytes(1 << 20))

    async def main() -> None:
        listeners = listen("127.0.0.1:0")
        server = HttpServer(flood, limits=Limits(block=0.2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, listeners)
            stream = await trio.open_tcp_stream(*listeners[0].getsockname()[:2])
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: s\r\n\r\n")
            await trio.sleep(0.5)
            with trio.fail_after(5):
                with pytest.raises(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
                    raise trio.BrokenResourceError  # an orderly end is one, too
            server.stop()

    trio.run(main)


def test_so_many_connections_at_once() -> None:
    async def main() -> None:
        async with serving(Limits(connections=2)) as port:
            streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
            for stream in streams:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: s\r\n\r\n")
            assert (await said(streams[0])).startswith(HEAD)
            assert (await said(streams[1])).startswith(HEAD)
            with trio.move_on_after(0.1) as scope:
                await streams[2].receive_some()
            assert scope.cancelled_caught
            await streams[0].aclose()
            assert (await said(streams[2])).startswith(HEAD)

    trio.run(main)


@pytest.mark.parametrize("address", ["", "5000", "host", "host:port", "127.0.0.1:-1", ":65536"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InvalidParameter, match="HOST:PORT"):
        listen(address)


def test_addresses() -> None:
    with pytest.raises(Unavailable, match="cannot listen on no.such.host.invalid:0"):
        listen("no.such.host.invalid:0")
    for address in ("localhost:0", "[::1]:0"):
        try:
            listeners = listen(address)
        except Unavailable:
            continue  # a machine without IPv6
        for listener in listeners:
            assert listener.getsockname()[0] in ("127.0.0.1", "::1")
            assert listener.family in (socket.AF_INET, socket.AF_INET6)
            listener.close()


def test_a_certificate_and_a_key_that_are_swapped(tmp_path: Path) -> None:
    """The library gives no reason for this one, and the sentence ended in "None"."""
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(Unavailable, match="no certificate with its key: [^N]"):
        server_context(str(key), str(key))
