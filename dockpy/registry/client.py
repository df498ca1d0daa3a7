"""What a repository holds, read: manifests, blobs, tags, referrers; and removed. `upload` writes.

    async with HttpClient(contexts, proxies) as http:
        registry = Registry(http, endpoints("docker.io", settings), credentials)
        debian = Repository(registry, "library/debian")
        fetched = await debian.manifest("12")

Every answer is held against what was asked: digests, sizes, media types. What differs is `Untrue`, and names
the difference. Manifests are bounded, blobs by their descriptor's size.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import trio

from dockpy.errors import InvalidParameter
from dockpy.http.url import Url
from dockpy.oci.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from dockpy.oci.digest import Digest, digest, digest_of, hasher
from dockpy.oci.fields import parse
from dockpy.oci.manifest import Index, Manifest, index_from_json, manifest_or_index
from dockpy.registry.errors import Cut, NotThere, RegistryError, Untrue, plain
from dockpy.registry.session import Registry
from dockpy.transport.client import Response, TransportError

MANIFEST_LIMIT = 4 << 20  # the specification's advice, and distribution's own limit
INDEX_ENTRIES = 1000  # the largest honest ones have some hundred
TAGS_LIMIT = 100_000
PAGES = 1000
SCHEMA_1 = frozenset(
    (
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    )
)
ACCEPT: Sequence[tuple[str, str]] = tuple(
    ("Accept", kind) for kind in (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST)
)
_RANGE = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True)
class Fetched:
    """A manifest or index as it came, verified to be `descriptor`'s."""

    descriptor: Descriptor
    data: bytes
    document: Manifest | Index


@dataclass(frozen=True)
class Described:
    """What HEAD tells of a manifest. The digest is the registry's word alone; None where it gave none."""

    media_type: str
    digest: Digest | None
    size: int | None


class Blob:
    """A blob that is arriving, from `offset` on; never more bytes than its descriptor has."""

    def __init__(self, response: Response, descriptor: Descriptor, offset: int) -> None:
        self.offset = offset
        self._response = response
        self._descriptor = descriptor

    async def __aenter__(self) -> Blob:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._response.aclose()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Cut where it ends early; Untrue as soon as it is too long."""
        left = self._descriptor.size - self.offset
        try:
            async for chunk in self._response.chunks():
                left -= len(chunk)
                if left < 0:
                    raise _wrong_size(self._descriptor, "more")
                yield chunk
        except TransportError as error:
            raise Cut(str(error)) from None
        if left:
            raise Cut(
                f"blob {self._descriptor.digest} ended {left} bytes before its {self._descriptor.size}"
            )


class Repository:
    """`name` as in the registry's paths (`library/debian`)."""

    def __init__(self, registry: Registry, name: str, actions: str = "pull") -> None:
        self.registry = registry
        self.name = name
        self.scopes: tuple[str, ...] = (f"repository:{name}:{actions}",)

    # Manifests

    async def manifest(self, reference: str) -> Fetched:
        """By tag or digest. NotThere, Untrue, or InvalidParameter for what is no manifest."""
        response = await self.registry.ask(
            "GET", f"/v2/{self.name}/manifests/{reference}", headers=ACCEPT, scopes=self.scopes
        )
        async with response:
            data = await response.read(MANIFEST_LIMIT)
        media_type = response.head.media_type
        wanted = digest(reference) if ":" in reference else None
        found = _digest(data, wanted)
        if wanted is not None and found != wanted:
            raise Untrue(f"manifest verification failed for digest {wanted}: it has {found}")
        said = response.headers.get("docker-content-digest", "")
        if wanted is None and said and said != _digest(data, _parsed(said)):
            raise Untrue(
                f"the registry sent a manifest with another digest than it says: {plain(said)}"
            )
        document = self._document(data, media_type, reference)
        return Fetched(Descriptor(document.media_type, found, len(data)), data, document)

    def _document(self, data: bytes, media_type: str, reference: str) -> Manifest | Index:
        if media_type in SCHEMA_1 or (b'"schemaVersion": 1' in data and b'"fsLayers"' in data):
            raise InvalidParameter(
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been"
                f" removed. Suggest the author of {self.name}:{reference} to upgrade the image to the OCI"
                " Format or Docker Image manifest v2, schema 2. More information at"
                " https://docs.docker.com/go/deprecated-image-specs/"
            )
        if media_type in ("text/html", "application/xhtml+xml") or data.lstrip()[:1] == b"<":
            raise RegistryError(
                f"{self.registry.endpoint.url.authority} answers with a web page where a manifest was"
                " asked for: it is no registry, or something stands between"
            )
        parse(data, "the manifest")
        try:
            document = manifest_or_index(data, media_type)
        except InvalidParameter as error:
            raise InvalidParameter(f"{self.name}: {error}") from None
        if media_type in MANIFESTS | INDEXES and document.media_type != media_type:
            # The document names none, and its reading assumed the OCI's.
            document = replace(document, media_type=media_type)
        if isinstance(document, Index) and len(document.manifests) > INDEX_ENTRIES:
            raise InvalidParameter(
                f"{self.name}: the index lists {len(document.manifests)} manifests,"
                f" more than {INDEX_ENTRIES}"
            )
        return document

    async def describe(self, reference: str, *, again: bool = True) -> Described:
        """By HEAD, which counts in nobody's rate limit. NotThere as `manifest`."""
        response = await self.registry.ask(
            "HEAD",
            f"/v2/{self.name}/manifests/{reference}",
            headers=ACCEPT,
            scopes=self.scopes,
            again=again,
        )
        await response.drain()
        said = _parsed(response.headers.get("docker-content-digest", ""))
        return Described(response.head.media_type, said, response.head.length)

    async def delete_manifest(self, reference: str) -> None:
        await self._delete(f"manifests/{reference}")

    # Blobs

    async def blob(self, descriptor: Descriptor, offset: int = 0) -> Blob:
        """Its bytes from `offset` on, or from the start where the registry knows no ranges: see `Blob.offset`."""
        headers = [("Accept-Encoding", "identity")]
        if offset:
            headers.append(("Range", f"bytes={offset}-"))
        try:
            response = await self.registry.ask(
                "GET",
                f"/v2/{self.name}/blobs/{descriptor.digest}",
                headers=headers,
                scopes=self.scopes,
                expect=(200, 206) if offset else (200,),
                again=False,  # resuming is the caller's
            )
        except TransportError as error:
            raise Cut(str(error)) from None
        start = 0
        if response.status == 206:
            match = _RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != offset:
                await response.aclose()
                raise Untrue(
                    f"blob {descriptor.digest}: the registry sent another range than asked for"
                )
            start = offset
        length = response.head.length
        if length is not None and length != descriptor.size - start:
            await response.aclose()
            raise _wrong_size(descriptor, str(length + start))
        return Blob(response, descriptor, start)

    async def small_blob(self, descriptor: Descriptor, limit: int = MANIFEST_LIMIT) -> bytes:
        """The whole of a config, verified."""
        if descriptor.size > limit:
            raise InvalidParameter(
                f"blob {descriptor.digest} says to have {descriptor.size} bytes, more than {limit}"
            )
        attempt = 1
        while True:
            try:
                async with await self.blob(descriptor) as blob:
                    data = b"".join([chunk async for chunk in blob.chunks()])
                break
            except RegistryError as error:
                pause = self.registry.retries.pause(attempt, error.retry_after)
                if not error.temporary or pause is None:
                    raise
            attempt += 1
            await trio.sleep(pause)
        found = _digest(data, descriptor.digest)
        if found != descriptor.digest:
            raise Untrue(f"blob verification failed for digest {descriptor.digest}: it has {found}")
        return data

    async def has_blob(self, wanted: Digest) -> int | None:
        """Its size (-1 where the registry does not say), None when it is not there."""
        try:
            response = await self.registry.ask(
                "HEAD", f"/v2/{self.name}/blobs/{wanted}", scopes=self.scopes
            )
        except NotThere:
            return None
        await response.drain()
        length = response.head.length
        return -1 if length is None else length

    async def delete_blob(self, wanted: Digest) -> None:
        await self._delete(f"blobs/{wanted}")

    async def _delete(self, rest: str) -> None:
        response = await self.registry.ask(
            "DELETE", f"/v2/{self.name}/{rest}", scopes=self.scopes, expect=(200, 202, 204)
        )
        await response.drain()

    # Lists

    async def tags(self) -> list[str]:
        """All tags, in the registry's order."""
        found: list[str] = []
        async for page in self._pages("tags/list", [("n", "1000")]):
            tags = page.get("tags")
            if tags is None:
                continue
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise RegistryError(f"{self.name}: the registry's list of tags is none")
            found.extend(tags)
            if len(found) > TAGS_LIMIT:
                raise RegistryError(f"{self.name} has more than {TAGS_LIMIT} tags")
        return found

    async def referrers(
        self, subject: Digest, artifact_type: str = "", *, limit: int = TAGS_LIMIT
    ) -> tuple[Descriptor, ...]:
        """What names `subject` as its subject, by the referrers API, else by its tag (distribution 1.1)."""
        query = [("artifactType", artifact_type)] if artifact_type else []
        found: list[Descriptor] = []
        try:
            async for page in self._pages(f"referrers/{subject}", query):
                found.extend(index_from_json(page).manifests)
                if len(found) > limit:
                    raise RegistryError(f"{subject} has more than {limit} referrers")
        except NotThere:
            try:
                fallback = await self.manifest(str(subject).replace(":", "-"))
            except NotThere:
                return ()
            if isinstance(fallback.document, Index):
                found = list(fallback.document.manifests)
        return tuple(
            one for one in found if not artifact_type or one.artifact_type == artifact_type
        )

    async def _pages(
        self, rest: str, query: Sequence[tuple[str, str]]
    ) -> AsyncIterator[Mapping[str, object]]:
        response = await self.registry.ask(
            "GET", f"/v2/{self.name}/{rest}", query=query, scopes=self.scopes
        )
        for _ in range(PAGES):
            async with response:
                data = await response.read(MANIFEST_LIMIT)
            raw = parse(data, f"the registry's answer to {rest}")
            if not isinstance(raw, dict):
                raise RegistryError(f"{self.name}: the registry's answer to {rest} is no object")
            yield raw
            following = _next_page(response)
            if following is None:
                return
            response = await self.registry.at("GET", following, scopes=self.scopes)
            if response.status != 200:
                raise await self.registry.refusal("GET", response)
        raise RegistryError(f"{self.name}: {rest} has more than {PAGES} pages")


def _next_page(response: Response) -> Url | None:
    """`Link: </v2/…?n=1000&last=x>; rel="next"`; a page elsewhere than on the same host is none."""
    match = re.search(r'<([^<>]+)>\s*;[^,]*rel="?next', response.headers.get("link", ""))
    if match is None:
        return None
    following = response.url.join(match[1])
    if following.origin != response.url.origin:
        raise RegistryError(f"the next page is on another host: {following.shown}")
    return following


def _digest(data: bytes, like: Digest | None) -> Digest:
    state = hasher(like)
    state.update(data)
    return digest_of(state)


def _parsed(text: str) -> Digest | None:
    try:
        return digest(text)
    except InvalidParameter:
        return None


def _wrong_size(descriptor: Descriptor, found: str) -> Untrue:
    return Untrue(
        f"blob {descriptor.digest} has {found} bytes, not the {descriptor.size} it should"
    )
