"""Whatever changes the store is cut at each of its writes: the next start shows it done or not begun, and nothing half."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from dockpy import ids
from dockpy.api.container import ContainerCreate
from dockpy.damaged import Shelf
from dockpy.images import archive
from dockpy.images.store import ImageStore
from dockpy.keeper.protocol import KeeperLink
from dockpy.paths import Paths
from dockpy.storage.content import ContentStore
from dockpy.storage.overlay import OverlaySnapshotter
from dockpy.supervisor import check, monitor
from dockpy.supervisor.adopt import adopt
from dockpy.supervisor.commit import Request, commit
from dockpy.supervisor.containers import Consequences, Containers, Host
from dockpy.supervisor.control import rename
from dockpy.supervisor.create import create
from dockpy.supervisor.events import Events
from dockpy.supervisor.groups import Groups
from dockpy.supervisor.records import Folders
from dockpy.supervisor.remove import remove, take_away
from dockpy.supervisor.shims import Keeper
from dockpy.supervisor.start import start_again
from tests.cuts import cut
from tests.images.archives import docker_archive, image

LONG = bool(os.environ.get("DOCKPY_TEST_LONG"))
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked with real owners")

T = TypeVar("T")
Work = Callable[[Containers], Awaitable[T]]
Shown = tuple[frozenset[str], frozenset[str]]

BASE = docker_archive(image("one", "two", names=["base:1"]), image("three", names=["gone:1"]))
MORE = docker_archive(image("one", "four", "five", names=["more:1"]))


async def opened(paths: Paths, work: Work[T]) -> T:
    """The store as a daemon opens it, but for the keeper, and with the kernel's overlay taken for granted."""
    shelf = Shelf(paths.damaged)
    snapshots = OverlaySnapshotter(paths.snapshots, real_owners=True, damaged=paths.damaged)
    images = ImageStore(
        ContentStore(paths.images), snapshots, f"{paths.images}/index.json", paths.images_lock
    )
    snapshots.recover()
    images.recover(shelf)
    for folder in (paths.containers, paths.tmp, f"{paths.data}/run/s"):
        os.makedirs(folder, exist_ok=True)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        link = KeeperLink(os.dup(ours.fileno()))
        async with trio.open_nursery() as nursery:
            containers = Containers(
                nursery=nursery,
                host=Host(f"{paths.data}/run", "root", ids.boot_id()),
                folders=Folders(paths.containers, paths.tmp, shelf),
                images=images,
                image_index=f"{paths.images}/index.json",
                snapshots=snapshots,
                keeper=Keeper(link, lambda: link, lambda fd: None),
                events=Events(),
                then=Consequences(take_away, start_again, monitor.begin, monitor.follow),
                groups=Groups(),
            )
            await adopt(containers, start=False)
            return await work(containers)  # the nursery ends when all is cleaned
    raise AssertionError


def load(containers: Containers, data: bytes) -> None:
    rest = [data]

    def read(size: int) -> bytes:
        piece, rest[0] = rest[0][:size], rest[0][size:]
        return piece

    archive.load(containers.images, read, lambda line: None)


def request(name: str, **host: object) -> ContainerCreate:
    raw = {"Image": "base:1", "Cmd": ["x"], "HostConfig": {"NetworkMode": "none", **host}}
    return replace(ContainerCreate.from_json(raw), name=name)


async def prepare(containers: Containers) -> None:
    load(containers, BASE)
    container, _ = await create(containers, request("old"))
    Path(containers.snapshots.upper(container.id), "written").write_text("by the container")


async def look(containers: Containers) -> Shown:
    names = {container.name for container in containers.all()}
    return frozenset(names), frozenset(
        name for one in containers.images.list() for name in one.repo_tags
    )


async def findings(containers: Containers) -> list[str]:
    paths = Paths(os.path.dirname(containers.folders.root))

    def work() -> list[str]:
        found = check.check(containers, paths, lambda done, total: None, content=True)
        return [f"{one.kind} {one.subject}: {one.problem}" for one in found]

    return await trio.to_thread.run_sync(work)


async def do_create(containers: Containers) -> None:
    await create(containers, request("new", RestartPolicy={"Name": "always"}))


async def do_create_for_once(containers: Containers) -> None:
    await create(containers, request("new", AutoRemove=True))


async def do_rm(containers: Containers) -> None:
    await remove(containers, containers.get("old"), force=True)


async def do_rename(containers: Containers) -> None:
    await rename(containers, containers.get("old"), "newer")


async def do_tag(containers: Containers) -> None:
    containers.images.tag("base:1", "other:1")


async def do_rmi(containers: Containers) -> None:
    containers.images.remove("gone:1", False, lambda identifier: ())


async def do_load(containers: Containers) -> None:
    load(containers, MORE)


async def do_commit(containers: Containers) -> None:
    await commit(containers, containers.get("old"), Request(repo="made", tag="1"))


WORKS = (do_create, do_create_for_once, do_rm, do_rename, do_tag, do_rmi, do_load, do_commit)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuts") / "store"
    trio.run(opened, Paths(str(folder)), prepare)
    return folder


def quietly(folder: Path, work: Work[None]) -> None:
    logging.disable()
    trio.run(opened, Paths(str(folder)), work)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__[3:])
def test_each_write_may_be_the_last(template: Path, tmp_path: Path, work: Work[None]) -> None:
    """The short form tries every third one, the long form all."""
    folder = tmp_path / "store"
    before = trio.run(opened, Paths(str(template)), look)
    shown: list[Shown] = []
    at = 1
    while True:
        shutil.copytree(template, folder, symlinks=True)
        was_cut = cut(lambda: quietly(folder, work), at)
        paths = Paths(str(folder))
        shown.append(trio.run(opened, paths, look))
        assert trio.run(opened, paths, findings) == [], f"cut at write {at}"
        assert not os.path.exists(paths.damaged), f"cut at write {at}"
        shutil.rmtree(folder)
        if not was_cut:
            break
        at += 1 if LONG else 3
    after = shown[-1]
    assert after != before
    changes = [one == after for one in shown]
    assert set(shown) == {before, after}
    assert changes == sorted(changes), "once it is done it stays done"
    assert len(shown) > 2
