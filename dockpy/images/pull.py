"""`pull`: a name into an image of the store: manifest, layers, trees, in one go.

    reference → manifest (of the platform) → config and layers into partial files, three at a time
              → layer by layer into trees while the rest arrives → blobs named → index.json

Nothing is visible before the last step, and what has arrived when a pull is cut stays for the next one
(storage.partial). Two pulls of one image, or of one layer, transfer it once. `Pulls` lives as long as the
daemon; all that belongs to one pull ends with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from dockpy.config import SETTINGS, RegistrySettings
from dockpy.errors import DockpyError, InvalidParameter, NotFound, Unauthorized
from dockpy.images.image import Image
from dockpy.images.progress import Reporter, Tell
from dockpy.images.store import ImageStore
from dockpy.images.transfer import Layer, Transfers
from dockpy.oci.descriptor import CONFIGS, LAYERS, Descriptor
from dockpy.oci.digest import Digest
from dockpy.oci.image import ImageConfig, image_config
from dockpy.oci.manifest import Index, Manifest
from dockpy.oci.platform import Platform, host_platform
from dockpy.oci.reference import Reference, check_tag
from dockpy.registry.auth import ANONYMOUS, Credentials
from dockpy.registry.cleanup import to_the_end
from dockpy.registry.client import Fetched, Repository
from dockpy.registry.connect import DIRECT, Access, connect
from dockpy.registry.errors import Denied, NeedsLogin, NotThere, RegistryError, plain
from dockpy.registry.session import RETRIES, Retries

T = TypeVar("T")

AT_ONCE = 3  # docker's max-concurrent-downloads
_DEPTH = 3  # indexes in indexes


@dataclass(frozen=True)
class Wanted:
    """`reference` has a tag or a digest, but with `all_tags`."""

    reference: Reference
    platform: Platform | None = None
    credentials: Credentials = ANONYMOUS
    access: Access = DIRECT
    all_tags: bool = False


@dataclass(frozen=True)
class Found:
    """One image as the registry has it. `listed` is what the name leads to: an index's digest, or the manifest's."""

    listed: Digest
    manifest: Fetched
    document: Manifest
    config: bytes
    parsed: ImageConfig


class Pulls:
    def __init__(
        self,
        store: ImageStore,
        settings: RegistrySettings = SETTINGS,
        retries: Retries = RETRIES,
        pulled: Callable[[Reference], None] = lambda _: None,
    ) -> None:
        """`pulled` is told of each name that was pulled, changed or not."""
        self._store = store
        self._settings = settings
        self._retries = retries
        self._pulled = pulled
        self._transfers = Transfers()
        # A pull's thread waits for its bytes: it must not take the place of those that work.
        self._threads = trio.CapacityLimiter(64)

    async def pull(self, wanted: Wanted, tell: Tell) -> None:
        """Tells docker's lines. What is wrong before the first of them has docker's words, too."""
        name = wanted.reference
        async with connect(
            name.domain, self._settings, wanted.credentials, wanted.access, self._retries
        ) as registry:
            repository = Repository(registry, name.path)
            try:
                if not wanted.all_tags:
                    changed = await self._one(wanted, name, repository, tell)
                else:
                    changed = False
                    for tag in await repository.tags():
                        one = Reference(name.domain, name.path, check_tag(tag))
                        changed = await self._one(wanted, one, repository, tell) or changed
            except (NotThere, Denied, NeedsLogin) as error:
                raise in_dockers_words(error, name) from None
        shown = name.familiar_name if wanted.all_tags else name.familiar()
        status = "Downloaded newer image for" if changed else "Image is up to date for"
        await tell({"status": f"Status: {status} {shown}"})

    async def _one(
        self, wanted: Wanted, name: Reference, repository: Repository, tell: Tell
    ) -> bool:
        """Whether the name means another image than before."""
        # Blobs and trees that are there already must not be collected while the others come.
        held = self._store.writing()
        await self._thread(held.__enter__)
        try:
            return await self._held(wanted, name, repository, tell)
        finally:
            await to_the_end(held.__exit__, None, None, None)

    async def _held(
        self, wanted: Wanted, name: Reference, repository: Repository, tell: Tell
    ) -> bool:
        before = await self._thread(self._named, name)
        listed = await self._unchanged(before, name, wanted.platform, repository)
        found = None if listed else await find(repository, name, wanted.platform)
        what = name.digest or name.tag
        await tell({"status": f"Pulling from {name.path}", "id": str(what)})
        if found is not None:
            listed = found.listed
            image = await self._bring(found, name, repository, tell)
        else:
            assert before is not None and listed is not None  # both, or found
            image = before
        await tell({"status": f"Digest: {listed}"})
        if wanted.platform is not None and image.config.platform.rank_for(wanted.platform) is None:
            await tell(
                {
                    "status": f"WARNING: image with reference {name.familiar()} was found but its platform"
                    f" ({plain(str(image.config.platform))}) does not match the specified platform ({wanted.platform})"
                }
            )
        self._pulled(name)
        return before is None or before.id != image.id

    def _named(self, name: Reference) -> Image | None:
        try:
            return self._store.resolve(str(name))
        except NotFound:
            return None

    async def _unchanged(
        self,
        before: Image | None,
        name: Reference,
        platform: Platform | None,
        repository: Repository,
    ) -> Digest | None:
        """The digest of `name`, when the registry still says the one that we have, by HEAD alone."""
        if before is None or (
            platform is not None and before.config.platform.rank_for(platform) is None
        ):
            return None
        known = {digest.partition("@")[2] for digest in before.repo_digests}
        if name.digest:
            return name.digest if name.digest in known else None
        try:
            digest = (await repository.describe(name.tag, again=False)).digest
        except RegistryError:
            return None  # GET tells what is wrong, and has patience
        full = None if digest is None else Reference(name.domain, name.path, "", digest)
        return digest if full is not None and full.familiar() in before.repo_digests else None

    async def _bring(
        self, found: Found, name: Reference, repository: Repository, tell: Tell
    ) -> Image:
        layers = await self._thread(self._layers, found)
        reporter = Reporter(layers, tell)
        images: list[Image] = []
        failures: list[Exception] = []
        try:
            await reporter.begin()
            async with trio.open_nursery() as nursery:

                async def guarded(work: Callable[[], Awaitable[None]]) -> None:
                    """A failure ends all others, and is raised outside, where it is not in a group."""
                    try:
                        await work()
                    except Exception as error:
                        failures.append(error)
                        nursery.cancel_scope.cancel()

                async def fetch() -> None:
                    await self._transfers.fetch(layers, repository, AT_ONCE, reporter.news)

                async def install() -> None:
                    try:
                        images.append(await self._thread(self._install, found, name, layers))
                    except InvalidParameter as error:
                        # Bytes that are not those they should be explain more than what they broke.
                        while any(layer.extracted and not layer.partial.whole for layer in layers):
                            await trio.sleep(0.05)
                        raise InvalidParameter(f"failed to register layer: {error}") from None
                    nursery.cancel_scope.cancel()

                nursery.start_soon(_stop_at_the_end, layers)
                for work in (reporter.run, fetch, install):
                    nursery.start_soon(guarded, work)
            if not images:
                raise failures[0]
            await reporter.finish()
            return images[0]
        finally:
            for layer in layers:
                layer.close()

    def _layers(self, found: Found) -> list[Layer]:
        """One for each blob (an image may have a layer twice)."""
        store = self._store
        by_digest: dict[Digest, Layer] = {}
        diff_ids = found.parsed.diff_ids
        uses = tuple(zip(found.document.layers, found.parsed.chain_ids, diff_ids))
        lacking = {use[0].digest for use in uses if not store.has_layer(use[0].digest, *use[1:])}
        try:
            for descriptor in found.document.layers:
                blob = descriptor.digest
                if blob not in by_digest:
                    here = blob not in lacking
                    by_digest[blob] = Layer(descriptor, store.partials, here=here)
        except BaseException:
            for layer in by_digest.values():
                layer.close()
            raise
        return list(by_digest.values())

    def _install(self, found: Found, name: Reference, layers: Sequence[Layer]) -> Image:
        store, names = self._store, [name]
        by_digest = Reference(name.domain, name.path, "", found.listed)
        if by_digest != name:
            names.append(by_digest)
        with store.writing():
            store.content.put(found.config)
            store.content.put(found.manifest.data)
            arriving = {one.descriptor.digest: one for one in layers if one.arrives}
            return store.add(found.manifest.descriptor, names, arriving=arriving)

    async def _thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)


async def _stop_at_the_end(layers: Sequence[Layer]) -> None:
    """The extractor's thread cannot be cancelled: it is told."""
    try:
        await trio.sleep_forever()
    finally:
        for layer in layers:
            layer.stop()


async def find(repository: Repository, name: Reference, platform: Platform | None) -> Found:
    """The manifest and config that `name` leads to on this platform; nothing is kept."""
    wanted = platform or host_platform()
    fetched = await repository.manifest(name.digest or name.tag)
    listed = fetched.descriptor.digest
    for _ in range(_DEPTH):
        document = fetched.document
        if isinstance(document, Manifest):
            check(document, name)
            config = await repository.small_blob(document.config)
            parsed = image_config(config)
            if parsed.platform.os != "linux":
                raise InvalidParameter(
                    f'image operating system "{plain(parsed.platform.os)}" cannot be used on this platform'
                )
            if len(parsed.diff_ids) != len(document.layers):
                raise InvalidParameter(
                    f"invalid image: {len(document.layers)} layers, but {len(parsed.diff_ids)} diff ids"
                )
            return Found(listed, fetched, document, config, parsed)
        assert isinstance(document, Index)
        chosen = document.choose(wanted)
        if chosen is None:
            raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")
        fetched = await repository.manifest(chosen.digest)
        if len(fetched.data) != chosen.size:
            raise InvalidParameter(
                f"manifest {chosen.digest} has {len(fetched.data)} bytes, not the {chosen.size} it should"
            )
    raise InvalidParameter(f"{name.familiar()}: more than {_DEPTH} indexes in each other")


def check(document: Manifest, name: Reference) -> None:
    """Whether this manifest is one of an image that we can have."""
    kind = document.config.media_type
    if kind not in CONFIGS:
        raise InvalidParameter(
            f"{name.familiar()} is no image but an artifact: unsupported media type {plain(kind)}"
        )
    for layer in document.layers:
        if _foreign(layer):
            raise InvalidParameter(
                f"layer {layer.digest} is a foreign layer, to be had elsewhere than from the"
                " registry: not supported"
            )
        if layer.media_type not in LAYERS:
            raise InvalidParameter(
                f"layer {layer.digest}: unsupported media type {plain(layer.media_type)}"
            )


def _foreign(layer: Descriptor) -> bool:
    return (
        bool(layer.urls) or "foreign" in layer.media_type or "nondistributable" in layer.media_type
    )


def in_dockers_words(error: NotThere | Denied | NeedsLogin, name: Reference) -> DockpyError:
    """moby's translatePullError: for a name that cannot be had, the name first."""
    if error.code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {name.familiar()} not found: {error}")
    if error.code == "NAME_UNKNOWN":
        return NotFound(f"repository {name.familiar_name} not found: {error}")
    if isinstance(error, NotThere):
        return NotFound(str(error))
    text = (
        f"pull access denied for {name.familiar_name}, repository does not exist or may require"
        f" 'docker login': {error}"
    )
    return Unauthorized(text) if isinstance(error, NeedsLogin) else NotFound(text)
