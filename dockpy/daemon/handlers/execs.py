"""Exec over HTTP."""

from __future__ import annotations

from dockpy.api.container import ExecCreate
from dockpy.api.fields import decode, parse_flag, parse_object
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.handlers.containers import size
from dockpy.daemon.handlers.streams import check_detach_keys
from dockpy.daemon.router import Handler
from dockpy.errors import InvalidParameter
from dockpy.supervisor import exec as execs
from dockpy.supervisor import inspect
from dockpy.supervisor.container import Client
from dockpy.supervisor.containers import Containers


class ExecHandlers:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def table(self) -> dict[str, Handler]:
        return {
            "exec_create": self.create,
            "exec_start": self.start,
            "exec_inspect": self.inspect,
            "exec_resize": self.resize,
        }

    async def create(self, exchange: Exchange) -> None:
        container = self._containers.get(exchange.names["id"])
        raw = parse_object(await exchange.json(), "the body")
        request = decode(ExecCreate, raw, "")
        check_detach_keys(request.detach_keys)
        exec_ = execs.create(self._containers, container, request)
        if raw.get("ConsoleSize") is not None:
            exec_.console_size = _console_size(raw["ConsoleSize"])
        await exchange.reply(201, {"Id": exec_.id})

    async def start(self, exchange: Exchange) -> None:
        container, exec_ = self._containers.exec(exchange.names["id"])
        raw = parse_object(await exchange.json(empty={}), "the body")
        detach = parse_flag(raw.get("Detach"), "Detach")
        exchange.check_sinks()
        if raw.get("ConsoleSize") is not None:
            if not exec_.request.tty:
                raise InvalidParameter(
                    "console size is only supported when the exec has a terminal"
                )
            exec_.console_size = _console_size(raw["ConsoleSize"])
        execs.check_startable(container, exec_)
        if detach:
            await execs.start(self._containers, container, exec_, None)
            await exchange.reply(200)
            return
        request = exec_.request
        framed = not request.tty
        try:
            sock, sinks, early = await exchange.hijack(framed=framed)
        except BaseException:
            exec_.started = False
            raise
        client = Client(
            sock,
            stdin=request.attach_stdin,
            stdout=request.attach_stdout,
            stderr=request.attach_stderr,
            framed=framed,
            sinks=sinks,
            detach_keys=request.detach_keys,
            early=early,
            exit=exchange.wants_exit,
        )
        await execs.start(self._containers, container, exec_, client)

    async def inspect(self, exchange: Exchange) -> None:
        container, exec_ = self._containers.exec(exchange.names["id"])
        await execs.settle(container, exec_)
        await exchange.reply(200, inspect.exec_inspect(exec_))

    async def resize(self, exchange: Exchange) -> None:
        container, exec_ = self._containers.exec(exchange.names["id"])
        await execs.resize(self._containers, container, exec_, *size(exchange))
        await exchange.reply(200)


def _console_size(raw: object) -> tuple[int, int]:
    if (
        not isinstance(raw, list)
        or len(raw) != 2
        or not all(
            isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 65536
            for value in raw
        )
    ):
        raise InvalidParameter("ConsoleSize must be [height, width]")
    return raw[0], raw[1]
