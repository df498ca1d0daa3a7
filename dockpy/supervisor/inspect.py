"""Containers as the Engine API shows them: inspect, list, status words. Values to JSON, no effects."""

from __future__ import annotations

import calendar
import time

from dockpy.api.times import ZERO, ago
from dockpy.supervisor import served
from dockpy.supervisor.container import Container, Exec
from dockpy.supervisor.health import STARTING, Health
from dockpy.supervisor.records import Record, State


def inspect(
    container: Container, bundle: str, sizes: tuple[int, int] | None = None
) -> dict[str, object]:
    record, state = container.record, container.state
    argv = record.argv
    result: dict[str, object] = {
        "Id": record.id,
        "Created": record.created,
        "Path": argv[0],
        "Args": list(argv[1:]),
        "State": _state(state, container.health),
        "Image": record.image_id,
        "ResolvConfPath": f"{bundle}/resolv.conf",
        "HostnamePath": f"{bundle}/hostname",
        "HostsPath": f"{bundle}/hosts",
        "LogPath": f"{bundle}/{record.id}-json.log"
        if record.host_config.log_config.type == "json-file"
        else "",
        "Name": f"/{record.name}",
        "RestartCount": state.restarts,
        "Driver": record.snapshotter,
        "Platform": record.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": [one.id for one in container.execs.values() if one.exit_code is None] or None,
        "HostConfig": record.host_config.to_json(),
        "GraphDriver": {"Name": record.snapshotter, "Data": {}},
        "Mounts": mounts(record),
        "Config": {**record.config.to_json()},
        "NetworkSettings": _network_settings(record),
    }
    if record.manifest is not None:
        result["ImageManifestDescriptor"] = dict(record.manifest)
    if sizes is not None:
        result["SizeRw"], result["SizeRootFs"] = sizes
    return result


def _state(state: State, health: Health | None) -> dict[str, object]:
    result: dict[str, object] = {
        "Status": state.word,
        "Running": state.live,
        "Paused": state.paused,
        "Restarting": state.restarting,
        "OOMKilled": state.oom,
        "Dead": False,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started,
        "FinishedAt": state.finished,
    }
    if health is not None:
        result["Health"] = health.to_json()
    return result


def mounts(record: Record) -> list[dict[str, object]]:
    """Mount points, as docker lists them (binds and tmpfs mounts made by --mount)."""
    result: list[dict[str, object]] = []
    for text in record.host_config.binds:
        source, target, words = served.split_bind(text)
        spread = next((word for word in words if word in served.PROPAGATIONS), "rprivate")
        mode = ",".join(words)
        result.append(_mount("bind", source, target, mode, "ro" not in words, spread))
    for mount in record.host_config.mounts:
        spread = served.propagation(mount.bind_options.propagation if mount.bind_options else "")
        result.append(
            _mount(
                mount.type,
                mount.source,
                mount.target,
                "",
                not mount.read_only,
                spread if mount.type == "bind" else "",
            )
        )
    return result


def _mount(
    kind: str, source: str, target: str, mode: str, writable: bool, spread: str
) -> dict[str, object]:
    return {
        "Type": kind,
        "Source": source,
        "Destination": target,
        "Mode": mode,
        "RW": writable,
        "Propagation": spread,
    }


def network_name(record: Record) -> str:
    return record.host_config.network_mode


def _endpoint(aliases: object = None) -> dict[str, object]:
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": aliases,
        "MacAddress": "",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _networks(record: Record) -> dict[str, object]:
    name = network_name(record)
    return {} if name.startswith("container:") else {name: _endpoint()}


def _network_settings(record: Record) -> dict[str, object]:
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": dict.fromkeys(record.config.exposed_ports),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": _networks(record),
    }


def seconds_of(text: str) -> float:
    """Unix time of a time that we printed; 0 for docker's zero time."""
    if text == ZERO or len(text) < 19:
        return 0.0
    fraction = text[19:].rstrip("Z").lstrip(".") or "0"
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction}")


def status_text(state: State, health: Health | None = None) -> str:
    """docker's words in `ps`."""
    if state.running:
        up = f"Up {ago(time.time() - seconds_of(state.started))}"
        if state.paused:
            return f"{up} (Paused)"
        if health is None:
            return up
        return (
            f"{up} (health: starting)" if health.status == STARTING else f"{up} ({health.status})"
        )
    if state.status == "created":
        return "Created"
    if state.restarting:
        return f"Restarting ({state.exit_code}) {ago(time.time() - seconds_of(state.finished))} ago"
    return f"Exited ({state.exit_code}) {ago(time.time() - seconds_of(state.finished))} ago"


def summary(container: Container, sizes: tuple[int, int] | None = None) -> dict[str, object]:
    record, state = container.record, container.state
    result: dict[str, object] = {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.config.image,
        "ImageID": record.image_id,
        "Command": command_text(record.argv),
        "Created": int(seconds_of(record.created)),
        "Ports": [_port(port) for port in reachable_ports(record, state)],
        "Labels": dict(record.config.labels),
        "State": state.word,
        "Status": status_text(state, container.health),
        "HostConfig": {"NetworkMode": network_name(record)},
        "NetworkSettings": {"Networks": _networks(record)},
        "Mounts": mounts(record),
    }
    if record.host_config.annotations:
        result["HostConfig"] = {
            "NetworkMode": network_name(record),
            "Annotations": dict(record.host_config.annotations),
        }
    if record.manifest is not None:
        result["ImageManifestDescriptor"] = dict(record.manifest)
    if sizes is not None:
        result["SizeRw"], result["SizeRootFs"] = sizes
    return result


def command_text(argv: tuple[str, ...]) -> str:
    return " ".join((argv[0], *(f"'{arg}'" if " " in arg else arg for arg in argv[1:])))


def reachable_ports(record: Record, state: State) -> tuple[str, ...]:
    """What a running container exposes on a network of its own: docker counts no others."""
    mode = network_name(record)
    if not state.running or mode in ("none", "host") or mode.startswith("container:"):
        return ()
    return tuple(record.config.exposed_ports)


def _port(text: str) -> dict[str, object]:
    number, _, protocol = text.partition("/")
    return {"PrivatePort": int(number) if number.isdigit() else 0, "Type": protocol or "tcp"}


def exec_inspect(exec_: Exec) -> dict[str, object]:
    request = exec_.request
    cmd = request.cmd or ("",)
    return {
        "ID": exec_.id,
        "Running": exec_.running,
        "ExitCode": exec_.exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": cmd[0],
            "arguments": list(cmd[1:]),
            "privileged": request.privileged,
            **({"user": request.user} if request.user else {}),
        },
        "OpenStdin": request.attach_stdin,
        "OpenStderr": request.attach_stderr,
        "OpenStdout": request.attach_stdout,
        "CanRemove": False,
        "ContainerID": exec_.container_id,
        "DetachKeys": request.detach_keys,
        "Pid": exec_.pid,
    }
