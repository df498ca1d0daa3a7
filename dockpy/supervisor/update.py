"""`update`: what of a container may change after its making. Takes effect at once, and stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dockpy.api.container import HostConfig, RestartPolicy, decode
from dockpy.errors import InvalidParameter
from dockpy.supervisor import restart
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.served import check_ending, check_limits


def update(containers: Containers, container: Container, raw: Mapping[str, object]) -> list[str]:
    """The warnings. Raises before anything has changed."""
    record = container.record
    host = record.host_config
    warnings = check_limits(decode(HostConfig, raw, ""))
    policy = decode(RestartPolicy, raw.get("RestartPolicy"), "RestartPolicy")
    if policy.name:
        restart.check(policy)
        check_ending(host, policy)
        if host.auto_remove and policy.name != "no":
            raise InvalidParameter(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        host = replace(host, restart_policy=policy)
    if host != record.host_config:
        record = replace(record, host_config=host)
        containers.folders.write_record(record, durable=not host.auto_remove)
        container.record = record
        containers.save_state(container)
    containers.publish(container, "update")
    return warnings
