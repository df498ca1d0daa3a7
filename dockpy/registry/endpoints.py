"""Where a registry is asked: https, and http only for loopback and for what the settings call insecure.

    [registry]                                     in config.toml
    mirrors = ["https://mirror.example"]           asked first for what is on docker.io, without credentials
    insecure = ["registry.lan:5000", "10.0.0.0/8"]

Docker's own rules: a loopback registry needs no certificate; docker.io is at registry-1.docker.io.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from dockpy.config import RegistrySettings
from dockpy.http.url import Url, is_loopback, parse_authority, parse_url
from dockpy.oci.reference import DEFAULT_DOMAIN
from dockpy.transport.proxies import Proxies

DOCKER_HOST = "registry-1.docker.io"


@dataclass(frozen=True)
class Endpoint:
    """`url` is the base, with the target "/". `verify`: whether its certificate must be good."""

    url: Url
    verify: bool = True
    mirror: bool = False


def endpoints(
    domain: str, settings: RegistrySettings, *, mirrors: bool = True
) -> tuple[Endpoint, ...]:
    """What to try for a reference's domain, in order; mirrors only where something is to be read."""
    first: list[Endpoint] = []
    if domain == DEFAULT_DOMAIN:
        if mirrors:
            first = [_mirror(text, settings) for text in settings.mirrors]
        domain = DOCKER_HOST
    host, port = parse_authority(domain, 0xFFFF)
    named = ":" in domain.rpartition("]")[2]
    secure = Url("https", host, port if named else 443)
    plain = Url("http", host, port if named else 80)
    if is_loopback(host):
        return (*first, Endpoint(plain), Endpoint(secure, verify=False))
    if is_insecure(host, port if named else 443, settings.insecure):
        return (*first, Endpoint(secure, verify=False), Endpoint(plain))
    return (*first, Endpoint(secure))


def _mirror(text: str, settings: RegistrySettings) -> Endpoint:
    url = parse_url(text)
    trusted = not url.loopback and not is_insecure(url.host, url.port, settings.insecure)
    return Endpoint(Url(url.scheme, url.host, url.port), verify=trusted, mirror=True)


def is_insecure(host: str, port: int, insecure: Sequence[str]) -> bool:
    """Whether the settings list this host by name, with or without port, or by a range of addresses."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for text in insecure:
        if "/" in text:
            if address is not None and address in ipaddress.ip_network(text, strict=False):
                return True
            continue
        listed, listed_port = parse_authority(text, 0xFFFF)
        has_port = ":" in text.rpartition("]")[2]
        if listed == host and (not has_port or listed_port == port):
            return True
    return False


def proxies_of(settings: RegistrySettings) -> Proxies:
    return Proxies(settings.http_proxy, settings.https_proxy, settings.no_proxy)
