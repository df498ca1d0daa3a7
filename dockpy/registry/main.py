"""`dockpy registry serve`: the process. Composition root of the server, as daemon.main is the daemon's.

It is no process of the daemon's and needs none: it holds the lock of its own folder, serves in the
foreground and ends on SIGTERM or SIGINT, with what is under way brought to its end within seconds.
"""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from dockpy import localdisk
from dockpy.config import RegistrySettings
from dockpy.errors import DockpyError, InvalidParameter, Unavailable
from dockpy.http.url import Url, parse_url
from dockpy.oci.fields import Fields, parse
from dockpy.registry.arrivals import Arrivals
from dockpy.registry.auth import ANONYMOUS, Credentials, credentials_from_json
from dockpy.registry.directory import DirectoryBlobs
from dockpy.registry.endpoints import Endpoint, endpoints
from dockpy.registry.htpasswd import Accounts
from dockpy.registry.layout import Beside, Layout
from dockpy.registry.proxy import PullThrough
from dockpy.registry.repositories import Repositories
from dockpy.registry.server import HEADERS, RegistryServer
from dockpy.registry.session import Registry, Retries
from dockpy.registry.sources import Disk, Local, Source
from dockpy.transport.client import HttpClient
from dockpy.transport.proxies import from_environ
from dockpy.transport.server import HttpServer, listen
from dockpy.transport.tls import TlsContexts, server_context

log = logging.getLogger("dockpy.registry")

FORGOTTEN = (
    24 * 3600.0
)  # seconds for which an idle upload, or a blob that no manifest names, is kept
CACHED = 7 * 24 * 3600.0  # as docker's registry
SWEEP = 3600.0
UPSTREAM_RETRIES = Retries(
    attempts=2, first=0.3, longest=3.0
)  # a client waits, and there may be a kept answer


@dataclass(frozen=True)
class Settings:
    store: str
    listen: str = "127.0.0.1:5000"
    certificate: str = ""
    key: str = ""
    htpasswd: str = ""
    read_only: bool = False
    insecure: bool = False
    images: str = ""  # an OCI image layout whose images are served too
    upstream: str = ""  # a URL, or the domain of a reference
    credentials: Credentials = ANONYMOUS  # for the upstream
    certificates: tuple[str, ...] = ()  # folders in docker's certs.d layout, for the upstream
    limit: int = 0  # bytes of a cache; 0 is none


def settings_from_json(raw: object) -> Settings:
    fields = Fields(raw, "registry")
    return Settings(
        fields.text("store"),
        fields.text("listen"),
        fields.text("certificate", ""),
        fields.text("key", ""),
        fields.text("htpasswd", ""),
        fields.boolean("readOnly"),
        fields.boolean("insecure"),
        fields.text("images", ""),
        fields.text("upstream", ""),
        credentials_from_json(fields.raw("credentials")),
        fields.texts("certificates") or (),
        fields.integer("limit", 0),
    )


def main(arguments: Sequence[str]) -> int:
    """Its one argument is a descriptor from which the settings can be read: they may hold a password."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        with open(int(arguments[0]), "rb") as file:
            settings = settings_from_json(parse(file.read(), "registry"))
        trio.run(serve, settings)
    except DockpyError as error:
        print(f"dockpy registry: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(settings: Settings) -> None:
    if bool(settings.certificate) != bool(settings.key):
        raise InvalidParameter("--tls-cert and --tls-key are wanted together")
    if settings.images and settings.upstream:
        raise InvalidParameter(
            "--images and --proxy do not go together: names would mean two things"
        )
    tls = server_context(settings.certificate, settings.key) if settings.certificate else None
    accounts = Accounts(settings.htpasswd) if settings.htpasswd else None
    far = upstreams(settings) if settings.upstream else ()
    listeners = await trio.to_thread.run_sync(listen, settings.listen)
    for listener in listeners:
        check_exposure(listener, settings)
    lock = hold(settings.store)
    disk = Disk()
    try:
        repositories = await disk.run(open_store, settings.store)
        if far:
            # Downloads that a former life of this process has left.
            await disk.run(repositories.blobs.expire, 0.0)
        contexts = TlsContexts(settings.certificates)
        async with (
            HttpClient(contexts, from_environ(os.environ)) as http,
            trio.open_nursery() as nursery,
        ):
            source: Source = Local(repositories, disk)
            read_only = "this registry is read-only" if settings.read_only else ""
            if settings.images:
                source = Beside(source, Layout(settings.images, disk))
            if far:
                arrivals = Arrivals(nursery, repositories, disk, settings.limit)
                upstream = Registry(http, far, settings.credentials, UPSTREAM_RETRIES)
                source = PullThrough(upstream, repositories, arrivals, disk)
                read_only = f"this registry is a cache of {source.title}: push there"
            registry = RegistryServer(
                repositories, source, disk, accounts=accounts, read_only=read_only
            )
            server = HttpServer(registry.handle, base=HEADERS, tls=tls)
            nursery.start_soon(_end_on_signal, server)
            nursery.start_soon(_sweep, repositories, bool(far), settings.limit)
            for listener in listeners:
                scheme = "http" if tls is None else "https"
                print(f"Serving {scheme}://{_address(listener)} from {settings.store}", flush=True)
            await server.run(listeners)
            nursery.cancel_scope.cancel()
    finally:
        os.close(lock)


def upstreams(settings: Settings) -> tuple[Endpoint, ...]:
    """Where the upstream is asked: https, and http only on loopback or when that was said."""
    text = settings.upstream
    try:
        if "://" not in text:
            allowed = (text,) if settings.insecure else ()
            return endpoints(text, RegistrySettings(insecure=allowed), mirrors=False)
        url = parse_url(text)
    except InvalidParameter as error:
        raise InvalidParameter(f"--proxy {text}: {error}") from None
    if url.target not in ("/", "/v2/", "/v2"):
        raise InvalidParameter(f"--proxy {url.shown}: a registry has no path")
    if not url.secure and not url.loopback and not settings.insecure:
        raise InvalidParameter(
            f"--proxy {url.shown} is not encrypted: whoever is between could change what a tag means; "
            "give --insecure if that may be"
        )
    return (Endpoint(Url(url.scheme, url.host, url.port)),)


def check_exposure(listener: socket.socket, settings: Settings) -> None:
    """Others than this host's users get in only by name and password, and unread by third parties."""
    host = str(listener.getsockname()[0]).partition("%")[0]
    if ipaddress.ip_address(host).is_loopback or settings.insecure:
        return
    if not settings.certificate or not settings.htpasswd:
        raise InvalidParameter(
            f"{host} is not this host's loopback: give --tls-cert, --tls-key and --htpasswd, "
            "or --insecure to serve everybody who can reach it"
        )


def hold(folder: str) -> int:
    """The lock on `folder`, which is made where it is missing; closing the descriptor gives it up."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        if localdisk.is_remote(folder):
            log.warning("%s is on a network file system: let one host alone serve it", folder)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be used: {(error.strerror or '').lower()}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Unavailable(f"another registry serves {folder}") from None
    except OSError:
        pass  # a file system without locks
    return fd


def open_store(folder: str) -> Repositories:
    try:
        return Repositories(folder, DirectoryBlobs(folder))
    except OSError as error:
        raise Unavailable(f"{error.filename or folder}: {(error.strerror or '').lower()}") from None


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{host}:{port}"


async def _end_on_signal(server: HttpServer) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        async for _ in received:
            server.stop()


async def _sweep(repositories: Repositories, cache: bool, limit: int) -> None:
    """Once an hour, beginning at once: uploads and blobs that nobody has cared about for a day. Of a cache, also what
    no client has asked for in a week, and what is beyond its limit: it can be fetched again.
    """
    while True:
        try:
            await trio.to_thread.run_sync(repositories.blobs.expire, FORGOTTEN)
            await trio.to_thread.run_sync(repositories.sweep, FORGOTTEN)
            if cache:
                await trio.to_thread.run_sync(repositories.evict, CACHED)
            if limit:
                await trio.to_thread.run_sync(repositories.fit, limit)
        except (OSError, DockpyError):
            log.exception("sweeping failed")
        await trio.sleep(SWEEP)
