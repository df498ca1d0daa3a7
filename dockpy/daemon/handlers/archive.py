"""A container's files over HTTP: archive (`docker cp`), changes, export, commit.

Each call is one worker thread that reads or writes the connection itself. A running container goes on
meanwhile; a stopped one cannot be started before the call is over, since its tree is mounted for it.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import stat
from collections.abc import Mapping
from functools import partial
from typing import Callable, TypeVar

import trio

from dockpy import ids
from dockpy.api import query as q
from dockpy.api.container import Config, decode
from dockpy.api.fields import parse_object
from dockpy.api.times import rfc3339nano
from dockpy.daemon import rootview
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.rootview import RootView
from dockpy.daemon.router import Handler
from dockpy.errors import Conflict, DockpyError, InvalidParameter, NotFound
from dockpy.linux.beneath import open_in_root, read_file
from dockpy.runtime import users
from dockpy.runtime.errors import SetupError
from dockpy.storage import inside
from dockpy.storage.compression import decompressed
from dockpy.storage.inside import Found, Intended
from dockpy.storage.pack import Packer
from dockpy.storage.untar import Place, untar
from dockpy.supervisor import commit
from dockpy.supervisor.assemble import shown_mounts
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.records import Record

T = TypeVar("T")

_KINDS = {"C": 0, "A": 1, "D": 2}
_ETC = ("hostname", "hosts", "resolv.conf")
# Mounted in a running container only; docker's view of it has them empty.
_KERNEL_FOLDERS = frozenset(("/dev", "/proc", "/sys"))
_GO_BITS = (
    (stat.S_ISUID, 1 << 23),
    (stat.S_ISGID, 1 << 22),
    (stat.S_ISVTX, 1 << 20),
)
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}


class ArchiveHandlers:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._real_owners = containers.host.tier != "single"
        # In a user namespace nodes cannot be made; docker's rootless daemon passes over them, too.
        self._devices = containers.host.tier == "root" and ids.mapped_ids() == (1 << 32) - 1
        # Transfers wait for their clients, so they must not share the few threads that unpack.
        self._transfers = trio.CapacityLimiter(32)

    def table(self) -> dict[str, Handler]:
        return {
            "container_archive": self.archive,
            "container_changes": self.changes,
            "container_export": self.export,
            "commit": self.commit,
        }

    def _named(self, exchange: Exchange) -> Container:
        return self._usable(self._containers.get(exchange.names["id"]), "export")

    def _usable(self, container: Container, verb: str) -> Container:
        if container.removing:
            raise Conflict(f"You cannot {verb} container {container.id} which is being removed")
        return container

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._transfers)

    # ------------------------------------------------------------------------- archive

    async def archive(self, exchange: Exchange) -> None:
        path = exchange.query.get("path", "")
        if not path:
            raise InvalidParameter("bad parameter: path cannot be empty")
        if "\0" in path:
            raise InvalidParameter("bad parameter: path has a NUL")
        container = self._usable(self._containers.get(exchange.names["id"]), "copy files of")
        serve = {"HEAD": self._head, "GET": self._get, "PUT": self._put}[exchange.request.method]
        try:
            await serve(exchange, container, path)
        except FileNotFoundError:
            if exchange.begun:
                raise
            raise NotFound(
                f"Could not find the file {path} in container {exchange.names['id']}"
            ) from None

    async def _with_tree(self, container: Container, work: Callable[[RootView], T]) -> T:
        """`work` in a thread, with the container's tree."""

        def run(opened: Callable[[], RootView]) -> T:
            with opened() as view:
                return work(view)

        while True:
            state = container.state
            if state.running:
                running = partial(rootview.of_running, state.pid, state.pid_start)
                return await self._in_thread(partial(run, running))
            async with container.lock:
                if not container.state.running:
                    self._usable(container, "copy files of")
                    return await self._in_thread(partial(run, partial(self._assembled, container)))

    def _assembled(self, container: Container) -> RootView:
        record = container.record
        bundle = self._containers.folders.bundle(record.id)
        etc = {f"/etc/{name}": f"{bundle}/{name}" for name in _ETC}
        etc = {path: source for path, source in etc.items() if os.path.exists(source)}
        (root,) = self._containers.snapshots.mounts(record.id)
        readonly = record.host_config.readonly_rootfs
        mounts = shown_mounts(record, etc)
        return rootview.of_stopped(f"{bundle}/rootfs", root, mounts, readonly=readonly)

    def _intended(self, container: Container, view: RootView) -> Intended:
        snapshots = self._containers.snapshots
        return Intended(
            view.root, real=self._real_owners, trees=lambda: snapshots.trees(container.id)
        )

    async def _head(self, exchange: Exchange, container: Container, path: str) -> None:
        found = await self._with_tree(container, lambda view: _look(view, path))
        await exchange.reply(200, headers=[_stat_header(found)])

    async def _get(self, exchange: Exchange, container: Container, path: str) -> None:
        await exchange.body()
        wire = exchange.threaded()
        running = container.state.running

        def work(view: RootView) -> None:
            found = _look(view, path)
            wire.begin("application/x-tar", [_stat_header(found)])
            packer = Packer(wire.write, wire.write_file)
            hidden = _KERNEL_FOLDERS.__contains__ if running else _nothing
            inside.pack(view.root, path, packer, self._intended(container, view).of, hidden)
            packer.end()
            wire.end()

        await self._with_tree(container, work)
        self._containers.publish(container, "archive-path")

    async def _put(self, exchange: Exchange, container: Container, path: str) -> None:
        no_overwrite = q.boolean(exchange.query, "noOverwriteDirNonDir")
        as_user = q.boolean(exchange.query, "copyUIDGID")
        wire = exchange.threaded()

        def work(view: RootView) -> None:
            folder = _destination(view, path, container.record)
            user = container.record.config.user if as_user else ""
            untar(
                decompressed(wire.read),
                Place(view.root, folder, follow=True),
                own=self._intended(container, view).give,
                owner=_ids_of(view, user) if user else None,
                devices=self._devices,
                no_overwrite=no_overwrite,
            )

        await self._with_tree(container, work)
        self._containers.publish(container, "extract-to-dir")
        await exchange.reply(200)

    # --------------------------------------------------------------- changes, export, commit

    async def changes(self, exchange: Exchange) -> None:
        container = self._named(exchange)

        def work() -> list[dict[str, object]]:
            return [
                {"Path": os.fsdecode(change.path), "Kind": _KINDS[change.kind]}
                for change in self._containers.snapshots.changes(container.id)
            ]

        # As docker: null for none.
        await exchange.reply(200, await self._in_thread(work) or b"null\n")

    async def export(self, exchange: Exchange) -> None:
        container = self._named(exchange)
        await exchange.body()
        wire = exchange.threaded()

        def work() -> None:
            wire.begin("application/octet-stream")
            self._containers.snapshots.write_tree(container.id, wire.write, wire.write_file)
            wire.end()

        await self._in_thread(work)
        self._containers.publish(container, "export")

    async def commit(self, exchange: Exchange) -> None:
        query = exchange.query
        raw = await exchange.json()
        container = self._usable(self._containers.get(query.get("container", "")), "commit")
        fields = parse_object(raw, "the body")
        image_id = await commit.commit(
            self._containers,
            container,
            commit.Request(
                repo=query.get("repo", ""),
                tag=query.get("tag", ""),
                author=query.get("author", ""),
                comment=query.get("comment", ""),
                pause=q.boolean(query, "pause", True),
                changes=exchange.request.query_lists.get("changes", ()),
                config=decode(Config, fields, "") if fields else None,
            ),
        )
        await exchange.reply(201, {"Id": image_id})


def _nothing(path: str) -> bool:
    return False


def _look(view: RootView, path: str) -> Found:
    try:
        return inside.look(view.root, path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _told("lstat", path, error) from None


def _told(verb: str, path: str, error: OSError) -> DockpyError:
    return DockpyError(f"{verb} {path}: {os.strerror(error.errno or 0).lower()}")


def _destination(view: RootView, path: str, record: Record) -> str:
    """Where to unpack, all links followed; what docker refuses is refused."""
    try:
        folder = inside.folder(view.root, path)
        fd = open_in_root(view.root, folder, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ENOTDIR and error.strerror != os.strerror(errno.ENOTDIR):
            raise InvalidParameter(str(error.strerror)) from None
        raise _told("lstat", path, error) from None
    try:
        readonly = os.fstatvfs(fd).f_flag & os.ST_RDONLY
    finally:
        os.close(fd)
    if readonly:
        volumes = (mount.destination.rstrip("/") for mount in shown_mounts(record, {}))
        if any(f"{folder}/".startswith(f"{volume}/") for volume in volumes):
            raise InvalidParameter("mounted volume is marked read-only")
        raise InvalidParameter("container rootfs is marked read-only")
    return folder


def _ids_of(view: RootView, user: str) -> tuple[int, int]:
    """Of the container's user, by the container's own files."""
    tables = []
    for name in ("/etc/passwd", "/etc/group"):
        try:
            tables.append(read_file(view.root, name, users.FILE_LIMIT))
        except OSError:
            tables.append(b"")
    try:
        identity = users.resolve(user, (), *tables)
    except SetupError as error:
        raise InvalidParameter(str(error)) from None
    return identity.uid, identity.gid


def _stat_header(found: Found) -> tuple[str, str]:
    raw: Mapping[str, object] = {
        "name": found.name,
        "size": found.state.st_size,
        "mode": go_mode(found.state.st_mode),
        "mtime": rfc3339nano(found.state.st_mtime_ns),
        "linkTarget": found.target,
    }
    text = json.dumps(raw, separators=(",", ":")).encode()
    return "X-Docker-Container-Path-Stat", base64.b64encode(text).decode()


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode has it."""
    value = mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in _GO_BITS:
        if mode & bit:
            value |= go_bit
    return value
