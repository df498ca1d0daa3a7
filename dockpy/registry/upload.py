"""What a repository is given: blobs (mounted, whole, in chunks) and manifests.

    upload = await uploads.start()                     # or mount(...): None when it is there already
    await uploads.put(upload, digest, Body(pieces, size))

A location belongs to its upload and may be on another host, which then gets no Authorization.
"""

from __future__ import annotations

import re

from dockpy.http.url import Url
from dockpy.oci.digest import Digest, digest_bytes
from dockpy.registry.client import Repository
from dockpy.registry.errors import RegistryError, Untrue
from dockpy.transport.client import Body, Content, Response

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_BYTES = ("Content-Type", "application/octet-stream")


class Uploads:
    """`repository` is one with the actions `pull,push`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._registry = repository.registry

    async def start(self) -> Url:
        """A new upload's location."""
        response = await self._begin(())
        return await self._location(response)

    async def mount(self, blob: Digest, source: str) -> Url | None:
        """Takes `blob` over from the repository `source`; None when that was done, else a new upload's location."""
        response = await self._begin(
            (("mount", blob), ("from", source)), (f"repository:{source}:pull",)
        )
        if response.status == 201:
            await response.drain()
            return None
        return await self._location(response)

    async def _begin(
        self, query: tuple[tuple[str, str], ...], more: tuple[str, ...] = ()
    ) -> Response:
        return await self._registry.ask(
            "POST",
            f"/v2/{self._repository.name}/blobs/uploads/",
            query=query,
            scopes=(*self._repository.scopes, *more),
            expect=(201, 202) if query else (202,),
        )

    async def put(self, upload: Url, blob: Digest, body: Content = None) -> None:
        """Ends an upload: with the whole blob as the body, or with nothing after chunks. Not tried twice."""
        response = await self._send("PUT", upload.with_query([("digest", blob)]), body)
        if response.status not in (201, 204):
            raise await self._registry.refusal("PUT", response)
        await response.drain()
        said = response.headers.get("docker-content-digest", "")
        if said and said != blob:
            raise Untrue(f"the registry took {blob} for {said:.80}")

    async def patch(self, upload: Url, offset: int, body: Body) -> Url:
        """One chunk from `offset` on; where the next one goes."""
        headers = [_BYTES]
        if body.length is not None:
            headers.append(("Content-Range", f"{offset}-{offset + body.length - 1}"))
        response = await self._send("PATCH", upload, body, headers)
        if response.status not in (202, 204):
            raise await self._registry.refusal("PATCH", response)
        return await self._location(response)

    async def received(self, upload: Url) -> int:
        """How many bytes of an upload the registry has (after a cut)."""
        response = await self._send("GET", upload, None, [])
        if response.status != 204:
            raise await self._registry.refusal("GET", response)
        await response.drain()
        match = _RANGE.fullmatch(response.headers.get("range", ""))
        return int(match[1]) + 1 if match else 0

    async def cancel(self, upload: Url) -> None:
        response = await self._send("DELETE", upload, None, [])
        await response.drain()

    async def put_manifest(self, reference: str, media_type: str, data: bytes) -> Digest:
        """Under a tag or its digest; the digest that the registry now knows it by."""
        response = await self._registry.ask(
            "PUT",
            f"/v2/{self._repository.name}/manifests/{reference}",
            headers=[("Content-Type", media_type)],
            body=data,
            scopes=self._repository.scopes,
            expect=(200, 201, 202),
        )
        await response.drain()
        own = digest_bytes(data)
        said = response.headers.get("docker-content-digest", "")
        if said.startswith("sha256:") and said != own:
            raise Untrue(
                f"the registry keeps another manifest than was sent: {said:.80}, not {own}"
            )
        return own

    async def _send(
        self, method: str, url: Url, body: Content, headers: list[tuple[str, str]] | None = None
    ) -> Response:
        fields = [_BYTES] if headers is None else headers
        return await self._registry.at(
            method, url, headers=fields, body=body, scopes=self._repository.scopes
        )

    async def _location(self, response: Response) -> Url:
        await response.drain()
        location = response.headers.get("location", "")
        if not location:
            raise RegistryError("the registry does not say where to send the blob")
        url = response.url.join(location)
        if response.url.secure and not url.secure:
            raise RegistryError(
                f"the registry wants the blob sent to {url.shown}, unencrypted: refused"
            )
        return url
