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
from dockpy.errors import DockpyError, InvalidParameter, Unavailable
from dockpy.oci.fields import Fields, parse
from dockpy.registry.directory import DirectoryBlobs
from dockpy.registry.htpasswd import Accounts
from dockpy.registry.repositories import Repositories
from dockpy.registry.server import HEADERS, RegistryServer
from dockpy.transport.server import HttpServer, listen
from dockpy.transport.tls import server_context

log = logging.getLogger("dockpy.registry")

FORGOTTEN = (
    24 * 3600.0
)  # seconds for which an idle upload, or a blob that no manifest names, is kept
SWEEP = 3600.0


@dataclass(frozen=True)
class Settings:
    store: str
    listen: str = "127.0.0.1:5000"
    certificate: str = ""
    key: str = ""
    htpasswd: str = ""
    read_only: bool = False
    insecure: bool = False


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
    )


def main(arguments: Sequence[str]) -> int:
    """Its one argument is the settings, as the client has read them."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        settings = settings_from_json(parse(arguments[0], "registry"))
        trio.run(serve, settings)
    except DockpyError as error:
        print(f"dockpy registry: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(settings: Settings) -> None:
    if bool(settings.certificate) != bool(settings.key):
        raise InvalidParameter("--tls-cert and --tls-key are wanted together")
    tls = server_context(settings.certificate, settings.key) if settings.certificate else None
    accounts = Accounts(settings.htpasswd) if settings.htpasswd else None
    listeners = await trio.to_thread.run_sync(listen, settings.listen)
    for listener in listeners:
        check_exposure(listener, settings)
    lock = hold(settings.store)
    try:
        repositories = await trio.to_thread.run_sync(open_store, settings.store)
        registry = RegistryServer(repositories, accounts=accounts, read_only=settings.read_only)
        server = HttpServer(registry.handle, base=HEADERS, tls=tls)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, server)
            nursery.start_soon(_sweep, repositories)
            for listener in listeners:
                scheme = "http" if tls is None else "https"
                print(f"Serving {scheme}://{_address(listener)} from {settings.store}", flush=True)
            await server.run(listeners)
            nursery.cancel_scope.cancel()
    finally:
        os.close(lock)


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


async def _sweep(repositories: Repositories) -> None:
    """Once an hour, beginning at once: uploads and blobs that nobody has cared about for a day."""
    while True:
        try:
            await trio.to_thread.run_sync(repositories.blobs.expire, FORGOTTEN)
            await trio.to_thread.run_sync(repositories.sweep, FORGOTTEN)
        except OSError:
            log.exception("sweeping failed")
        await trio.sleep(SWEEP)
