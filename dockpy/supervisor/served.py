"""What of a create request is served here: refusals by name, and warnings for what cannot be enforced.

Pure. InvalidParameter for what docker would refuse too, NotServed for what this build lacks; nothing
that was asked for is dropped without a word.
"""

from __future__ import annotations

import re

from dockpy.api.container import (
    Config,
    ContainerCreate,
    HostConfig,
    MountRequest,
    RestartPolicy,
)
from dockpy.errors import Conflict, InvalidParameter, NotServed
from dockpy.oci.capabilities import normalize
from dockpy.supervisor import health, logoptions, restart
from dockpy.supervisor.signals import signal_number

ULIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)

_SYSCTL_IPC = re.compile(
    r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\..+"
)


def check(request: ContainerCreate) -> list[str]:
    """Raises for what is wrong or not served; returns the warnings."""
    config, host = request.config, request.host_config
    _check_process(config, host)
    warnings = _check_mounts(config, host)
    _check_isolation(config, host)
    warnings += _check_network(request)
    logoptions.check(host)
    return warnings


def _check_process(config: Config, host: HostConfig) -> None:
    for entry in config.env:
        if not entry or entry.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {entry}")
    if config.stop_signal:
        signal_number(config.stop_signal)
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidParameter(f"invalid stop timeout {config.stop_timeout}: it must be -1 or more")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    if len(config.hostname) > 63 or re.search(r"[\s\0/]", config.hostname):
        raise InvalidParameter(f"invalid hostname: {config.hostname!r}")
    health.check(config.healthcheck)
    restart.check(host.restart_policy)
    if host.restart_policy.name not in ("", "no") and host.auto_remove:
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    check_ending(host, host.restart_policy)
    for limit in host.ulimits:
        if limit.name not in ULIMITS:
            raise InvalidParameter(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            raise InvalidParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    normalize(host.cap_add, "CapAdd")
    normalize(host.cap_drop, "CapDrop")


def check_ending(host: HostConfig, policy: RestartPolicy) -> None:
    """--lease and --timeout, which say when a container is over, against what starts it again."""
    if host.timeout < 0:
        raise InvalidParameter("invalid timeout (--timeout): it must not be negative")
    for name, given in (("--lease", host.lease), ("--timeout", host.timeout)):
        if given and policy.name not in ("", "no"):
            raise InvalidParameter(
                f"conflicting options: a restart policy would start again what {name} has ended"
            )


def check_lease(container_id: str, host: HostConfig, *, attached: bool) -> None:
    if host.lease and not attached:
        raise Conflict(
            f"container {container_id[:12]} was made with --lease, so its life is that of the client "
            "that starts it: start it with `start -a`"
        )


def _check_mounts(config: Config, host: HostConfig) -> list[str]:
    targets: set[str] = set()
    warnings: list[str] = []
    for text in host.binds:
        source, target, _ = split_bind(text)
        if not source.startswith("/"):
            raise NotServed(
                f"volumes (-v {text}) are not served yet; bind a folder of the host instead: -v /host/path:{target}"
            )
        _add_target(targets, target)
    for mount in host.mounts:
        _check_mount(mount)
        _add_target(targets, mount.target)
    for target in host.tmpfs:
        if not target.startswith("/"):
            raise InvalidParameter(f"invalid mount path: '{target}' mount path must be absolute")
        _add_target(targets, target)
    for target in config.volumes:
        if not target.startswith("/"):
            raise InvalidParameter(f"invalid volume specification: '{target}'")
        if _normal(target) not in targets:
            # As an image's VOLUME is taken for now: clients (compose, SDKs) send these as a matter of form.
            warnings.append(
                f"the volume {target} is part of the container's own file system in this build: "
                f"it goes with the container; bind a folder of the host to keep it: -v /host/path:{target}"
            )
    if host.volumes_from:
        raise NotServed("volumes of other containers (--volumes-from) are not served yet")
    if host.volume_driver not in ("", "local"):
        raise NotServed(f"volume drivers (--volume-driver {host.volume_driver}) are not served")
    if host.storage_opt:
        raise NotServed("storage options (--storage-opt) are not served: the store has no quotas")
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    return warnings


def _check_mount(mount: MountRequest) -> None:
    if not mount.target.startswith("/"):
        raise InvalidParameter(
            f"invalid mount config for type {mount.type!r}: invalid mount path: '{mount.target}' mount path must be absolute"
        )
    if mount.type == "bind":
        if not mount.source.startswith("/"):
            raise InvalidParameter(
                f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' mount path must be absolute"
            )
        if mount.tmpfs_options is not None or mount.volume_options:
            raise InvalidParameter(
                'invalid mount config for type "bind": field VolumeOptions or TmpfsOptions must not be specified'
            )
        propagation(mount.bind_options.propagation if mount.bind_options else "")
    elif mount.type == "tmpfs":
        if mount.source:
            raise InvalidParameter(
                'invalid mount config for type "tmpfs": field Source must not be specified'
            )
    elif mount.type in ("volume", "image", "cluster"):
        raise NotServed(
            f"mounts of type {mount.type} (--mount) are not served yet; use type=bind or type=tmpfs"
        )
    else:
        raise InvalidParameter(f"invalid mount config for type {mount.type!r}: mount type unknown")


def _add_target(targets: set[str], target: str) -> None:
    normal = _normal(target)
    if normal == "/":
        raise InvalidParameter("invalid specification: destination can't be '/'")
    if normal in targets:
        raise InvalidParameter(f"Duplicate mount point: {normal}")
    targets.add(normal)


def _normal(path: str) -> str:
    import posixpath

    return posixpath.normpath("/" + path.lstrip("/"))


PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
BIND_WORDS = PROPAGATIONS | {
    "ro",
    "rw",
    "z",
    "Z",
    "nocopy",
    "copy",
    "consistent",
    "cached",
    "delegated",
}


def propagation(word: str) -> str:
    if word and word not in PROPAGATIONS:
        raise InvalidParameter(f"invalid propagation mode: {word}")
    return word or "rprivate"


def split_bind(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Source, destination and options of one `-v`: the source is a path or a volume's name."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    options = tuple(word for word in parts[2].split(",") if word) if len(parts) == 3 else ()
    for word in options:
        if word not in BIND_WORDS:
            raise InvalidParameter(f"invalid mode: {parts[2]}")
    if not parts[1].startswith("/"):
        raise InvalidParameter(
            f"invalid volume specification: '{text}': invalid mount config for type \"bind\": invalid mount path: '{parts[1]}' mount path must be absolute"
        )
    return parts[0], parts[1], options


def _check_isolation(config: Config, host: HostConfig) -> None:
    for word, mode, allowed in (
        ("PID", host.pid_mode, ("", "host", "private")),
        ("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host")),
        ("UTS", host.uts_mode, ("", "host")),
        ("cgroup namespace", host.cgroupns_mode, ("", "private", "host")),
        ("user namespace", host.userns_mode, ("", "host")),
    ):
        joins = (
            mode.startswith("container:")
            and len(mode) > len("container:")
            and word in ("PID", "IPC")
        )
        if mode not in allowed and not joins:
            raise InvalidParameter(f"invalid {word} mode: {mode}")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if host.runtime not in ("", "dockpy", "runc", "io.containerd.runc.v2"):
        raise InvalidParameter(f"unknown or invalid runtime name: {host.runtime}")
    if host.isolation not in ("", "default"):
        raise InvalidParameter(f"invalid isolation '{host.isolation}': Linux has only 'default'")
    if host.device_requests:
        raise NotServed(
            "device requests (--gpus) are not served yet; hand devices over with --device"
        )
    if host.cgroup:
        raise InvalidParameter(f"invalid cgroup spec: {host.cgroup}")
    for option in host.security_opt:
        split_security_option(option)
    for name in host.sysctls:
        _check_sysctl(name, host)
    for device in host.devices:
        if not device.path_on_host.startswith("/"):
            raise InvalidParameter(
                f"invalid device specification: {device.path_on_host!r} is not an absolute path"
            )
        if re.search("[^rwm]", device.cgroup_permissions):
            raise InvalidParameter(f"invalid device mode: {device.cgroup_permissions}")
    for target in (*(host.masked_paths or ()), *(host.readonly_paths or ())):
        if not target.startswith("/"):
            raise InvalidParameter(
                f"invalid masked or read-only path {target!r}: it must be absolute"
            )


def split_security_option(option: str) -> tuple[str, str]:
    """Key and value; only what means something here, or what asks for less than there is."""
    if option == "no-new-privileges":
        return option, "true"
    key, separator, value = option.partition("=")
    if not separator:
        key, separator, value = option.partition(":")
    if not separator:
        raise InvalidParameter(f"invalid --security-opt 1: {option!r}")
    if key == "no-new-privileges":
        if value not in ("true", "false"):
            raise InvalidParameter(f"invalid --security-opt 2: {option!r}")
    elif key == "apparmor":
        if value != "unconfined":
            raise NotServed(
                f"AppArmor profiles (--security-opt {option}) are not served: loading one needs root"
            )
    elif key == "label":
        if value != "disable":
            raise NotServed(f"SELinux labels (--security-opt {option}) are not served")
    elif key == "systempaths":
        if value != "unconfined":
            raise InvalidParameter(f"invalid --security-opt: {option!r}")
    elif key != "seccomp":
        raise InvalidParameter(f"invalid --security-opt 2: {option!r}")
    return key, value


def _check_sysctl(name: str, host: HostConfig) -> None:
    name = name.replace("/", ".")
    if name.startswith("net."):
        if host.network_mode == "host":
            raise InvalidParameter(f"sysctl {name!r} not allowed in host network namespace")
        return
    if _SYSCTL_IPC.fullmatch(name):
        if host.ipc_mode == "host":
            raise InvalidParameter(f"sysctl {name!r} not allowed in host ipc namespace")
        return
    if name == "kernel.domainname" and host.uts_mode != "host":
        return
    raise InvalidParameter(f"sysctl {name!r} is not in a separate kernel namespace")


BRIDGES = ("", "default", "bridge")


def _check_network(request: ContainerCreate) -> list[str]:
    config, host = request.config, request.host_config
    mode = host.network_mode
    joins = mode.startswith("container:") and len(mode) > len("container:")
    if mode not in (*BRIDGES, "none", "host") and not joins:
        # Not a 404: clients take that for a missing image, and pull.
        raise InvalidParameter(f"network {mode} not found")
    for name, endpoint in request.endpoints.items():
        if name not in (*BRIDGES, "none", "host") and not joins:
            raise InvalidParameter(f"network {name} not found")
        if name in BRIDGES and endpoint.get("Aliases"):
            raise InvalidParameter(
                "network-scoped aliases are only supported for user-defined networks"
            )
        if endpoint.get("IPAMConfig") and any(_values(endpoint["IPAMConfig"])):
            raise InvalidParameter(
                "user specified IP address is supported on user defined networks only"
            )
    if host.port_bindings or host.publish_all_ports:
        if mode == "host":
            return ["Published ports are discarded when using host network mode"]
        if joins:
            raise InvalidParameter(
                "conflicting options: port publishing and the container type network mode"
            )
        raise NotServed("publishing ports (-p, -P) is not served yet; use --network host")
    if host.links or any(endpoint.get("Links") for endpoint in request.endpoints.values()):
        raise NotServed("links (--link) are not served")
    if config.mac_address or any(
        endpoint.get("MacAddress") for endpoint in request.endpoints.values()
    ):
        raise NotServed("MAC addresses (--mac-address) are not served yet")
    if joins:
        if config.hostname:
            raise InvalidParameter("conflicting options: hostname and the network mode")
        if host.dns or host.extra_hosts:
            raise InvalidParameter(
                "conflicting options: dns or custom host-to-IP mapping and the network mode"
            )
    for entry in host.extra_hosts:
        name, _, address = entry.partition(":")
        if not name or not address:
            raise InvalidParameter(f"bad format for add-host: {entry!r}")
        if address == "host-gateway":
            raise NotServed(
                "host-gateway (--add-host) is not served yet: a container has no way to the host; use --network host"
            )
    if mode in BRIDGES and not config.network_disabled:
        return [
            "network bridge is a private network with loopback only in this build: use --network host to reach other hosts"
        ]
    return []


def _values(raw: object) -> list[object]:
    return list(raw.values()) if isinstance(raw, dict) else [raw]


def same_namespace(mode: str) -> str | None:
    """The container named by `container:x`."""
    return mode[len("container:") :] if mode.startswith("container:") else None


def not_running(what: str, container_id: str) -> Conflict:
    return Conflict(f"cannot join {what} of a non running container: {container_id}")
