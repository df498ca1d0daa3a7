"""Pushes into real registries, ours and docker's: what skopeo and we ourselves pull from there has the same digests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from dockpy.errors import DockpyError
from dockpy.images.push import Pushes, Wanted
from dockpy.images.store import ImageStore
from dockpy.oci.reference import parse_reference
from dockpy.registry.session import Retries
from tests.e2e.registries import docker_registry, program
from tests.images.archives import image, oci_archive, sha256
from tests.images.conftest import Open
from tests.images.test_push import load, pull, push, told
from tests.registry.serving import Serving


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("pushed") / "store")
    yield serving
    serving.stop()
    assert serving.errors == ""


@pytest.fixture(scope="module")
def dockers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if program() is None:
        pytest.skip("this machine lacks a registry (Debian: docker-registry)")
    with docker_registry(tmp_path_factory.mktemp("dockers")) as host:
        yield host


@pytest.fixture(params=["ours", "dockers"])
def host(request: pytest.FixtureRequest) -> str:
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, str) else str(found.address)


def test_there_and_back(store: ImageStore, open_store: Open, host: str, tmp_path: Path) -> None:
    plain, packed = f"{host}/back/plain:v1", f"{host}/back/packed:v1"
    load(store, image("one", "two", names=[plain]))
    load(store, image("two", "three", names=[packed], compress="gzip"), oci_archive)
    own = store.resolve(packed).descriptor.digest
    for name in (plain, packed):
        push(store, name)
    assert store.resolve(packed).descriptor.digest == own
    words = told(push(store, plain))
    assert [word.partition(": ")[2] for word in words[3:5]] == ["Layer already exists"] * 2
    beside = f"{host}/beside/plain:v1"
    store.tag(plain, beside)
    words = told(push(store, beside))
    assert [word.partition(": ")[2] for word in words[3:5]] == ["Mounted from back/plain"] * 2
    other = open_store(tmp_path / "other")
    for name in (plain, packed, beside):
        pull(other, name)
        assert other.resolve(name).descriptor == store.resolve(name).descriptor
        assert other.resolve(name).id == store.resolve(name).id
    if skopeo := shutil.which("skopeo"):
        to = tmp_path / "skopeo"
        line = [skopeo, "copy", "-q", "--src-tls-verify=false", "--preserve-digests"]
        subprocess.run([*line, f"docker://{plain}", f"dir:{to}"], check=True, timeout=60)
        data = (to / "manifest.json").read_bytes()
        assert sha256(data) == store.resolve(plain).descriptor.digest
        for layer in json.loads(data)["layers"]:
            assert sha256((to / layer["digest"][7:]).read_bytes()) == layer["digest"]


def test_a_registry_that_is_killed_in_the_middle(store: ImageStore, ours: Serving) -> None:
    name = f"{ours.address}/killed/app:v1"
    load(store, image(os.urandom(4 << 20).hex(), "small", names=[name]))
    pushes = Pushes(store, retries=Retries(attempts=2, first=0.01))
    port = ours.port

    async def tell(line: object) -> None: ...

    async def kill() -> None:
        while not any(one.stat().st_size > 100_000 for one in ours.store.glob("uploads/*/data")):
            await trio.sleep(0.001)
        ours.kill()

    async def run(*meanwhile: Callable[[], Awaitable[None]]) -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for work in meanwhile:
                    nursery.start_soon(work)
                failure = None
                try:
                    await pushes.push(Wanted(parse_reference(name)), tell)
                except DockpyError as error:
                    failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    with pytest.raises(DockpyError) as raised:
        trio.run(run, kill)
    assert "/v2/killed/app/blobs/" in str(raised.value)
    ours.start(port)
    trio.run(run)
    assert ours.ask("GET", "/v2/killed/app/manifests/v1").status == 200
