"""From a reference's domain and the daemon's settings to a registry that can be asked: endpoints, proxies, certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dockpy.config import RegistrySettings
from dockpy.registry.auth import ANONYMOUS, Credentials
from dockpy.registry.endpoints import endpoints, proxies_of
from dockpy.registry.session import RETRIES, Registry, Retries
from dockpy.transport.client import HttpClient
from dockpy.transport.proxies import NONE, Proxies
from dockpy.transport.tls import TlsContexts


@dataclass(frozen=True)
class Access:
    """What an operation brings along: folders of certificates, and its person's proxies (else the settings')."""

    certificates: tuple[str, ...] = ()
    proxies: Proxies = NONE


DIRECT = Access()


@asynccontextmanager
async def connect(
    domain: str,
    settings: RegistrySettings,
    credentials: Credentials = ANONYMOUS,
    access: Access = DIRECT,
    retries: Retries = RETRIES,
    *,
    mirrors: bool = True,
    offline: bool = False,
) -> AsyncIterator[Registry]:
    """Opens nothing yet; closes its connections at the end. `mirrors`: not for what is written."""
    configured = proxies_of(settings)
    through = configured if configured != NONE else access.proxies
    async with HttpClient(TlsContexts(access.certificates), through) as http:
        where = endpoints(domain, settings, mirrors=mirrors)
        yield Registry(http, where, credentials, retries, offline=offline)
