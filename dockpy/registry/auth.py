"""Who asks: credentials, `WWW-Authenticate`, tokens. RFC 7235 and the distribution project's token scheme.

An `Authorizer` belongs to one registry's client. It answers a challenge with Basic or with a token, fetched from
the realm the registry names and kept by scope until it expires. Where credentials may go: to the
registry's own host, and to its realm when that is https (or http on loopback, or on a host that the
settings call insecure); a realm elsewhere is refused in words, whoever would be asked for nothing too.
Scopes are ours, never the challenge's: a registry cannot make us ask for more.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from dockpy.errors import DockpyError
from dockpy.http.url import Url, parse_url
from dockpy.registry.errors import BODY_LIMIT, NeedsLogin, RegistryError, refusal
from dockpy.transport.client import HttpClient, Response

CLIENT_ID = "dockpy"
TOKEN_LIMIT = 256 << 10
DEFAULT_LIFE = 60.0  # seconds, where a token does not say (the specification's)
_LEEWAY = 10.0
_LONGEST = 86400.0

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_CHALLENGE = re.compile(rf"\s*(?P<scheme>{_TOKEN})(?:\s+|$)")
_PARAMETER = re.compile(
    rf'\s*,?\s*(?P<name>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_TOKEN}))'
)
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Credentials:
    """As in X-Registry-Auth. At most one kind is used: a registry token, an identity token, a password."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, server={self.server!r}, …)"

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)


ANONYMOUS = Credentials()


def credentials_from_json(raw: object) -> Credentials:
    """An AuthConfig of the Engine API. `auth` (base64 of user:password) is read where there is no user name."""
    if not isinstance(raw, dict):
        return ANONYMOUS

    def text(name: str) -> str:
        value = raw.get(name)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if not username and text("auth"):
        username, _, password = _decoded(text("auth")).decode("utf-8", "replace").partition(":")
    return Credentials(
        username, password, text("identitytoken"), text("registrytoken"), text("serveraddress")
    )


def registry_auth(header: str) -> Credentials:
    """X-Registry-Auth (base64url of JSON); what cannot be decoded is nobody, as for docker."""
    return credentials_from_json(_json(header))


def registry_config(header: str) -> Mapping[str, Credentials]:
    """X-Registry-Config: credentials by host."""
    raw = _json(header)
    if not isinstance(raw, dict):
        return {}
    return {str(host): credentials_from_json(value) for host, value in raw.items()}


def _json(header: str) -> object:
    if not header:
        return None
    try:
        return json.loads(_decoded(header))
    except (ValueError, RecursionError):
        return None


def _decoded(text: str) -> bytes:
    """base64, plain or url-safe, with or without its padding."""
    plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


@dataclass(frozen=True)
class Challenge:
    """One of `WWW-Authenticate`. `scheme` is in lower case, and so are the parameters' names."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """All challenges of a header; what makes no sense ends the reading, as nothing behind can be trusted."""
    found: list[Challenge] = []
    at = 0
    while (match := _CHALLENGE.match(header, at)) is not None:
        at = match.end()
        parameters: dict[str, str] = {}
        while (one := _PARAMETER.match(header, at)) is not None:
            at = one.end()
            quoted = one["quoted"]
            value = one["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(one["name"].lower(), value)
        found.append(Challenge(match["scheme"].lower(), parameters))
        comma = re.compile(r"\s*,").match(header, at)
        if comma is None:
            break
        at = comma.end()
    return tuple(found)


@dataclass(frozen=True)
class _Kept:
    authorization: str
    until: float  # trio's clock


class Authorizer:
    """`plain_allowed` says of a host whether it may be asked over http."""

    def __init__(
        self,
        http: HttpClient,
        registry: Url,
        credentials: Credentials,
        plain_allowed: Callable[[Url], bool],
        *,
        verify: bool = True,
        offline: bool = False,
    ) -> None:
        self._http = http
        self._registry = registry
        self._credentials = credentials
        self._plain_allowed = plain_allowed
        self._verify = verify
        self._offline = offline
        self._kept: dict[tuple[str, ...], _Kept] = {}
        self._basic = False
        self._fetching = trio.Lock()
        # What the registry gave in place of a password (login stores it).
        self.identity_token = ""

    def header(self, scopes: Sequence[str]) -> str:
        """The Authorization to send for these scopes; "" while none is known."""
        if self._credentials.registry_token:
            return _bearer(self._credentials.registry_token)
        if self._basic:
            return _basic(self._credentials)
        kept = self._kept.get(tuple(sorted(scopes)))
        return kept.authorization if kept is not None and kept.until > trio.current_time() else ""

    async def meet(self, response: Response, scopes: Sequence[str], used: str) -> bool:
        """Learns what a 401 asks for; whether there is now something else to try than `used`."""
        challenges = parse_challenges(response.headers.get("www-authenticate", ""))
        if self._credentials.registry_token:
            return False
        async with self._fetching:
            known = self.header(scopes)
            if known and known != used:
                return True  # another request has met it meanwhile
            for challenge in challenges:
                if challenge.scheme == "bearer":
                    kept = await self._token(challenge, scopes)
                    now = trio.current_time()
                    # A cache's client asks for ever more repositories.
                    self._kept = {key: one for key, one in self._kept.items() if one.until > now}
                    self._kept[tuple(sorted(scopes))] = kept
                    return kept.authorization != used
                if challenge.scheme == "basic" and self._credentials.username:
                    self._basic = True
                    return not used
        return False

    async def _token(self, challenge: Challenge, scopes: Sequence[str]) -> _Kept:
        realm = self._realm(challenge)
        verify = self._verify or realm.origin != self._registry.origin
        credentials, service = self._credentials, challenge.parameters.get("service", "")
        headers = [("Accept", "application/json")]
        if credentials.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", CLIENT_ID),
                ("scope", " ".join(scopes)),
                ("refresh_token", credentials.identity_token),
            ]
            body = Url("http", "form", 80, "").with_query(form).target[1:].encode()
            headers.append(("Content-Type", "application/x-www-form-urlencoded"))
            response = await self._http.request("POST", realm, headers, body, verify=verify)
        else:
            query = [("service", service)] if service else []
            query += [("scope", scope) for scope in scopes]
            if credentials.username:
                query.append(("account", credentials.username))
                headers.append(("Authorization", _basic(credentials)))
            if self._offline:
                query += [("client_id", CLIENT_ID), ("offline_token", "true")]
            response = await self._http.request(
                "GET", realm.with_query(query), headers, verify=verify
            )
        return await self._read(response, realm)

    async def _read(self, response: Response, realm: Url) -> _Kept:
        async with response:
            body = await response.read(TOKEN_LIMIT)
        where = f"the token endpoint {realm.shown}"
        if response.status != 200:
            error = refusal(response.status, response.headers, body[:BODY_LIMIT], where)
            if response.status in (400, 401, 403) and not isinstance(error, NeedsLogin):
                raise NeedsLogin(str(error), status=response.status, code="UNAUTHORIZED")
            raise error
        try:
            raw = json.loads(body)
        except (ValueError, RecursionError):
            raw = None
        if not isinstance(raw, dict):
            raise RegistryError(f"{where} does not answer with JSON")
        token = raw.get("token") or raw.get("access_token")
        if not isinstance(token, str) or not _HEADER_SAFE.fullmatch(token):
            raise RegistryError(f"{where} gives no token")
        refresh = raw.get("refresh_token")
        if isinstance(refresh, str):
            self.identity_token = refresh
        return _Kept(_bearer(token), trio.current_time() + _life(raw.get("expires_in")))

    def _realm(self, challenge: Challenge) -> Url:
        text = challenge.parameters.get("realm", "")
        try:
            realm = parse_url(text)
        except DockpyError:
            raise RegistryError(
                f"the registry {self._registry.authority} names no token endpoint that can be asked: {text!r:.200}"
            ) from None
        if not realm.secure and not self._plain_allowed(realm):
            raise RegistryError(
                f"the registry {self._registry.authority} wants credentials to be sent to {realm.shown},"
                " which is not encrypted: refused"
            )
        return realm


def _life(said: object) -> float:
    """Seconds for which a token is used, of what the endpoint says; whatever number that is."""
    life = min(said, _LONGEST) if isinstance(said, (int, float)) and said > 0 else DEFAULT_LIFE
    return max(life - _LEEWAY, life / 2)


def _bearer(token: str) -> str:
    if not _HEADER_SAFE.fullmatch(token):
        raise NeedsLogin("the registry token cannot be sent: it holds other than printable letters")
    return f"Bearer {token}"


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode("utf-8", "surrogateescape")
    return "Basic " + base64.b64encode(pair).decode("ascii")
