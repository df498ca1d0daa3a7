"""Containers over HTTP."""

from __future__ import annotations

from dataclasses import replace

import trio

from dockpy.api import query as q
from dockpy.api.container import ContainerCreate
from dockpy.api.fields import parse_object
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.handlers.sizes import sizes_of
from dockpy.daemon.router import Handler
from dockpy.errors import DockpyError, InvalidParameter, NotFound, NotServed
from dockpy.linux.proctable import Table
from dockpy.supervisor import control, filters, inspect, top
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.create import create
from dockpy.supervisor.pause import members
from dockpy.supervisor.remove import remove, take_away
from dockpy.supervisor.start import start
from dockpy.supervisor.update import update
from dockpy.supervisor.wait import register

# The documents of older API versions know no driver `local`.
KNOWS_LOCAL = (1, 45)


def _reads_json_files_only(exchange: Exchange) -> bool:
    """A client to whom docker's default driver is the only one: that of an older API, and docker-py,
    whose run() returns nothing but None for any other.
    """
    agent = exchange.request.headers.get("user-agent", "")
    return exchange.version < KNOWS_LOCAL or agent.startswith("docker-sdk-python/")


class ContainerHandlers:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def table(self) -> dict[str, Handler]:
        return {
            "container_create": self.create,
            "container_start": self.start,
            "container_wait": self.wait,
            "container_list": self.list,
            "container_inspect": self.inspect,
            "container_stop": self.stop,
            "container_restart": self.restart,
            "container_kill": self.kill,
            "container_remove": self.remove,
            "container_rename": self.rename,
            "container_resize": self.resize,
            "container_top": self.top,
            "container_prune": self.prune,
            "container_update": self.update,
        }

    def _named(self, exchange: Exchange) -> Container:
        return self._containers.get(exchange.names["id"])

    # --------------------------------------------------------------------------- life

    async def create(self, exchange: Exchange) -> None:
        raw = await exchange.json()
        if raw is None:
            raise InvalidParameter("config cannot be empty in order to create a container")
        request = ContainerCreate.from_json(
            raw, exchange.query.get("name", ""), exchange.query.get("platform", "")
        )
        if not request.config.image:
            raise InvalidParameter("no image was given: Image must not be empty")
        host = request.host_config
        if not host.log_config.type and _reads_json_files_only(exchange):
            log = replace(host.log_config, type="json-file")
            request = replace(request, host_config=replace(host, log_config=log))
        container, warnings = await create(self._containers, request)
        await exchange.reply(201, {"Id": container.id, "Warnings": warnings})

    async def start(self, exchange: Exchange) -> None:
        await exchange.body()
        await start(self._containers, self._named(exchange), exchange.query.get("detachKeys", ""))
        await exchange.reply(204)

    async def stop(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        await control.stop(
            self._containers, container, _timeout(exchange), exchange.query.get("signal", "")
        )
        await exchange.reply(204)

    async def restart(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        await control.restart(
            self._containers, container, _timeout(exchange), exchange.query.get("signal", "")
        )
        await exchange.reply(204)

    async def kill(self, exchange: Exchange) -> None:
        try:
            await control.kill(
                self._containers, self._named(exchange), exchange.query.get("signal", "")
            )
        except DockpyError as error:
            # docker's, and so for every kind of error.
            raise type(error)(f"cannot kill container: {exchange.names['id']}: {error}") from None
        await exchange.reply(204)

    async def remove(self, exchange: Exchange) -> None:
        if q.boolean(exchange.query, "link"):
            raise NotServed("links are not served, so there is none to remove")
        await remove(
            self._containers, self._named(exchange), force=q.boolean(exchange.query, "force")
        )
        await exchange.reply(204)

    async def rename(self, exchange: Exchange) -> None:
        await control.rename(
            self._containers, self._named(exchange), exchange.query.get("name", "")
        )
        await exchange.reply(204)

    async def resize(self, exchange: Exchange) -> None:
        await control.resize(self._containers, self._named(exchange), *size(exchange))
        await exchange.reply(200)

    async def update(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        raw = parse_object(await exchange.json(empty={}), "the body")
        warnings = await update(self._containers, container, raw)
        await exchange.reply(200, {"Warnings": warnings})

    async def prune(self, exchange: Exchange) -> None:
        wanted = q.filters(exchange.query, ("until", "label", "label!"))
        until = q.timestamp(wanted["until"][0], "until") if "until" in wanted else None
        deleted = []
        space = 0
        for container in self._containers.all():
            record = container.record
            if _in_use(container):
                continue
            if until is not None and inspect.seconds_of(record.created) * 1e9 > until:
                continue
            if not q.matches_labels(wanted.get("label", ()), record.config.labels):
                continue
            if any(
                q.matches_labels((entry,), record.config.labels)
                for entry in wanted.get("label!", ())
            ):
                continue
            try:
                size = (await sizes_of(self._containers, container))[0]
            except NotFound:
                continue  # somebody else has removed it
            if not _in_use(container):  # nor started it, meanwhile
                take_away(self._containers, container)
                deleted.append(record.id)
                space += size
        await exchange.reply(200, {"ContainersDeleted": deleted or None, "SpaceReclaimed": space})

    async def wait(self, exchange: Exchange) -> None:
        departed = self._containers.departed.get(exchange.names["id"])
        if departed is not None:
            await exchange.body()
            await exchange.reply(200, departed.to_json())
            return
        container = self._named(exchange)
        waiter = register(container, exchange.query.get("condition", ""))
        await exchange.body()
        # The client starts the container only after it has seen this head.
        await exchange.begin()
        outcome = await exchange.while_connected(waiter.wait)
        await exchange.write_line(outcome.to_json())
        await exchange.end()

    # ------------------------------------------------------------------------ telling

    async def inspect(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        sizes = (
            await sizes_of(self._containers, container)
            if q.boolean(exchange.query, "size")
            else None
        )
        bundle = self._containers.folders.bundle(container.id)
        await exchange.reply(200, inspect.inspect(container, bundle, sizes))

    async def list(self, exchange: Exchange) -> None:
        wanted = q.filters(exchange.query, filters.FILTERS)
        filters.check(wanted)
        limit = q.integer(exchange.query, "limit", 0)
        # Asking for states or for the last n means all of them, as in docker.
        every = q.boolean(exchange.query, "all") or limit > 0 or "status" in wanted
        sizes = q.boolean(exchange.query, "size")
        ancestors = self._ancestors(wanted.get("ancestor", ()))
        before = min(
            (self._created(name) for name in wanted.get("before", ())), default=float("inf")
        )
        since = max((self._created(name) for name in wanted.get("since", ())), default=0.0)
        result = []
        for container in sorted(
            self._containers.all(), key=lambda found: found.record.created, reverse=True
        ):
            if not every and not container.state.live:
                continue
            if not filters.matches(container, wanted, ancestors, before, since):
                continue
            try:
                measured = await sizes_of(self._containers, container) if sizes else None
            except NotFound:
                continue  # removed while we looked
            result.append(inspect.summary(container, measured))
            if 0 < limit <= len(result):
                break
        await exchange.reply(200, result)

    def _ancestors(self, names: tuple[str, ...]) -> frozenset[str]:
        found = set()
        for name in names:
            try:
                found.add(str(self._containers.images.resolve(name).id))
            except (NotFound, InvalidParameter):
                continue
        return frozenset(found)

    def _created(self, reference: str) -> float:
        return inspect.seconds_of(self._containers.get(reference).record.created)

    async def top(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        control.running_shim(container)
        shim = self._containers.shim_pid(container)
        options = exchange.query.get("ps_args", "")

        def look() -> tuple[list[str], list[list[str]]]:
            return top.show(members(container, Table(), shim), options)

        titles, rows = await trio.to_thread.run_sync(look)
        self._containers.publish(container, "top")
        await exchange.reply(200, {"Titles": titles, "Processes": rows})


def _timeout(exchange: Exchange) -> int | None:
    return (
        q.integer(exchange.query, "t", 0, least=-1) if exchange.query.get("t", "") != "" else None
    )


def _in_use(container: Container) -> bool:
    return container.state.live or container.lock.locked() or container.removing


def size(exchange: Exchange) -> tuple[int, int]:
    values = []
    for name in ("h", "w"):
        if exchange.query.get(name, "") == "":
            raise InvalidParameter(f"invalid resize {name}: it is missing")
        values.append(q.integer(exchange.query, name, 0, least=0))
    return min(values[0], 65535), min(values[1], 65535)
