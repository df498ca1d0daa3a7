"""One registry's client: which endpoint answers, authorization, redirects, retries. What is asked is `client`'s and `upload`'s.

Endpoints are tried in order until one answers like a registry (a mirror also until it has what is wanted);
from then on it is that one. A mirror gets no credentials. Redirects are followed at most ten times, never
from https to http, and Authorization stays with the host that it is for. What may get better is
asked again, with growing pauses, and after what Retry-After says.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from dockpy.errors import DockpyError
from dockpy.http.url import Url
from dockpy.registry.auth import ANONYMOUS, Authorizer, Credentials
from dockpy.registry.endpoints import Endpoint
from dockpy.registry.errors import BODY_LIMIT, RegistryError, refusal
from dockpy.transport.client import Content, HttpClient, NoConnection, Response, TransportError

REDIRECTS = 10
_MOVED = frozenset((301, 302, 303, 307, 308))
Headers = Sequence[tuple[str, str]]
Query = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Retries:
    """Pauses in seconds: `first`, doubled each time up to `longest`. A registry that wants more is given up."""

    attempts: int = 5
    first: float = 0.5
    longest: float = 60.0

    def pause(self, attempt: int, wanted: float | None) -> float | None:
        """Before attempt number `attempt` + 1; None when there is none."""
        if attempt >= self.attempts or (wanted is not None and wanted > self.longest):
            return None
        grown = min(self.first * 2.0 ** (attempt - 1), self.longest)
        return max(grown * random.uniform(0.75, 1.25), wanted or 0.0)


RETRIES = Retries()


class Registry:
    """For one operation and one person. `http` is open as long as it is used."""

    def __init__(
        self,
        http: HttpClient,
        endpoints: Sequence[Endpoint],
        credentials: Credentials = ANONYMOUS,
        retries: Retries = RETRIES,
        *,
        offline: bool = False,
    ) -> None:
        self.http = http
        self.retries = retries
        self._endpoints = tuple(endpoints)
        self._credentials = credentials
        self._offline = offline
        self._at = 0
        self._settled = False
        self._authorizers: dict[tuple[str, str, int], Authorizer] = {}

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoints[self._at]

    @property
    def identity_token(self) -> str:
        """What a login got in place of the password; "" for none."""
        return self._authorizer(self.endpoint).identity_token

    async def ping(self) -> None:
        """Whether this is a registry that lets these credentials in; RegistryError or TransportError else."""
        response = await self.ask("GET", "/v2/", expect=(200,))
        await response.drain()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        headers: Headers = (),
        body: Content = None,
        scopes: Sequence[str] = (),
        expect: Sequence[int] = (200,),
        again: bool = True,
    ) -> Response:
        """The response, open, when its status is expected; else the error. `path` is not encoded yet.

        `again`: whether it does no harm to ask twice.
        """
        attempt = 1
        while True:
            endpoint = self.endpoint
            try:
                url = endpoint.url.at(path, query)
                response = await self.at(
                    method, url, headers=headers, body=body, scopes=scopes, endpoint=endpoint
                )
                if response.status in expect:
                    self._settled = True
                    return response
                raise await self.refusal(method, response)
            except (TransportError, RegistryError) as error:
                if self._next(endpoint, error):
                    continue
                pause = self._pause(error, attempt) if again else None
                if pause is None:
                    raise
            attempt += 1
            await trio.sleep(pause)

    def _next(self, endpoint: Endpoint, error: DockpyError) -> bool:
        """Goes on to the next endpoint, where this one's failure says that it is the wrong one."""
        if endpoint is not self.endpoint:
            return True  # another request has gone on already
        if self._at + 1 >= len(self._endpoints) or (self._settled and not endpoint.mirror):
            return False
        # http spoken to a TLS port is answered with 400.
        wrong = isinstance(error, TransportError) or getattr(error, "status", 0) == 400
        if not endpoint.mirror and not wrong:
            return False
        following = self._endpoints[self._at + 1]
        if isinstance(error, NoConnection) and following.url.port == endpoint.url.port:
            if "refused" in str(error) and following.url.host == endpoint.url.host:
                return False  # nobody listens there, whatever is spoken
        self._at += 1
        self._settled = False
        return True

    def _pause(self, error: DockpyError, attempt: int) -> float | None:
        if isinstance(error, NoConnection) and not self._settled:
            return None  # nobody has ever answered: more likely a wrong name than bad luck
        if isinstance(error, RegistryError):
            return self.retries.pause(attempt, error.retry_after) if error.temporary else None
        return self.retries.pause(attempt, None)

    async def at(
        self,
        method: str,
        url: Url,
        *,
        headers: Headers = (),
        body: Content = None,
        scopes: Sequence[str] = (),
        endpoint: Endpoint | None = None,
    ) -> Response:
        """One request to a URL (an upload's location, a next page), redirects and challenges met; any other status."""
        endpoint = endpoint or self.endpoint
        authorizer = self._authorizer(endpoint)
        challenged = False
        hops = 0
        while True:
            own = url.origin == endpoint.url.origin
            used = authorizer.header(scopes) if own else ""
            fields = [*headers, ("Authorization", used)] if used else list(headers)
            verify = endpoint.verify if url.host == endpoint.url.host else True
            response = await self.http.request(method, url, fields, body, verify=verify)
            if response.status == 401 and own and not challenged:
                challenged = True
                error = await self.refusal(method, response)
                if not await authorizer.meet(response, scopes, used):
                    raise error
                continue
            location = response.headers.get("location", "")
            if response.status not in _MOVED or not location or method not in ("GET", "HEAD"):
                return response
            await response.drain()
            hops += 1
            if hops > REDIRECTS:
                raise RegistryError(
                    f"the registry {endpoint.url.authority} redirects more than {REDIRECTS} times"
                )
            url = self._moved(url, location)

    def _moved(self, url: Url, location: str) -> Url:
        following = url.join(location)
        if url.secure and not following.secure:
            raise RegistryError(
                f"{url.shown} redirects to {following.shown}, which is not encrypted: refused"
            )
        return following

    async def refusal(self, method: str, response: Response) -> RegistryError:
        """The error that a response tells of; the response is over then."""
        where = f'{method.capitalize()} "{response.url.shown}"'
        body = b""
        async with response:
            try:
                body = await response.read(BODY_LIMIT)
            except DockpyError:
                pass  # the status says enough
        return refusal(response.status, response.headers, body, where)

    def _authorizer(self, endpoint: Endpoint) -> Authorizer:
        known = self._authorizers.get(endpoint.url.origin)
        if known is None:

            def plain_allowed(realm: Url) -> bool:
                near = endpoint.url
                if near.secure:
                    return False
                return realm.host == near.host or (realm.loopback and near.loopback)

            known = Authorizer(
                self.http,
                endpoint.url,
                ANONYMOUS if endpoint.mirror else self._credentials,
                plain_allowed,
                verify=endpoint.verify,
                offline=self._offline,
            )
            self._authorizers[endpoint.url.origin] = known
        return known
