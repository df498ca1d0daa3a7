"""`update`: what of a container may change after its making. Takes effect at once, and stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dockpy.api.container import HostConfig, RestartPolicy, decode
from dockpy.errors import Conflict, DockpyError, InvalidParameter
from dockpy.supervisor import limits, restart
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.pause import gather
from dockpy.supervisor.served import check_ending


async def update(
    containers: Containers, container: Container, raw: Mapping[str, object]
) -> list[str]:
    """The warnings. Raises before anything has changed."""
    policy = decode(RestartPolicy, raw.get("RestartPolicy"), "RestartPolicy")
    asked, warnings = limits.settle(decode(HostConfig, raw, ""), containers.can, update=True)
    async with container.lock:
        if container.removing:
            raise Conflict(
                f"Cannot update container {container.id}: Container is marked for removal and cannot be "
                '"update".'
            )
        record = container.record
        host = record.host_config
        if policy.name:
            restart.check(policy)
            check_ending(host, policy)
            if host.auto_remove and policy.name != "no":
                raise InvalidParameter(
                    f"Cannot update container {container.id}: Restart policy cannot be updated because "
                    "AutoRemove is enabled for the container"
                )
            host = replace(host, restart_policy=policy)
        host = limits.merged(host, asked)
        await _apply(containers, container, asked, host)
        if host != record.host_config:
            record = replace(record, host_config=host)
            containers.folders.write_record(record, durable=not host.auto_remove)
            container.record = record
            containers.save_state(container)
    containers.publish(container, "update")
    return warnings


async def _apply(
    containers: Containers, container: Container, asked: HostConfig, host: HostConfig
) -> None:
    """What is asked for, on what runs; `host` has it all."""
    if asked.memory or asked.memory_swap:
        asked = replace(asked, memory=host.memory, memory_swap=host.memory_swap)
    if asked.cpu_quota or asked.cpu_period:
        asked = replace(asked, cpu_quota=host.cpu_quota, cpu_period=host.cpu_period)
    writes = limits.writes(asked, containers.can)
    if not writes or not container.state.running:
        return
    try:
        await gather(containers, container)
        containers.groups.limit(container.state.group, writes)
    except (DockpyError, OSError) as error:
        raise DockpyError(f"Cannot update container {container.id}: {error}") from None
