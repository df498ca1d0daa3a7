"""Pushing, and trying credentials (`POST /auth`): the daemon is given them and keeps nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dockpy.api.fields import parse_object
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.handlers.registry import RegistryHandlers, named
from dockpy.daemon.router import Handler
from dockpy.errors import InvalidParameter, Unauthorized
from dockpy.oci.platform import Platform, parse_platform, platform_from_json
from dockpy.oci.reference import DEFAULT_DOMAIN, Reference
from dockpy.supervisor.containers import Containers

if TYPE_CHECKING:
    from dockpy.images.push import Pushes

_HUB = ("", "docker.io", "index.docker.io", "registry-1.docker.io")


class PushHandlers:
    def __init__(self, containers: Containers, registry: RegistryHandlers) -> None:
        self._containers = containers
        self._registry = registry
        self._pushes: Pushes | None = None

    def table(self) -> dict[str, Handler]:
        return {"image_push": self.push, "auth": self.auth}

    async def push(self, exchange: Exchange) -> None:
        from dockpy.images.push import Wanted

        reference = named(exchange.names["name"], exchange.query.get("tag", ""))
        registry = self._registry
        wanted = Wanted(
            reference,
            _platform(exchange.query.get("platform", "")),
            registry.credentials(exchange),
            registry.access(exchange),
        )
        await exchange.body()
        await registry.progress(exchange, lambda tell: self._pushing().push(wanted, tell))

    def _pushing(self) -> Pushes:
        from dockpy.images.push import Pushes

        if self._pushes is None:
            self._pushes = Pushes(
                self._containers.images, self._registry.settings, pushed=self._publish
            )
        return self._pushes

    def _publish(self, reference: Reference) -> None:
        self._containers.events.publish(
            "image", "push", reference.familiar(), {"name": reference.familiar_name}
        )

    async def auth(self, exchange: Exchange) -> None:
        from dockpy.registry.auth import credentials_from_json
        from dockpy.registry.connect import connect
        from dockpy.registry.errors import NeedsLogin

        raw = parse_object(await exchange.json(empty={}), "the body")
        credentials = credentials_from_json(raw)
        async with connect(
            _domain(credentials.server),
            self._registry.settings,
            credentials,
            self._registry.access(exchange),
            mirrors=False,
            offline=True,
        ) as registry:
            try:
                await exchange.while_connected(registry.ping)
            except NeedsLogin as error:
                words = str(error)
                if not words.startswith("unauthorized"):
                    words = f"unauthorized: {words}"
                where = registry.endpoint.url.at("/v2/").shown
                raise Unauthorized(f'Get "{where}": {words}') from None
            token = registry.identity_token
        await exchange.reply(200, {"Status": "Login Succeeded", "IdentityToken": token})


def _domain(server: str) -> str:
    """A server address without scheme and path; docker.io under all its names."""
    _, scheme, rest = server.partition("://")
    host = (rest if scheme else server).partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB else host


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    if not text.startswith("{"):
        return parse_platform(text)
    try:
        return platform_from_json(json.loads(text))
    except (ValueError, RecursionError):
        raise InvalidParameter("platform is not JSON") from None
