"""Which proxy a URL goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go (and so docker) reads them.

Values only. The daemon has no such variables of its own: they come from config.toml or from whoever asks.
Loopback is never proxied. NO_PROXY lists, separated by commas: `*`; addresses and CIDR ranges; `example.org`
(itself and all below), `.example.org` and `*.example.org` (only what is below); each with `:port` behind.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from dockpy.errors import InvalidParameter
from dockpy.http.url import Url, is_loopback, parse_url


@dataclass(frozen=True)
class Proxy:
    """`url` without the credentials, which are `authorization` (a header's value, "" for none)."""

    url: Url
    authorization: str = ""


@dataclass(frozen=True)
class Proxies:
    """Texts as the variables hold them; "" is none."""

    http: str = ""
    https: str = ""
    no: str = ""

    def proxy_for(self, url: Url) -> Proxy | None:
        text = self.https if url.secure else self.http
        if not text or is_loopback(url.host) or self._excepts(url):
            return None
        return parse_proxy(text)

    def _excepts(self, url: Url) -> bool:
        return any(_matches(word.strip().lower(), url) for word in self.no.split(","))


NONE = Proxies()


def from_environ(environ: Mapping[str, str]) -> Proxies:
    """Upper case first, then lower case, as Go."""

    def value(name: str) -> str:
        return environ.get(name) or environ.get(name.lower()) or ""

    return Proxies(value("HTTP_PROXY"), value("HTTPS_PROXY"), value("NO_PROXY"))


def parse_proxy(text: str) -> Proxy:
    """`http://[user[:password]@]host[:port]`, also without the scheme; InvalidParameter else."""
    scheme, colon, rest = text.strip().partition("://")
    if not colon:
        scheme, rest = "http", text.strip()
    if scheme.lower() not in ("http", "https"):
        raise InvalidParameter(
            f"the proxy {scheme:.20}://… cannot be used: only http and https proxies are served"
        )
    user, at, place = rest.rpartition("@")
    authorization = ""
    if at:
        name, _, password = user.partition(":")
        pair = f"{unquote(name)}:{unquote(password)}".encode()
        authorization = "Basic " + base64.b64encode(pair).decode("ascii")
    return Proxy(parse_url(f"{scheme}://{place}"), authorization)


def _matches(word: str, url: Url) -> bool:
    if not word:
        return False
    if word == "*":
        return True
    address = _address(url.host)
    if "/" in word:
        network = _network(word)
        return network is not None and address is not None and address in network
    host, port = _split_port(word)
    if port and port != str(url.port):
        return False
    if (listed := _address(host)) is not None:
        return listed == address
    if host.startswith("*."):
        host = host[1:]
    if host.startswith("."):
        return url.host.endswith(host)
    return url.host == host or url.host.endswith("." + host)


def _split_port(word: str) -> tuple[str, str]:
    if word.startswith("["):
        host, _, rest = word[1:].partition("]")
        return host, rest.lstrip(":")
    if word.count(":") == 1:
        host, _, port = word.partition(":")
        return host, port
    return word, ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """None for what is no range: it matches nothing, as in Go."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
