"""A pull-through cache: what an upstream registry has, kept in the repositories of our own folder.

A tag is asked for at the upstream each time (HEAD, which no rate limit counts); what has a digest is kept for
good. While the upstream is away, what is kept is served. Blobs come through `arrivals`. Everything is held
against its digest before it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from typing import Callable, TypeVar

import trio

from dockpy.errors import DockpyError
from dockpy.oci.digest import Digest
from dockpy.registry.arrivals import Arrivals
from dockpy.registry.client import Described, Repository
from dockpy.registry.endpoints import DOCKER_HOST
from dockpy.registry.errors import Denied, NeedsLogin, NotThere, RegistryError
from dockpy.registry.manifests import Record
from dockpy.registry.refusals import Refusal
from dockpy.registry.repositories import Repositories
from dockpy.registry.session import Registry
from dockpy.registry.sources import Disk, Local, OpenBlob
from dockpy.transport.client import TransportError

log = logging.getLogger(__name__)

T = TypeVar("T")

ASKED_WITHIN = 15.0  # seconds for a question to which there may be a kept answer
FETCHED_WITHIN = 60.0
AWAY = 10.0  # after no answer at all, for so long nothing that is kept is asked for


class PullThrough:
    """A `Source`; `upstream` is to be one that does not try again by itself for long."""

    def __init__(
        self, upstream: Registry, repositories: Repositories, arrivals: Arrivals, disk: Disk
    ) -> None:
        self._upstream = upstream
        self._repositories = repositories
        self._arrivals = arrivals
        self._disk = disk
        self._local = Local(repositories, disk)
        self._away_until = 0.0

    @property
    def title(self) -> str:
        return self._upstream.endpoint.url.authority

    def _far(self, name: str) -> Repository:
        if "/" not in name and self._upstream.endpoint.url.host == DOCKER_HOST:
            name = f"library/{name}"
        return Repository(self._upstream, name)

    async def _ask(self, question: Callable[[], Awaitable[T]], within: float = ASKED_WITHIN) -> T:
        """Refusal: what the upstream has refused. `_Away`: it did not answer, or not now."""
        if trio.current_time() < self._away_until:
            raise _Away(f"{self.title} did not answer a moment ago")
        try:
            with trio.fail_after(within):
                return await question()
        except (TransportError, trio.TooSlowError) as error:
            self._away_until = trio.current_time() + AWAY
            raise _Away(str(error) or f"{self.title} does not answer") from None
        except RegistryError as error:
            if error.temporary:
                raise _Away(str(error), error.status) from None
            raise self.refusal(error) from None
        except DockpyError as error:
            raise self.refusal(error) from None

    def refusal(self, error: DockpyError) -> Refusal:
        """What our client is told of an upstream's error. Never a 401: his credentials were right."""
        if isinstance(error, NotThere):
            code = error.code if error.code in ("BLOB_UNKNOWN", "NAME_UNKNOWN") else ""
            return Refusal(code or "MANIFEST_UNKNOWN", f"{self.title}: {error}", status=404)
        if isinstance(error, (Denied, NeedsLogin)):
            return Refusal("DENIED", f"{self.title}: {error}")
        if getattr(error, "status", 0) == 429:
            return Refusal("TOOMANYREQUESTS", f"{self.title}: {error}")
        return Refusal("UNKNOWN", f"{self.title}: {error}", status=502)

    # ---------------------------------------------------------------------------- manifests

    async def resolve(self, name: str, tag: str, value: Digest | None) -> tuple[Digest, Record]:
        kept = await self._kept(name, tag, value)
        if value is not None and kept is not None:
            return kept
        far = self._far(name)
        try:
            if value is not None:
                return await self._fetch(far, name, "", value)
            described: Described = await self._ask(lambda: far.describe(tag))
            if kept is not None and described.digest == kept[0]:
                return kept
            if described.digest is not None:
                known = await self._kept(name, "", described.digest)
                if known is not None:
                    await self._disk.run(self._repositories.point, name, tag, known[0])
                    return known
            return await self._fetch(far, name, tag, described.digest)
        except _Away as error:
            if kept is None:
                raise self.refusal(error) from None
            log.warning("%s:%s is served as it was: %s", name, tag, error)
            return kept

    async def _kept(
        self, name: str, tag: str, value: Digest | None
    ) -> tuple[Digest, Record] | None:
        try:
            return await self._local.resolve(name, tag, value)
        except Refusal:
            return None

    async def _fetch(
        self, far: Repository, name: str, tag: str, value: Digest | None
    ) -> tuple[Digest, Record]:
        fetched = await self._ask(lambda: far.manifest(value or tag), FETCHED_WITHIN)
        kept = fetched.descriptor
        return await self._disk.run(
            # Its blobs come later, or never.
            lambda: self._repositories.put_manifest(
                name, [tag] if tag else [], kept.digest, fetched.data, kept.media_type, whole=False
            )
        )

    async def manifest(self, name: str, value: Digest) -> bytes:
        return await self._local.manifest(name, value)

    # -------------------------------------------------------------------------------- blobs

    async def blob_size(self, name: str, blob: Digest) -> int:
        try:
            return await self._local.blob_size(name, blob)
        except Refusal as unknown:
            return await self._far_size(name, blob, unknown)

    async def _far_size(self, name: str, blob: Digest, unknown: Refusal) -> int:
        size = await self._disk.run(self._repositories.size_in_manifests, name, blob)
        if size is not None:
            return size
        try:
            found = await self._ask(lambda: self._far(name).has_blob(blob))
        except _Away as error:
            raise self.refusal(error) from None
        if found is None:
            raise unknown
        if found < 0:
            raise self.refusal(RegistryError(f"the length of {blob} is not told"))
        return found

    async def open_blob(self, name: str, blob: Digest) -> OpenBlob:
        try:
            return await self._local.open_blob(name, blob)
        except Refusal as unknown:
            size = await self._far_size(name, blob, unknown)
        try:
            return await self._arrivals.follow(self._far(name), name, blob, size)
        except DockpyError as error:
            raise self.refusal(error) from None

    # ----------------------------------------------------------------------------- listings

    async def names(self) -> list[str]:
        """What is kept: who may list all of an upstream's?"""
        return await self._local.names()

    async def tags(self, name: str) -> list[str]:
        try:
            return sorted(await self._ask(self._far(name).tags), key=str.lower)
        except _Away:
            return await self._local.tags(name)

    async def referrers(self, name: str, subject: Digest) -> Sequence[tuple[Digest, Record]]:
        try:
            found = await self._ask(lambda: self._far(name).referrers(subject))
        except _Away:
            return await self._local.referrers(name, subject)
        return sorted(
            (
                one.digest,
                Record(
                    one.media_type,
                    one.size,
                    artifact_type=one.artifact_type,
                    annotations=one.annotations,
                ),
            )
            for one in found
        )


class _Away(DockpyError):
    """The upstream does not answer, or says that it cannot now."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
