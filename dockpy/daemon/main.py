"""The composition root: everything is built once, here, and passed in.

`serve_inherited` is what the keeper calls in its child. The end: SIGTERM, `POST /dockpy/stop`, or ten
idle minutes; containers go on in any case, and whoever comes next adopts them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping

import trio

from dockpy import config as settings
from dockpy import files, ids, localdisk
from dockpy.config import Config
from dockpy.daemon.handlers.absent import AbsentHandlers
from dockpy.daemon.handlers.archive import ArchiveHandlers
from dockpy.daemon.handlers.check import CheckHandlers
from dockpy.daemon.handlers.containers import ContainerHandlers
from dockpy.daemon.handlers.events import EventHandlers
from dockpy.daemon.handlers.execs import ExecHandlers
from dockpy.daemon.handlers.images import ImageHandlers
from dockpy.daemon.handlers.push import PushHandlers
from dockpy.daemon.handlers.quota import QuotaHandlers
from dockpy.daemon.handlers.registry import RegistryHandlers
from dockpy.daemon.handlers.streams import StreamHandlers
from dockpy.daemon.handlers.system import About, SystemHandlers, keeper_pid_of
from dockpy.daemon.handlers.trust import TrustHandlers
from dockpy.daemon.handlers.usage import UsageHandlers
from dockpy.daemon.jobs import lenders_of, sweep
from dockpy.daemon.router import Router
from dockpy.daemon.server import Server
from dockpy.damaged import Shelf
from dockpy.errors import DockpyError, Unavailable
from dockpy.images.store import ImageStore
from dockpy.keeper import place, takeover
from dockpy.keeper.protocol import FORMER, KeeperLink
from dockpy.paths import Paths
from dockpy.storage.choose import choose
from dockpy.storage.content import ContentStore
from dockpy.storage.snapshot import Snapshotter
from dockpy.supervisor import monitor
from dockpy.supervisor.adopt import adopt
from dockpy.supervisor.containers import Consequences, Containers, Host
from dockpy.supervisor.events import Events
from dockpy.supervisor.groups import find
from dockpy.supervisor.logs import pack_for_ever
from dockpy.supervisor.records import Folders
from dockpy.supervisor.remove import take_away
from dockpy.supervisor.restart import end_session, is_start
from dockpy.supervisor.shims import Keeper
from dockpy.supervisor.start import start_again
from dockpy.transport.unix import no_more, serve

log = logging.getLogger("dockpy.daemon")

# A worker thread that computes (decompression, digests) must not keep trio's thread waiting for long:
# the interpreter's default of 5 ms would be paid at every wake-up.
SWITCH_INTERVAL = 0.0005


def serve_inherited(
    paths: Paths, listen_fd: int, keeper_fd: int, lock_fd: int, info: Mapping[str, str]
) -> int:
    """Runs the daemon to its end; 0 when that was meant."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        config = settings.load(paths.config)
    except DockpyError as error:
        log.error("%s; the defaults hold", error)
        config = Config()
    snapshots = choose(paths, info["tier"])  # by trying, in forks: before any thread exists
    daemon = Daemon(paths, config, snapshots, listen_fd, lock_fd, info)
    trio.run(daemon.run, keeper_fd)
    return 0


class Daemon:
    def __init__(
        self,
        paths: Paths,
        config: Config,
        snapshots: Snapshotter,
        listen_fd: int,
        lock_fd: int,
        info: Mapping[str, str],
    ) -> None:
        self._paths = paths
        self._config = config
        self._snapshots = snapshots
        self._info = info
        self._lock_fd = lock_fd
        self._listeners = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, listen_fd)]
        self._serving = False

    async def run(self, keeper_fd: int) -> None:
        paths = self._paths
        self._over = trio.Event()
        self._stop_keeper = False
        lenders = lenders_of(paths, self._config.stores, os.environ)
        content = ContentStore(paths.images, [lender.images for lender in lenders])
        snapshots = self._snapshots
        snapshots.borrow([lender.snapshots for lender in lenders])
        images = ImageStore(content, snapshots, f"{paths.images}/index.json", paths.images_lock)
        images.index.borrow([lender.images for lender in lenders])
        shelf = Shelf(paths.damaged)
        await trio.to_thread.run_sync(_recover, snapshots, images, shelf)
        self._groups = find(paths.store, os.getppid())
        keeper = Keeper(KeeperLink(keeper_fd), self._revive, self._new_listener)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            containers = Containers(
                nursery=nursery,
                host=Host(self._info["run"], self._info["tier"], ids.boot_id()),
                folders=Folders(paths.containers, paths.tmp, shelf),
                images=images,
                image_index=f"{paths.images}/index.json",
                snapshots=snapshots,
                keeper=keeper,
                groups=self._groups,
                events=Events(),
                then=Consequences(take_away, start_again, monitor.begin, monitor.follow),
            )
            nursery.start_soon(keeper.read)
            await adopt(containers, start=is_start(paths.session, ids.boot_id()))
            self._server = Server(self._router(containers))
            self._serving = True
            for listener in self._listeners:
                nursery.start_soon(serve, listener, self._server.handle)
            for _ in self._listeners[1:]:
                nursery.start_soon(self._close_former)
            nursery.start_soon(self._signals)
            nursery.start_soon(self._idle, containers)
            containers.aside(pack_for_ever, containers)
            containers.aside(trio.to_thread.run_sync, sweep, paths)
            gc.collect()
            gc.freeze()
            log.info("serving %s (%s, %s)", self._info["run"], self._info["tier"], snapshots.name)
            await self._over.wait()
            if self._stop_keeper:
                keeper.stop()
            self._server.hang_up()
            nursery.cancel_scope.cancel()
        log.info("ended; containers go on")

    def _router(self, containers: Containers) -> Router:
        about = About(
            self._paths,
            self._info["tier"],
            self._info["build"],
            self._info["run"],
            self._config.registry,
        )
        system = SystemHandlers(
            containers, about, lambda: self._server.connections, self._keeper_pid, self._stop
        )
        images = ImageHandlers(containers)
        registry = RegistryHandlers(
            containers,
            self._config.registry,
            self._paths.store,
            self._info["tier"],
            images.import_rootfs,
        )
        quota = QuotaHandlers(containers, self._paths.limit)
        containers.aside(quota.keep_for_ever)
        if not self._config.keep_blobs:
            containers.aside(quota.thin_for_ever)
        nouns = (
            system,
            EventHandlers(containers.events),
            ContainerHandlers(containers),
            ExecHandlers(containers),
            UsageHandlers(containers),
            StreamHandlers(containers),
            images,
            registry,
            PushHandlers(containers, registry),
            TrustHandlers(containers, registry),
            ArchiveHandlers(containers),
            CheckHandlers(containers, self._paths),
            AbsentHandlers(containers),
            quota,
        )
        return Router({name: handler for noun in nouns for name, handler in noun.table().items()})

    # ---------------------------------------------------------------------------- listening

    def _new_listener(self, fd: int) -> None:
        """The socket's file had vanished, and the keeper made another. Clients may wait in the queue of those
        before, so nobody is turned away.
        """
        self._listeners.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd))
        if self._serving:
            self._nursery.start_soon(serve, self._listeners[-1], self._server.handle)
            self._nursery.start_soon(self._close_former)

    async def _close_former(self) -> None:
        await trio.sleep(FORMER)
        no_more(self._listeners.pop(0))

    def _revive(self) -> KeeperLink:
        if self._store_is_gone():
            raise Unavailable("there is no store to keep")
        return KeeperLink(
            takeover.spawn(self._paths, self._listeners[-1].fileno(), self._lock_fd, self._info)
        )

    def _keeper_pid(self) -> int:
        try:
            raw = json.loads(files.read_bytes(self._paths.daemon_json))
        except (OSError, ValueError):
            return 0
        return keeper_pid_of(raw if isinstance(raw, dict) else None)

    # ------------------------------------------------------------------------------ the end

    def _stop(self, successor: bool = False) -> None:
        """`successor`: a newer build takes over at once."""
        if not successor:
            end_session(self._paths.session)
        self._stop_keeper = True
        self._over.set()

    async def _signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async for number in received:
                if number == signal.SIGTERM:
                    self._stop()
                    return

    async def _idle(self, containers: Containers) -> None:
        """Ends the daemon when for so long nothing has run and nobody was connected, and when its
        store has been deleted: it could keep nothing, and nobody would find it.
        """
        limit = self._config.idle_exit if self._config.idle_exit > 0 else math.inf
        quiet_since = trio.current_time()
        signed = -math.inf
        while True:
            await trio.sleep(max(min(limit / 10, 5), 0.05))
            if trio.current_time() - signed >= localdisk.SIGN:
                signed = trio.current_time()
                _sign(self._paths)
            if self._store_is_gone():
                return
            if containers.busy() or self._server.connections:
                quiet_since = trio.current_time()
            quiet = trio.current_time() - max(quiet_since, self._server.quiet_since)
            if quiet >= limit:
                log.info("idle for %.0f s", quiet)
                self._over.set()
                return

    def _store_is_gone(self) -> bool:
        """Ends the daemon then. Where the keeper was quicker than who deletes, there is a store with
        its run folder and no other.
        """
        paths = self._paths
        if place.is_there(paths, self._lock_fd) and os.path.isdir(paths.containers):
            return False
        if not self._over.is_set():
            log.error("the store %s is gone", paths.store)
            self._over.set()
        return True


def _sign(paths: Paths) -> None:
    """A sign of life for other hosts, where they see the store too (client.birth)."""
    if paths.data != paths.store:
        with contextlib.suppress(OSError):  # the keeper writes the record again
            os.utime(paths.daemon_json)


def _recover(snapshots: Snapshotter, images: ImageStore, shelf: Shelf) -> None:
    """What an interrupted daemon left half done, before anybody asks."""
    snapshots.recover()
    images.recover(shelf)
