"""URLs of http and https as values: taken apart strictly, joined by RFC 3986, safe to be put into a request.

Registries name URLs (redirects, upload locations, token realms), so each may be an attack: control
characters would end a header, user names would hide the real host. What is not plain is refused, and what
a target may not hold is percent-encoded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Union
from urllib.parse import quote, quote_plus, urljoin

from dockpy.errors import InvalidParameter

PORTS = {"http": 80, "https": 443}
LIMIT = 16 << 10  # signed URLs of object stores are some 2 KiB
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{0,5}))?"
)
# What stands in a path or query as it is; "%" too, since a URL comes encoded already.
_AS_IT_IS = "%/:?@!$&'()*+,;=-._~[]"

Pairs = Union[Mapping[str, str], Iterable[tuple[str, str]]]


class BadUrl(InvalidParameter):
    """Not a URL that can be asked."""


@dataclass(frozen=True)
class Url:
    """`host` is in lower case and without brackets; `target` is what the request line says: path and query."""

    scheme: str
    host: str
    port: int
    target: str = "/"

    @property
    def authority(self) -> str:
        """`host[:port]` as a Host header has it: without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials are for."""
        return (self.scheme, self.host, self.port)

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def shown(self) -> str:
        """For messages: without the query, which may hold a signature."""
        return str(self).partition("?")[0]

    def at(self, path: str, query: Pairs = ()) -> Url:
        """The same host at `path`, a text that is encoded here, with `query` behind."""
        return replace(self, target=quote(path, safe="/:@!$&'()*+,;=-._~")).with_query(query)

    def with_query(self, query: Pairs) -> Url:
        """With `query` added to what is there."""
        pairs = query.items() if isinstance(query, Mapping) else query
        text = "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in pairs)
        if not text:
            return self
        return replace(self, target=self.target + ("&" if "?" in self.target else "?") + text)

    def join(self, location: str) -> Url:
        """What `location` (absolute or relative) means where this URL was asked."""
        _check(location)
        return parse_url(urljoin(str(self), location))


def parse_url(text: str) -> Url:
    """`text` taken apart; BadUrl for anything but http and https, and for user names in it."""
    _check(text)
    scheme, colon, rest = text.partition("://")
    scheme = scheme.lower()
    if not colon or scheme not in PORTS:
        raise BadUrl(f"{text!r:.200} is not an http or https URL")
    rest = rest.partition("#")[0]
    at = min((place for place in map(rest.find, "/?") if place >= 0), default=len(rest))
    host, port = parse_authority(rest[:at], PORTS[scheme])
    target = rest[at:]
    if not target.startswith("/"):
        target = "/" + target
    return Url(scheme, host, port, quote(target, safe=_AS_IT_IS))


def parse_authority(text: str, default_port: int) -> tuple[str, int]:
    """`host[:port]` or `[v6]:port`; BadUrl else."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise BadUrl(f"{text!r:.200} is not a host name with a port")
    port = int(match["port"]) if match["port"] else default_port
    if not 0 < port < 65536:
        raise BadUrl(f"{text!r:.200}: {port} is not a port")
    if match["six"] is not None:
        try:
            return ipaddress.IPv6Address(match["six"]).compressed, port
        except ValueError:
            raise BadUrl(f"{text!r:.200} is not an address") from None
    host = match["name"].lower()
    if not host.isascii() and len(host) <= 253:  # IDNA is slow with more
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise BadUrl(f"{text!r:.200} is not a host name") from None
    if not _HOST.fullmatch(host):
        raise BadUrl(f"{text!r:.200} is not a host name")
    return host, port


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and nothing else: localhost, 127.0.0.0/8, ::1. Names are not resolved."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _check(text: str) -> None:
    if len(text) > LIMIT:
        raise BadUrl(f"a URL of {len(text)} characters is too long: {text:.60}…")
    if any(character <= " " or character == "\x7f" or character == "\\" for character in text):
        raise BadUrl(f"{text!r:.200} holds characters that no URL holds")
