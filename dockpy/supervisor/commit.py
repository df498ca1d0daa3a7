"""`docker commit`: a container's changes and configuration as a new image."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import trio

from dockpy.api.container import Config
from dockpy.api.container import Healthcheck as AskedHealthcheck
from dockpy.errors import Conflict
from dockpy.images import changes as instructions
from dockpy.images.commit import Commit, commit_image
from dockpy.images.image import Image
from dockpy.oci.image import ContainerConfig, Healthcheck
from dockpy.oci.reference import parse_repository
from dockpy.storage.snapshot import Write
from dockpy.supervisor import pause as standstill
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers

TO_WAKE = 30.0  # seconds; who holds the container for longer, or its shim, is asked by `unpause`


@dataclass(frozen=True)
class Request:
    """`config` stands in for the container's own where it is given; `changes` are Dockerfile lines."""

    repo: str = ""
    tag: str = ""
    author: str = ""
    comment: str = ""
    pause: bool = True
    changes: Sequence[str] = ()
    config: Config | None = None


async def commit(containers: Containers, container: Container, request: Request) -> str:
    """The id of the new image."""
    record = container.record
    name = parse_repository(request.repo, request.tag) if request.repo else None
    own = image_config_of(record.config)
    asked = own if request.config is None else image_config_of(request.config)
    config = merged(instructions.apply(asked, request.changes), own)
    wanted = Commit(config, " ".join(record.config.cmd or ()), request.author, request.comment)
    names = [] if name is None else [name]

    def work() -> Image:
        parent = containers.images.resolve(record.image_id)

        def write_layer(write: Write) -> None:
            containers.snapshots.write_layer(record.id, write)

        return commit_image(containers.images, parent, write_layer, wanted, names)

    async with _still(containers, container, request.pause):
        image = await trio.to_thread.run_sync(work, limiter=containers.disk)
    familiar = "" if name is None else name.familiar()
    containers.events.publish("image", "create", str(image.id), {"name": str(image.id)})
    if familiar:
        containers.events.publish("image", "tag", str(image.id), {"name": familiar})
    containers.publish(
        container, "commit", comment=request.comment, imageID=str(image.id), imageRef=familiar
    )
    return str(image.id)


@asynccontextmanager
async def _still(containers: Containers, container: Container, pause: bool) -> AsyncIterator[None]:
    """The container's processes stand still while its files are read, unless they do already."""
    paused = False
    if pause and container.state.running and not container.state.paused:
        with suppress(Conflict):  # it has just ended, or somebody else was faster
            await standstill.pause(containers, container)
            paused = True
    try:
        yield
    finally:
        if paused:
            with trio.move_on_after(TO_WAKE, shield=True):
                async with container.lock:
                    await standstill.wake(containers, container)


def image_config_of(config: Config) -> ContainerConfig:
    """The part of a container's configuration that an image has."""
    check = config.healthcheck
    return ContainerConfig(
        user=config.user,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        working_dir=config.working_dir,
        exposed_ports=tuple(config.exposed_ports),
        volumes=tuple(config.volumes or ()),
        labels=config.labels,
        stop_signal=config.stop_signal,
        stop_timeout=config.stop_timeout,
        healthcheck=None if check is None else _healthcheck(check),
        shell=config.shell or None,
        on_build=config.on_build,
    )


def _healthcheck(check: AskedHealthcheck) -> Healthcheck:
    return Healthcheck(
        check.test or (),
        check.interval,
        check.timeout,
        check.start_period,
        check.start_interval,
        check.retries,
    )


def merged(asked: ContainerConfig, own: ContainerConfig) -> ContainerConfig:
    """docker's merge: what `asked` leaves open is the container's own."""
    entrypoint, cmd = asked.entrypoint, asked.cmd
    if not entrypoint:
        cmd = cmd or own.cmd
        entrypoint = own.entrypoint if entrypoint is None else entrypoint
    present = {entry.partition("=")[0] for entry in asked.env}
    labels: Mapping[str, str] = {**own.labels, **asked.labels}
    return replace(
        asked,
        user=asked.user or own.user,
        env=(*asked.env, *(e for e in own.env if e.partition("=")[0] not in present)),
        entrypoint=entrypoint,
        cmd=cmd,
        exposed_ports=tuple(dict.fromkeys((*asked.exposed_ports, *own.exposed_ports))),
        volumes=tuple(dict.fromkeys((*asked.volumes, *own.volumes))),
        labels=labels,
        working_dir=asked.working_dir or own.working_dir,
        stop_signal=asked.stop_signal or own.stop_signal,
        healthcheck=_checked(asked.healthcheck, own.healthcheck),
    )


def _checked(asked: Healthcheck | None, own: Healthcheck | None) -> Healthcheck | None:
    if asked is None or own is None:
        return asked or own
    return Healthcheck(
        asked.test or own.test,
        asked.interval or own.interval,
        asked.timeout or own.timeout,
        asked.start_period or own.start_period,
        asked.start_interval or own.start_interval,
        asked.retries or own.retries,
    )
