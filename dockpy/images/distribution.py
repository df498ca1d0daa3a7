"""`GET /distribution/{name}/json`: the descriptor that a name leads to in its registry, and its platforms. Nothing is kept."""

from __future__ import annotations

from dockpy.config import RegistrySettings
from dockpy.images.pull import in_dockers_words
from dockpy.oci.image import image_config
from dockpy.oci.manifest import Index
from dockpy.oci.reference import Reference
from dockpy.registry.auth import Credentials
from dockpy.registry.client import Repository
from dockpy.registry.connect import Access, connect
from dockpy.registry.errors import Denied, NeedsLogin, NotThere


async def inspect(
    name: Reference, settings: RegistrySettings, credentials: Credentials, access: Access
) -> dict[str, object]:
    async with connect(name.domain, settings, credentials, access) as registry:
        repository = Repository(registry, name.path)
        try:
            fetched = await repository.manifest(name.digest or name.tag)
            document = fetched.document
            if isinstance(document, Index):
                platforms = [one.platform for one in document.manifests if one.platform]
            else:
                config = await repository.small_blob(document.config)
                platforms = [image_config(config).platform]
        except (NotThere, Denied, NeedsLogin) as error:
            raise in_dockers_words(error, name) from None
    descriptor = fetched.descriptor
    return {
        "Descriptor": {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        },
        "Platforms": [platform.to_json() for platform in platforms],
    }
