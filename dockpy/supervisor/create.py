"""From a request to a container that can be started: image and defaults merged in, snapshot, record.

`resolved` is pure. All else of create is short (a few folders and, unless the container is to be
removed at its exit anyway, one synced write), so it happens without a thread; only unpacking hops.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import replace

from dockpy import ids
from dockpy.api.container import (
    Config,
    ContainerCreate,
    Healthcheck,
    HostConfig,
    LogConfig,
)
from dockpy.api.times import now
from dockpy.errors import InvalidParameter, NotFound
from dockpy.images import quota
from dockpy.images.image import Image
from dockpy.oci.image import ContainerConfig
from dockpy.oci.platform import host_platform, parse_platform
from dockpy.supervisor import limits, names, served
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.records import Record, State

SHM_SIZE = 64 << 20

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


async def create(containers: Containers, request: ContainerCreate) -> tuple[Container, list[str]]:
    """The new container and the warnings for its creator."""
    warnings = served.check(request)
    settled, discarded = limits.settle(request.host_config, containers.can)
    warnings += discarded
    if request.name:
        containers.names.check(_bare(request.name))
    image = await containers.resolve_image(request.config.image)
    _check_platform(request, image)
    host_config = host_defaults(settled)
    _check_peers(containers, host_config)
    container_id = ids.new_id()
    config = merged(request.config, image.config.config)
    config = replace(config, hostname=_hostname(config, host_config, container_id))
    if not (*(config.entrypoint or ()), *(config.cmd or ())):
        raise InvalidParameter("no command specified")
    quota.touch(containers.images, image)  # before the wait: the limit spares what is in use now
    chain = await containers.unpacked(image)

    # From here on nothing awaits: a name that is free now stays so.
    name = (
        _bare(request.name)
        if request.name
        else names.pick(containers.names, random.Random(os.urandom(8)))
    )
    containers.names.add(container_id, name)
    record = Record(
        id=container_id,
        name=name,
        created=now(),
        image_id=str(image.id),
        config=config,
        host_config=host_config,
        endpoints=request.endpoints,
        snapshotter=containers.snapshots.name,
        manifest=image.descriptor.to_json(),
    )
    try:
        containers.snapshots.prepare(container_id, chain)
        try:
            _make_bind_sources(host_config)
            # A container that goes at its exit must not outlive a power cut, so nothing of it is synced.
            containers.folders.create(record, durable=not host_config.auto_remove)
        except BaseException:
            containers.snapshots.remove(container_id)
            raise
    except BaseException:
        containers.names.remove(container_id, name)
        raise
    container = Container(record, State())
    containers.add(container)
    containers.publish(container, "create")
    return container, warnings


def _bare(name: str) -> str:
    return name[1:] if name.startswith("/") else name


def _check_platform(request: ContainerCreate, image: Image) -> None:
    wanted = parse_platform(request.platform) if request.platform else host_platform()
    if image.config.platform.rank_for(wanted) is None and request.platform:
        raise NotFound(
            f"image with reference {request.config.image} was found but its platform ({image.config.platform}) "
            f"does not match the specified platform ({wanted})"
        )


def _check_peers(containers: Containers, host: HostConfig) -> None:
    for mode in (host.network_mode, host.pid_mode, host.ipc_mode):
        peer = served.same_namespace(mode)
        if peer is not None:
            try:
                containers.get(peer)
            except NotFound as error:
                # Not a 404: clients take that for a missing image, and pull.
                raise InvalidParameter(str(error)) from None


def _make_bind_sources(host: HostConfig) -> None:
    """As docker: the missing source of a `-v` is made, that of a `--mount` is an error at once."""
    for text in host.binds:
        source, _, _ = served.split_bind(text)
        if not os.path.lexists(source):
            try:
                os.makedirs(source, 0o755, exist_ok=True)
            except OSError as error:
                raise InvalidParameter(
                    f"error while creating mount source path '{source}': mkdir {error.filename}: {error.strerror}"
                ) from None
    for mount in host.mounts:
        if mount.type != "bind" or os.path.lexists(mount.source):
            continue
        if mount.bind_options is not None and mount.bind_options.create_mountpoint:
            os.makedirs(mount.source, 0o755, exist_ok=True)
            continue
        raise InvalidParameter(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        )


def _hostname(config: Config, host: HostConfig, container_id: str) -> str:
    if host.uts_mode == "host" or (host.network_mode == "host" and not config.hostname):
        return os.uname().nodename
    return config.hostname or container_id[:12]


def host_defaults(host: HostConfig) -> HostConfig:
    """What docker fills in, so that inspect tells what holds."""
    privileged_paths: tuple[str, ...] | None = () if host.privileged else None
    return replace(
        host,
        network_mode="bridge" if host.network_mode in served.BRIDGES else host.network_mode,
        shm_size=host.shm_size or SHM_SIZE,
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or "private",
        runtime=host.runtime or "dockpy",
        restart_policy=replace(host.restart_policy, name=host.restart_policy.name or "no"),
        log_config=LogConfig(host.log_config.type or "local", host.log_config.config),
        masked_paths=_first(privileged_paths, host.masked_paths, MASKED_PATHS),
        readonly_paths=_first(privileged_paths, host.readonly_paths, READONLY_PATHS),
    )


def _first(*candidates: tuple[str, ...] | None) -> tuple[str, ...]:
    return next(candidate for candidate in candidates if candidate is not None)


def merged(config: Config, image: ContainerConfig) -> Config:
    """The request's config with what the image says where the request is silent (docker's merge)."""
    entrypoint, cmd = config.entrypoint, config.cmd
    if not entrypoint:
        if not cmd:
            cmd = image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == ("",):
        entrypoint = None
    present = {entry.partition("=")[0] for entry in config.env}
    env = (*config.env, *(entry for entry in image.env if entry.partition("=")[0] not in present))
    healthcheck = config.healthcheck
    if image.healthcheck is not None:
        own, check = healthcheck or Healthcheck(), image.healthcheck
        healthcheck = Healthcheck(
            own.test or check.test,
            own.interval or check.interval,
            own.timeout or check.timeout,
            own.start_period or check.start_period,
            own.start_interval or check.start_interval,
            own.retries or check.retries,
        )
    empty: Mapping[str, object] = {}
    return replace(
        config,
        entrypoint=entrypoint,
        cmd=cmd,
        env=env,
        user=config.user or image.user,
        working_dir=config.working_dir or image.working_dir,
        labels={**image.labels, **config.labels},
        exposed_ports={**dict.fromkeys(image.exposed_ports, empty), **config.exposed_ports},
        volumes={**dict.fromkeys(image.volumes, empty), **config.volumes},
        stop_signal=config.stop_signal or image.stop_signal,
        stop_timeout=config.stop_timeout if config.stop_timeout is not None else image.stop_timeout,
        shell=config.shell or image.shell or (),
        healthcheck=healthcheck,
    )
