"""A process that has the daemon's events and HTTP and nothing else: SOCKET RATE SECONDS.

Prints a line when it serves, publishes at that rate from the end of its standard input on, and then
serves what is left to be heard until it is ended.
"""

from __future__ import annotations

import socket
import sys

import trio

from dockpy.daemon.handlers.events import EventHandlers
from dockpy.daemon.router import Router
from dockpy.daemon.server import Server
from dockpy.supervisor.events import Events
from dockpy.transport.unix import serve

STEP = 0.01  # seconds
ATTRIBUTES = {"image": "localhost/busybox:latest", "name": "bench-1234-56", "exitCode": "0"}


async def main(path: str, rate: int, seconds: float) -> None:
    events = Events()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, listener, Server(Router(EventHandlers(events).table())).handle)
        print("serves", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        begun, told = trio.current_time(), 0
        while told < rate * seconds:
            due = min(int((trio.current_time() - begun) * rate), int(rate * seconds))
            for number in range(told, due):
                events.publish("container", "die", f"{number:064x}", ATTRIBUTES)
            told = due
            await trio.sleep(STEP)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
