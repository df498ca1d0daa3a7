"""`POST /dockpy/verify?name=IMAGE`, ours: whether an image carries a signature by the key in the body."""

from __future__ import annotations

from dockpy.api.fields import parse_object
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.handlers.registry import RegistryHandlers
from dockpy.daemon.router import Handler
from dockpy.errors import InvalidParameter, NotFound
from dockpy.images.image import Image
from dockpy.oci.reference import Reference, parse_reference
from dockpy.supervisor.containers import Containers


class TrustHandlers:
    def __init__(self, containers: Containers, registry: RegistryHandlers) -> None:
        self._containers = containers
        self._registry = registry

    def table(self) -> dict[str, Handler]:
        return {"dockpy_verify": self.verify}

    async def verify(self, exchange: Exchange) -> None:
        """Body {"Key": PEM}. 404: not signed; 403: not by this key, or for something else."""
        from dockpy.images import signing, trust

        name = parse_reference(exchange.query.get("name", "")).tagged()
        raw = parse_object(await exchange.json(empty={}), "the body")
        text = raw.get("Key")
        if not isinstance(text, str):
            raise InvalidParameter("the body has no Key")
        key = signing.public_key(text)
        image = await self._local(name)
        registry = self._registry
        verified = await exchange.while_connected(
            lambda: trust.verify(
                name,
                image,
                key,
                registry.settings,
                registry.credentials(exchange),
                registry.access(exchange),
            )
        )
        answer = {"Name": verified.reference.familiar(), "Signatures": verified.signatures}
        await exchange.reply(200, answer)

    async def _local(self, name: Reference) -> Image | None:
        try:
            return await self._containers.resolve_image(str(name))
        except NotFound:
            if name.digest:
                return None
            raise
