"""What a repository is given: blobs (mounted, whole, in chunks) and manifests.

    upload = await uploads.start()                     # or mount(...): None when it is there already
    await uploads.put(upload, digest, Body(pieces, size))

`sending` puts a blob there whatever happens on the way; here is what is said to a registry.

A location belongs to its upload and may be on another host, which then gets no Authorization.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dockpy.http.url import Url
from dockpy.oci.digest import Digest, digest_bytes
from dockpy.registry.client import Repository
from dockpy.registry.errors import Cut, RegistryError, Untrue, plain
from dockpy.transport.client import Body, Content, Response

LEAST_LIMIT = 1 << 30  # what a registry may want as the smallest chunk
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_BYTES = ("Content-Type", "application/octet-stream")


@dataclass(frozen=True)
class Upload:
    """One that is under way: where the rest goes, how many bytes the registry has, the least it takes at once."""

    url: Url
    received: int = 0
    least: int = 0


class Uploads:
    """`repository` is one with the actions `pull,push`. Nothing here is tried twice: `sending` does that."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._registry = repository.registry

    async def start(self) -> Upload:
        response = await self._begin(())
        return await self._under_way(response)

    async def mount(self, blob: Digest, source: str) -> Upload | None:
        """Takes `blob` over from the repository `source`; None when that was done, else a new upload."""
        response = await self._begin(
            (("mount", blob), ("from", source)), (f"repository:{source}:pull",)
        )
        if response.status == 201:
            await response.drain()
            return None
        return await self._under_way(response)

    async def _begin(
        self, query: tuple[tuple[str, str], ...], more: tuple[str, ...] = ()
    ) -> Response:
        return await self._registry.ask(
            "POST",
            f"/v2/{self.repository.name}/blobs/uploads/",
            query=query,
            scopes=(*self.repository.scopes, *more),
            expect=(201, 202) if query else (202,),
            again=False,
        )

    async def put(self, upload: Upload, blob: Digest, body: Content = None) -> None:
        """Ends an upload: with the whole blob as the body, or with nothing after chunks."""
        response = await self._send("PUT", upload.url.with_query([("digest", blob)]), body)
        if response.status not in (201, 204):
            raise await self._registry.refusal("PUT", response)
        await response.drain()
        said = response.headers.get("docker-content-digest", "")
        if said and said != blob:
            raise Untrue(f"the registry took {blob} for {plain(said)}")

    async def patch(self, upload: Upload, body: Body) -> Upload:
        """One chunk behind what was received."""
        headers = [_BYTES]
        sent = upload.received
        if body.length is not None:
            sent += body.length
            headers.append(("Content-Range", f"{upload.received}-{sent - 1}"))
        response = await self._send("PATCH", upload.url, body, headers)
        if response.status not in (202, 204):
            raise await self._registry.refusal("PATCH", response)
        match = _RANGE.fullmatch(response.headers.get("range", ""))
        received = int(match[1]) + 1 if match else sent
        if received < sent:
            await response.drain()
            raise Cut(f"the registry has {received} of the {sent} bytes that it was sent")
        return await self._under_way(response, sent, upload.least)

    async def ask(self, upload: Upload) -> Upload:
        """As the registry has it (after a cut). `0-0` is one byte, or none: taken for none."""
        response = await self._send("GET", upload.url, None, [])
        if response.status != 204:
            raise await self._registry.refusal("GET", response)
        match = _RANGE.fullmatch(response.headers.get("range", ""))
        last = int(match[1]) if match else 0
        received = last + 1 if last else 0
        if not response.headers.get("location"):
            await response.drain()
            return Upload(upload.url, received, upload.least)
        return await self._under_way(response, received, upload.least)

    async def cancel(self, upload: Upload) -> None:
        response = await self._send("DELETE", upload.url, None, [])
        await response.drain()

    async def put_manifest(self, reference: str, media_type: str, data: bytes) -> Digest:
        """Under a tag or its digest; the digest that the registry now knows it by."""
        response = await self._registry.ask(
            "PUT",
            f"/v2/{self.repository.name}/manifests/{reference}",
            headers=[("Content-Type", media_type)],
            body=data,
            scopes=self.repository.scopes,
            expect=(200, 201, 202),
        )
        await response.drain()
        own = digest_bytes(data)
        said = response.headers.get("docker-content-digest", "")
        if said.startswith("sha256:") and said != own:
            raise Untrue(
                f"the registry keeps another manifest than was sent: {plain(said)}, not {own}"
            )
        return own

    async def _send(
        self, method: str, url: Url, body: Content, headers: list[tuple[str, str]] | None = None
    ) -> Response:
        fields = [_BYTES] if headers is None else headers
        return await self._registry.at(
            method, url, headers=fields, body=body, scopes=self.repository.scopes
        )

    async def _under_way(self, response: Response, received: int = 0, least: int = 0) -> Upload:
        await response.drain()
        location = response.headers.get("location", "")
        if not location:
            raise RegistryError("the registry does not say where to send the blob")
        url = response.url.join(location)
        if response.url.secure and not url.secure:
            raise RegistryError(
                f"the registry wants the blob sent to {url.shown}, unencrypted: refused"
            )
        wanted = response.headers.get("oci-chunk-min-length", "")
        if wanted.isascii() and wanted.isdigit():
            least = min(int(wanted[:12]), LEAST_LIMIT)
        return Upload(url, received, least)
