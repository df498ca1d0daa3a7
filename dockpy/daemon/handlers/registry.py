"""Pulling, and asking registries: what the engine does for a person with the credentials they send along.

The registry rooms (h11's client, ssl) load at the first request that needs them: a daemon that only runs
containers is smaller. Progress begins with the first line; what fails before has a status of its own.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Callable

from dockpy import paths as places
from dockpy.config import RegistrySettings
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.router import Handler
from dockpy.errors import DockpyError, InvalidParameter
from dockpy.oci.platform import parse_platform
from dockpy.oci.reference import Reference, parse_reference
from dockpy.supervisor.containers import Containers

if TYPE_CHECKING:
    from dockpy.images.progress import Line, Tell
    from dockpy.images.pull import Pulls
    from dockpy.registry.auth import Credentials
    from dockpy.registry.connect import Access

PROXIES = "x-dockpy-proxies"
"""What the person's HTTP_PROXY, HTTPS_PROXY and NO_PROXY say: base64url of a JSON object by these names."""


class RegistryHandlers:
    def __init__(
        self,
        containers: Containers,
        settings: RegistrySettings,
        store: str,
        tier: str,
        importing: Handler,
    ) -> None:
        """`importing` serves `POST /images/create` without fromImage."""
        self.settings = settings
        self._containers = containers
        self._store = store
        self._tier = tier
        self._importing = importing
        self._pulls: Pulls | None = None

    def table(self) -> dict[str, Handler]:
        return {"image_create": self.create, "distribution": self.distribution}

    async def create(self, exchange: Exchange) -> None:
        if exchange.query.get("fromImage"):
            await self.pull(exchange)
        else:
            await self._importing(exchange)

    async def pull(self, exchange: Exchange) -> None:
        from dockpy.images.pull import Wanted

        query = exchange.query
        reference = named(query["fromImage"], query.get("tag", ""))
        whole = bool(reference.tag or reference.digest)
        platform = parse_platform(query["platform"]) if query.get("platform") else None
        wanted = Wanted(
            reference, platform, self.credentials(exchange), self.access(exchange), not whole
        )
        await exchange.body()
        await self.progress(exchange, lambda tell: self._pulling().pull(wanted, tell))

    def _pulling(self) -> Pulls:
        from dockpy.images.pull import Pulls

        if self._pulls is None:
            self._pulls = Pulls(self._containers.images, self.settings, pulled=self._publish)
        return self._pulls

    def _publish(self, reference: Reference) -> None:
        self._containers.events.publish(
            "image", "pull", reference.familiar(), {"name": reference.familiar_name}
        )

    async def distribution(self, exchange: Exchange) -> None:
        """`GET /distribution/{name}/json`: what a name leads to, and on which platforms."""
        from dockpy.images import distribution

        reference = parse_reference(exchange.names["name"]).tagged()
        answer = await exchange.while_connected(
            lambda: distribution.inspect(
                reference, self.settings, self.credentials(exchange), self.access(exchange)
            )
        )
        await exchange.reply(200, answer)

    # ------------------------------------------------------ what a request brings, for push too

    def credentials(self, exchange: Exchange) -> Credentials:
        """X-Registry-Auth."""
        from dockpy.registry.auth import registry_auth

        return registry_auth(exchange.request.headers.get("x-registry-auth", ""))

    def access(self, exchange: Exchange) -> Access:
        from dockpy.registry.connect import Access
        from dockpy.transport.proxies import from_environ

        return Access(
            tuple(self._certificates()),
            from_environ(_texts(exchange.request.headers.get(PROXIES, ""))),
        )

    def _certificates(self) -> list[str]:
        """docker's places for certs.d; those below a home folder are not for root, whoever's HOME it has."""
        folders = ["/etc/docker/certs.d", f"{self._store}/certs.d"]
        if self._tier != "root":
            try:
                home = places.home(os.environ, os.geteuid())
            except places.NoHome:
                return folders
            folders += [f"{home}/.config/{name}/certs.d" for name in ("docker", "dockpy")]
        return folders

    async def progress(self, exchange: Exchange, work: Callable[[Tell], Awaitable[None]]) -> None:
        """Runs `work`, whose lines are the reply; ends it when the client hangs up."""

        async def tell(line: Line) -> None:
            if not exchange.begun:
                await exchange.begin()
            await exchange.write_line(line)

        try:
            await exchange.while_connected(lambda: work(tell))
        except (DockpyError, OSError) as error:
            if not exchange.begun or isinstance(error, ConnectionError):
                raise
            await exchange.write_line({"errorDetail": {"message": str(error)}, "error": str(error)})
        await exchange.end()


def named(name: str, tag: str) -> Reference:
    """`fromImage` and `tag` as docker joins them: the tag may be a digest, or stand in the name already."""
    if tag.startswith(("sha256:", "sha512:")):
        reference = parse_reference(f"{name}@{tag}")
        assert reference.digest is not None  # it was parsed
        return reference.with_digest(reference.digest)
    reference = parse_reference(name)
    if not tag:
        return reference
    return reference.with_tag(tag)


def _texts(header: str) -> dict[str, str]:
    try:
        raw = json.loads(base64.urlsafe_b64decode(header)) if header else {}
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidParameter(f"{PROXIES} is not base64url of a JSON object") from None
    return {str(key): str(value) for key, value in raw.items()} if isinstance(raw, dict) else {}
