"""Images over HTTP. Bulk goes through one worker thread a request (exchange.Threaded)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable

import trio

from dockpy.api import query as q
from dockpy.api.fields import parse_object, parse_texts
from dockpy.daemon import imagefilters
from dockpy.daemon.exchange import Borrowed, Exchange, Threaded
from dockpy.daemon.router import Handler
from dockpy.errors import DockpyError, InvalidParameter, NotServed, sentence
from dockpy.images.image import Image
from dockpy.images.shared import shared_sizes
from dockpy.supervisor.containers import Containers


class ImageHandlers:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._images = containers.images
        # Transfers wait for their clients, so they must not share the few threads that unpack.
        self._transfers = trio.CapacityLimiter(32)

    def table(self) -> dict[str, Handler]:
        return {
            "image_list": self.list,
            "image_inspect": self.inspect,
            "image_history": self.history,
            "image_tag": self.tag,
            "image_remove": self.remove,
            "image_load": self.load,
            "image_save": self.save,
            "image_search": self.search,
            "image_prune": self.prune,
            "dockpy_image_from_host": self.from_host,
        }

    async def _call(self, function: Callable[..., object], *args: object) -> object:
        return await trio.to_thread.run_sync(function, *args, limiter=self._containers.disk)

    def _publish(self, action: str, image_id: str, name: str = "") -> None:
        self._containers.events.publish("image", action, image_id, {"name": name} if name else {})

    async def list(self, exchange: Exchange) -> None:
        wanted = q.filters(exchange.query, imagefilters.FILTERS)

        def found() -> tuple[imagefilters.Filter, tuple[Image, ...]]:
            filter_ = imagefilters.parse(wanted, self._images.resolve)
            return filter_, tuple(self._images.list())

        filter_, images = await trio.to_thread.run_sync(found, limiter=self._containers.disk)
        shared = {}
        if q.boolean(exchange.query, "shared-size"):
            shared = await trio.to_thread.run_sync(
                shared_sizes, images, self._containers.snapshots, limiter=self._containers.disk
            )
        result = []
        for image in images:
            names = (*image.repo_tags, *image.repo_digests)
            if not filter_.admits(image.created, image.config.config.labels, names):
                continue
            summary = self._images.summary(image)
            summary["SharedSize"] = shared.get(str(image.id), -1)
            # The names that were asked for, as docker, not all it has.
            summary["RepoTags"] = [name for name in image.repo_tags if filter_.names(name)]
            summary["RepoDigests"] = [name for name in image.repo_digests if filter_.names(name)]
            if exchange.version < (1, 44):
                summary["VirtualSize"] = summary.get("Size", 0)
            summary["Containers"] = len(self._containers.using(str(image.id)))
            result.append(summary)
        await exchange.reply(200, result)

    async def _resolve(self, exchange: Exchange) -> Image:
        return await self._containers.resolve_image(exchange.names["name"])

    async def inspect(self, exchange: Exchange) -> None:
        await exchange.reply(
            200, await self._call(self._images.inspect, await self._resolve(exchange))
        )

    async def history(self, exchange: Exchange) -> None:
        await exchange.reply(
            200, await self._call(self._images.history, await self._resolve(exchange))
        )

    async def tag(self, exchange: Exchange) -> None:
        repo, tag = exchange.query.get("repo", ""), exchange.query.get("tag", "")
        if not repo:
            raise InvalidParameter("repository name must have at least one component")
        target = f"{repo}:{tag}" if tag else repo
        image = await self._resolve(exchange)
        await self._call(self._images.tag, exchange.names["name"], target)
        self._publish("tag", str(image.id), target)
        await exchange.reply(201)

    async def remove(self, exchange: Exchange) -> None:
        name, force = exchange.names["name"], q.boolean(exchange.query, "force")
        users = {container.record.image_id: self._containers.using(container.record.image_id)
                 for container in self._containers.all()}  # fmt: skip
        running = {container.id for container in self._containers.all() if container.state.running}

        def work() -> list[dict[str, str]]:
            return self._images.remove(
                name, force, lambda image_id: users.get(image_id, []), running=running.__contains__
            )

        records = await trio.to_thread.run_sync(work, limiter=self._containers.disk)
        for record in records:
            for word, value in record.items():
                self._publish("untag" if word == "Untagged" else "delete", value)
        await exchange.reply(200, records)

    # -------------------------------------------------------------------------------- bulk

    async def _transfer(self, work: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(work, limiter=self._transfers)

    async def load(self, exchange: Exchange) -> None:
        quiet = q.boolean(exchange.query, "quiet")
        borrowed = await exchange.borrow() if exchange.lends else None
        wire = exchange.threaded() if borrowed is None else borrowed

        def progress(line: Mapping[str, object]) -> None:
            if not quiet or "stream" in line:
                wire.write_line(line)

        def work() -> None:
            from dockpy.images import archive

            def load() -> None:
                if borrowed is not None:
                    archive.load_file(self._images, borrowed.file, progress, watch=borrowed.watch)
                else:
                    archive.load(self._images, wire.read, progress)

            if isinstance(wire, Threaded):
                wire.begin()
            _lines(wire, load)

        try:
            await self._transfer(work)
        finally:
            if borrowed is not None:
                borrowed.close()

    async def save(self, exchange: Exchange) -> None:
        names = [exchange.names["name"]] if "name" in exchange.names else _names(exchange)
        if not names:
            raise InvalidParameter("no image was named: names= must not be empty")
        for name in names:
            await self._containers.resolve_image(name)
        await exchange.body()
        wire = exchange.threaded()

        def work() -> None:
            from dockpy.images import archive

            wire.begin("application/x-tar")
            archive.save(self._images, names, wire.write)
            wire.end()

        try:
            await self._transfer(work)
        except DockpyError:
            exchange.broken = True
            raise

    async def import_rootfs(self, exchange: Exchange) -> None:
        """`POST /images/create` without an image to pull."""
        query = exchange.query
        source = query.get("fromSrc", "")
        if source != "-":
            raise NotServed(
                "importing from a URL is not served; send the archive itself (fromSrc=-)"
            )
        changes = exchange.request.query_lists.get("changes", ())
        repo, tag, message = query.get("repo", ""), query.get("tag", ""), query.get("message", "")
        wire = exchange.threaded()

        def work() -> None:
            from dockpy.images import importer

            def load() -> None:
                image = importer.import_rootfs(self._images, wire.read, repo, tag, changes, message)
                wire.write_line({"status": str(image.id)})

            wire.begin()
            _lines(wire, load)

        await self._transfer(work)

    async def from_host(self, exchange: Exchange) -> None:
        raw = parse_object(await exchange.json(), "the body")
        paths = parse_texts(raw.get("paths"), "paths")
        name = exchange.query.get("name", "")
        if not name or not paths:
            raise InvalidParameter("image-from-host needs name= and at least one path")
        wire = exchange.threaded()

        def work() -> None:
            from dockpy.images.from_host import from_host  # pyelftools: 40 ms

            def make() -> None:
                image = from_host(
                    self._images, name, paths, lambda text: wire.write_line({"status": text})
                )
                wire.write_line({"aux": {"ID": str(image.id)}})

            wire.begin()
            _lines(wire, make)

        await self._transfer(work)

    # ------------------------------------------------------------------------------ refused

    async def search(self, exchange: Exchange) -> None:
        raise NotServed("searching a registry is not served")

    async def prune(self, exchange: Exchange) -> None:
        filters = q.filters(exchange.query, ("dangling", "until", "label", "label!"))
        every = filters.get("dangling", ("true",))[0].lower() in ("0", "false")
        until = q.timestamp(filters["until"][0], "until") if "until" in filters else None
        before = await self._call(self._layers_size)
        deleted: list[dict[str, str]] = []
        for image in await trio.to_thread.run_sync(
            self._images.list, limiter=self._containers.disk
        ):
            if self._containers.using(str(image.id)) or (image.repo_tags and not every):
                continue
            labels = image.config.config.labels
            if not q.matches_labels(filters.get("label", ()), labels):
                continue
            if any(q.matches_labels((entry,), labels) for entry in filters.get("label!", ())):
                continue
            created = self._images.summary(image).get("Created")
            if until is not None and isinstance(created, int) and created * 10**9 > until:
                continue
            for name in await trio.to_thread.run_sync(
                self._removable, image, limiter=self._containers.disk
            ):
                removed = await self._call(self._images.remove, name, True, lambda _: ())
                deleted += removed if isinstance(removed, list) else []
        for record in deleted:
            for word, value in record.items():
                self._publish("untag" if word == "Untagged" else "delete", value)
        after = await self._call(self._layers_size)
        space = before - after if isinstance(before, int) and isinstance(after, int) else 0
        if not set(filters) - {"dangling"}:
            # What cut pulls have left goes too; those under way keep theirs.
            freed = await self._call(self._images.partials.clean, 0.0)
            space += freed if isinstance(freed, int) else 0
        await exchange.reply(
            200, {"ImagesDeleted": deleted or None, "SpaceReclaimed": max(space, 0)}
        )

    def _removable(self, image: Image) -> Sequence[str]:
        """By which names it goes; none of what another store lends."""
        if self._images.content.is_lent(image.id):
            return []
        names = self._images.names_of(image.id, own=True)
        return [name.familiar() for name in names] or [str(image.id)]

    def _layers_size(self) -> int:
        snapshots = self._containers.snapshots
        return sum(snapshots.chain_takes(chain) for chain in snapshots.chains())


def _lines(wire: Threaded | Borrowed, work: Callable[[], None]) -> None:
    """A progress stream: the status is 200 already, so a failure is one more line."""
    try:
        work()
    except ConnectionError:
        raise
    except (DockpyError, OSError) as error:
        text = sentence(error)
        wire.write_line({"errorDetail": {"message": text}, "error": text})
    # The client may still be sending: it would see a reset before it has read the line.
    while wire.read(1 << 20):
        pass
    wire.end()


def _names(exchange: Exchange) -> list[str]:
    return [
        name
        for value in exchange.request.query_lists.get("names", ())
        for name in value.split(",")
        if name
    ]
