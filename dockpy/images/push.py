"""`push`: names of the store into a repository: layers and config, five at a time, then the manifest.

    name → image → for each layer: there already? a neighbour's? sent → config → manifest under its tag → RepoDigests

A manifest goes as it is stored, with its digest. Where its layers are plain tars and no registry has known it
yet (loaded, committed, imported images) they are compressed, once: the image has the compressed layers from
then on, and the manifest that the registry has. A layer whose blob was dropped is made again where the registry
has it not (remaking). A registry that knows only docker's manifests gets one of those.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import trio

from dockpy.config import RegistrySettings
from dockpy.errors import InvalidParameter, NotFound
from dockpy.images.image import Image
from dockpy.images.outgoing import Outgoing, stored, watch
from dockpy.images.progress import Line, Tell
from dockpy.images.remaking import COMPRESSED, compress, make_again, uses_of
from dockpy.images.store import ImageStore, LayerUse
from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import Digest, digest_bytes
from dockpy.oci.manifest import Manifest, schema_2
from dockpy.oci.platform import Platform
from dockpy.oci.reference import Reference
from dockpy.registry.auth import ANONYMOUS, Credentials
from dockpy.registry.cleanup import to_the_end
from dockpy.registry.client import Repository
from dockpy.registry.connect import DIRECT, Access, connect
from dockpy.registry.errors import Denied, NeedsLogin, RegistryError
from dockpy.registry.sending import Sending
from dockpy.registry.session import RETRIES, Retries
from dockpy.registry.upload import Upload, Uploads

T = TypeVar("T")

Make = Callable[
    [ImageStore, LayerUse, Callable[[int], None], Callable[[], bool]],
    Descriptor,
]

AT_ONCE = 5  # docker's max-concurrent-uploads
MOUNTS = 3  # neighbours that are tried
SETTINGS = RegistrySettings()
_TOO_OLD = frozenset(("MANIFEST_INVALID", "UNSUPPORTED"))


@dataclass(frozen=True)
class Wanted:
    """`reference` without a tag means all tags."""

    reference: Reference
    platform: Platform | None = None
    credentials: Credentials = ANONYMOUS
    access: Access = DIRECT


class Pushes:
    def __init__(
        self,
        store: ImageStore,
        settings: RegistrySettings = SETTINGS,
        retries: Retries = RETRIES,
        pushed: Callable[[Reference], None] = lambda _: None,
    ) -> None:
        """`pushed` is told of each push that went well."""
        self._store = store
        self._settings = settings
        self._retries = retries
        self._pushed = pushed
        self._threads = trio.CapacityLimiter(16)

    async def push(self, wanted: Wanted, tell: Tell) -> None:
        """Tells docker's lines; what goes wrong, also before anything was sent, is raised behind the first."""
        name, store = wanted.reference, self._store
        await tell({"status": f"The push refers to repository [{name.name}]"})
        tags = await self._thread(store.tags_of, name.name)
        chosen = _chosen(tags, wanted)
        with ExitStack() as held:
            # Nothing is collected meanwhile: the image may be removed while its layers are sent.
            await self._thread(held.enter_context, store.writing())
            try:
                async with connect(
                    name.domain,
                    self._settings,
                    wanted.credentials,
                    wanted.access,
                    self._retries,
                    mirrors=False,
                ) as registry:
                    repository = Repository(registry, name.path, "pull,push")
                    one = _Push(store, name, Uploads(repository), tell, self._threads)
                    for reference, image in chosen:
                        await one.tag(reference, image)
            finally:
                await to_the_end(held.close)
        self._pushed(name)

    async def _thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)


def _chosen(
    tags: Sequence[tuple[Reference, Image]], wanted: Wanted
) -> Sequence[tuple[Reference, Image]]:
    name = wanted.reference
    if not tags:
        raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
    if name.digest:
        raise InvalidParameter("cannot push a digest reference")
    if name.tag:
        tags = [(reference, image) for reference, image in tags if reference.tag == name.tag]
        if not tags:
            raise NotFound(f"tag does not exist: {name.familiar()}")
    for reference, image in tags:
        if wanted.platform and image.config.platform.rank_for(wanted.platform) is None:
            raise NotFound(
                f"image with reference {reference.familiar()} was found but does not provide the"
                f" specified platform ({wanted.platform})"
            )
    return tags


class _Push:
    """All tags of one push: what the registry is known to have is not asked for again."""

    def __init__(
        self,
        store: ImageStore,
        name: Reference,
        uploads: Uploads,
        tell: Tell,
        threads: trio.CapacityLimiter,
    ) -> None:
        self._store = store
        self._name = name
        self._uploads = uploads
        self._tell = tell
        self._threads = threads
        self._slots = trio.CapacityLimiter(AT_ONCE)
        self._telling = trio.Lock()
        self._there: set[Digest] = set()
        self._made: dict[Digest, Descriptor] = {}  # of layers that were compressed, or made again
        self._over = False

    async def _say(self, line: Line) -> None:
        async with self._telling:  # a reply's lines have one writer at a time
            await self._tell(line)

    async def tag(self, reference: Reference, image: Image) -> None:
        plain = not image.repo_digests and any(
            layer.media_type in COMPRESSED for layer in image.manifest.layers
        )
        rows: dict[Digest, Outgoing] = {}
        # The topmost first, as docker. An image may have a layer twice.
        for use in reversed(tuple(uses_of(image))):
            layer, _, diff_id = use
            rows.setdefault(layer.digest, Outgoing(layer, diff_id, self._say, use))
        for row in rows.values():
            await row.say("Preparing")
        await self._blobs(image, list(rows.values()), plain=plain)
        layers = tuple(rows[layer.digest].descriptor for layer in image.manifest.layers)
        document = replace(image.manifest, layers=layers)
        if document == image.manifest:
            data = await self._thread(self._store.content.read, image.descriptor.digest)
        else:
            data = document.to_bytes()
        data, kind = await self._put(reference.tag, document, data)
        manifest = replace(
            image.descriptor, media_type=kind, digest=digest_bytes(data), size=len(data)
        )
        await self._thread(self._store.content.put, data)
        named = reference.with_digest(manifest.digest)
        await self._thread(self._store.pushed, image, manifest, named)
        shown = f"{reference.tag}: digest: {manifest.digest} size: {len(data)}"
        await self._say({"status": shown})
        result = {"Tag": reference.tag, "Digest": manifest.digest, "Size": len(data)}
        await self._say({"progressDetail": {}, "aux": result})

    async def _put(self, tag: str, document: Manifest, data: bytes) -> tuple[bytes, str]:
        """What the registry has taken, and its media type: as docker's schema 2 where it is too old for the OCI's."""
        kind = document.media_type
        try:
            await self._uploads.put_manifest(tag, kind, data)
            return data, kind
        except RegistryError as error:
            older = schema_2(document)
            if older is None or (error.code not in _TOO_OLD and error.status != 415):
                raise
            data = older.to_bytes()
            try:
                await self._uploads.put_manifest(tag, older.media_type, data)
            except RegistryError:
                raise error from None
            return data, older.media_type

    async def _blobs(self, image: Image, rows: list[Outgoing], *, plain: bool) -> None:
        """The first failure ends all, and is raised outside, where it is not in a group."""
        failures: list[Exception] = []
        self._over = False
        async with trio.open_nursery() as nursery:

            async def guarded(work: Callable[[], Awaitable[None]]) -> None:
                try:
                    await work()
                except Exception as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(self._tell_the_threads)
            nursery.start_soon(watch, rows)
            async with trio.open_nursery() as sending:
                for row in rows:
                    sending.start_soon(guarded, partial(self._layer, row, plain=plain))
                sending.start_soon(guarded, partial(self._config, image))
            nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def _tell_the_threads(self) -> None:
        """They cannot be cancelled."""
        try:
            await trio.sleep_forever()
        finally:
            self._over = True

    async def _layer(self, row: Outgoing, *, plain: bool) -> None:
        if not self._slots.available_tokens:
            await row.say("Waiting")
        async with self._slots:
            if plain and row.descriptor.media_type in COMPRESSED:
                await self._make(row, compress)
            if await self._has(row.descriptor.digest):
                await row.say("Layer already exists")
                return
            begun, source = await self._mount(row.descriptor.digest)
            if source:
                await row.say(f"Mounted from {source}")
            else:
                if not self._store.content.has(row.descriptor.digest):
                    await self._make(row, make_again)
                    if await self._has(row.descriptor.digest):  # made again, it is another
                        if begun is not None:
                            await self._uploads.cancel(begun)
                        await row.say("Layer already exists")
                        return
                row.counting("Pushing")
                await self._send(row.descriptor, row, begun)
                await row.say("Pushed")
        self._there.add(row.descriptor.digest)

    async def _config(self, image: Image) -> None:
        config = image.manifest.config
        if not await self._has(config.digest):
            await self._send(config, Outgoing(config, config.digest, self._say), None)
        self._there.add(config.digest)

    async def _make(self, row: Outgoing, make: Make) -> None:
        layer = row.descriptor
        if layer.digest not in self._made:
            assert row.use is not None  # the config is never made
            row.counting("Preparing")
            self._made[layer.digest] = await self._thread(
                make, self._store, row.use, row.sent, lambda: self._over
            )
        row.descriptor = self._made[layer.digest]

    async def _has(self, blob: Digest) -> bool:
        if blob in self._there:
            return True
        found: int | None = None
        try:
            found = await self._uploads.repository.has_blob(blob)
        except (NeedsLogin, Denied):
            pass  # to HEAD nobody can say why: what is asked next is told
        return found is not None

    async def _mount(self, blob: Digest) -> tuple[Upload | None, str]:
        """The neighbour it was taken over from, else an upload that the attempts have begun, if any."""
        name = self._name
        near = await self._thread(self._store.repositories_of, blob, name.domain)
        begun: Upload | None = None
        for source in [path for path in near if path != name.path][:MOUNTS]:
            try:
                if begun is not None:
                    await self._uploads.cancel(begun)
                begun = await self._uploads.mount(blob, source)
            except RegistryError:
                begun = None  # not ours to read, or gone: it is sent
                continue
            if begun is None:
                return None, source
        return begun, ""

    async def _send(self, blob: Descriptor, row: Outgoing, begun: Upload | None) -> None:
        source = stored(self._store.content, blob.digest, blob.size, self._threads)
        await Sending(self._uploads, source, row, begun).run()

    async def _thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)
