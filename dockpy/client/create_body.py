"""From the flags of `run` and `create` to the body of POST /containers/create. Pure, but for files
that flags name.

Fields that have Go's zero value are left out: the daemon reads them the same, and most bodies
shrink to a line. Errors are ValueError or InvalidParameter with docker's text.
"""

from __future__ import annotations

from dockpy.client import key_values
from dockpy.errors import InvalidParameter, NotServed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockpy.client.flags import Options

    Body = dict[str, object]

_NETWORK = ("network", "network-alias", "link", "ip", "ip6", "link-local-ip", "mac-address")
_BLOCK_IO = (
    "device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops", "blkio-weight-device",
)  # fmt: skip
_HEALTH = (
    "health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period",
    "health-timeout", "no-healthcheck",
)  # fmt: skip

# flag -> why; only for the user's own daemon: another one that -H names may well serve them
NOT_SERVED = {
    "cpu-count": "it is for Windows",
    "cpu-percent": "it is for Windows",
    "device-cgroup-rule": "rootless containers have no device cgroup; use --device",
    "gpus": "name the devices with --device",
    "io-maxbandwidth": "it is for Windows",
    "io-maxiops": "it is for Windows",
    "ip": "container networks are not there yet",
    "ip6": "container networks are not there yet",
    "isolation": "it is for Windows",
    "kernel-memory": "the kernel no longer has it",
    "link": "container networks are not there yet",
    "link-local-ip": "container networks are not there yet",
    "mac-address": "container networks are not there yet",
    "network-alias": "container networks are not there yet",
    "publish": "container networks are not there yet; --network host shares the ports of this host",
    "publish-all": "container networks are not there yet; --network host shares the ports of this host",
    "runtime": "there is one runtime, dockpy's own",
    "storage-opt": "the storage driver has no options yet",
    "use-api-socket": "mount the socket with -v",
    "volume-driver": "volumes are not there yet",
    "volumes-from": "volumes are not there yet; use -v with a path",
}
_HARMLESS = {"isolation": ("default",), "publish-all": ("false",), "runtime": ("dockpy",)}


def refuse_unserved(options: Options) -> None:
    for name, reason in NOT_SERVED.items():
        if options.given(name) and options.text(name) not in _HARMLESS.get(name, ()):
            raise NotServed(f"--{name} is not served by this build: {reason}")


def check_stream(value: str) -> None:
    if value.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")


def check_ulimit(value: str) -> None:
    from dockpy.client import create_limits

    create_limits.ulimit(value)


def check_sysctl(value: str) -> None:
    name = value.partition("=")[0]
    if "=" not in value or not (name.startswith(("net.", "fs.mqueue.")) or name in _KERNEL_SYSCTLS):
        raise ValueError(f"sysctl '{value}' is not allowed")


_KERNEL_SYSCTLS = frozenset(
    [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ]
)


def check_mount(value: str) -> None:
    from dockpy.client import create_mounts

    create_mounts.mount(value)


def check_host(value: str) -> None:
    from dockpy.client import create_network

    create_network.extra_host(value)


def check_network(value: str) -> None:
    from dockpy.client import create_network

    create_network.network(value)


def check_dns(value: str) -> None:
    from dockpy.client import create_network

    if not create_network.is_address(value):
        raise ValueError(f"IP address is not correctly formatted: {value}")


def check_gpus(value: str) -> None:
    if value != "all" and "=" not in value and not value.isdigit():
        raise ValueError(
            f'invalid count ({value}): value must be either "all" or an integer: invalid syntax'
        )


CHECKS = {
    "add-host": check_host,
    "attach": check_stream,
    "dns": check_dns,
    "env": key_values.check_env,
    "gpus": check_gpus,
    "label": key_values.check_label,
    "mount": check_mount,
    "network": check_network,
    "sysctl": check_sysctl,
    "ulimit": check_ulimit,
}


def capabilities(add: list[str], drop: list[str]) -> tuple[list[str], list[str]]:
    """Spelled alike, each once, in order; what they mean together is the daemon's to say."""
    return sorted(set(map(_capability, add))), sorted(set(map(_capability, drop)))


def _capability(word: str) -> str:
    name = word.strip().upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def restart_policy(text: str) -> dict[str, object]:
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    if count and not count.lstrip("-").isdigit():
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or "0")}


def _networks(options: Options) -> tuple[str, Body]:
    """(NetworkMode, EndpointsConfig)."""
    if not any(options.given(flag) for flag in _NETWORK):
        return "default", {}
    from dockpy.client import create_network

    return create_network.networks(options)


def container_create(
    options: Options,
    image: str,
    command: list[str],
    environ: Mapping[str, str],
    *,
    proxies: Mapping[str, str] | None = None,
    console_size: tuple[int, int] | None = None,
) -> Body:
    """The whole body; InvalidParameter with docker's sentence when the flags contradict each other."""
    try:
        body = _container_config(options, image, command, environ, proxies or {})
        body["HostConfig"] = _host_config(options, body, console_size)
        endpoints = _networks(options)[1]
        if endpoints:
            body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
        return body
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


def _container_config(
    options: Options,
    image: str,
    command: list[str],
    environ: Mapping[str, str],
    proxies: Mapping[str, str],
) -> Body:
    streams = {value.lower() for value in options.many("attach")}
    interactive = options.on("interactive")
    if options.on("detach"):
        if streams:
            raise InvalidParameter("conflicting options: cannot specify both --attach and --detach")
    elif not streams:
        streams = {"stdout", "stderr"}
    if interactive and not options.on("detach"):
        streams.add("stdin")
    env = key_values.environment(options.many("env-file"), options.many("env"), environ)
    named = {word.partition("=")[0] for word in env}
    env += [f"{name}={value}" for name, value in proxies.items() if name not in named]
    body: Body = {"Image": image}
    if command:
        body["Cmd"] = command
    if env:
        body["Env"] = env
    if options.given("entrypoint"):
        body["Entrypoint"] = [options.text("entrypoint")]
    for flag, field in (
        ("hostname", "Hostname"),
        ("domainname", "Domainname"),
        ("user", "User"),
        ("workdir", "WorkingDir"),
        ("stop-signal", "StopSignal"),
    ):
        if options.text(flag):
            body[field] = options.text(flag)
    for stream in streams:
        body[f"Attach{stream.capitalize()}"] = True
    if options.on("tty"):
        body["Tty"] = True
    if interactive:
        body["OpenStdin"] = True
        if "stdin" in streams:
            body["StdinOnce"] = True
    labels = key_values.labels(options.many("label-file"), options.many("label"))
    if labels:
        body["Labels"] = labels
    if options.given("stop-timeout"):
        body["StopTimeout"] = options.number("stop-timeout")
    if any(map(options.given, _HEALTH)):
        from dockpy.client.create_health import healthcheck

        health = healthcheck(options)
        if health is not None:
            body["Healthcheck"] = health
    return body


_TEXTS = (
    ("cidfile", "ContainerIDFile"),
    ("cgroup-parent", "CgroupParent"),
    ("cgroupns", "CgroupnsMode"),
    ("cpuset-cpus", "CpusetCpus"),
    ("cpuset-mems", "CpusetMems"),
    ("ipc", "IpcMode"),
    ("isolation", "Isolation"),
    ("pid", "PidMode"),
    ("runtime", "Runtime"),
    ("userns", "UsernsMode"),
    ("uts", "UTSMode"),
    ("volume-driver", "VolumeDriver"),
)
_NUMBERS = (
    ("blkio-weight", "BlkioWeight"),
    ("cpu-count", "CpuCount"),
    ("cpu-percent", "CpuPercent"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("cpu-shares", "CpuShares"),
    ("io-maxiops", "IOMaximumIOps"),
    ("oom-score-adj", "OomScoreAdj"),
    ("pids-limit", "PidsLimit"),
)
_BYTES = (
    ("io-maxbandwidth", "IOMaximumBandwidth"),
    ("kernel-memory", "KernelMemory"),
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
    ("shm-size", "ShmSize"),
)
_SWITCHES = (
    ("oom-kill-disable", "OomKillDisable"),
    ("privileged", "Privileged"),
    ("publish-all", "PublishAllPorts"),
    ("read-only", "ReadonlyRootfs"),
    ("rm", "AutoRemove"),
)
_LISTS = (
    ("device-cgroup-rule", "DeviceCgroupRules"),
    ("dns-option", "DnsOptions"),
    ("dns-search", "DnsSearch"),
    ("group-add", "GroupAdd"),
    ("link", "Links"),
    ("volumes-from", "VolumesFrom"),
)
_MAPS = (("sysctl", "Sysctls"), ("annotation", "Annotations"), ("storage-opt", "StorageOpt"))


def _host_config(options: Options, body: Body, console_size: tuple[int, int] | None) -> Body:
    _check_modes(options)
    host: Body = {"NetworkMode": _networks(options)[0]}
    _by_table(options, host)
    swappiness = options.number("memory-swappiness", -1)
    if not -1 <= swappiness <= 100:
        raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    if swappiness >= 0:
        host["MemorySwappiness"] = swappiness
    if options.given("init"):
        host["Init"] = options.on("init")
    _mounts(options, body, host)
    _security(options, host)
    if options.many("ulimit"):
        from dockpy.client.create_limits import ulimits

        host["Ulimits"] = ulimits(options.many("ulimit"))
    for flag, field in _MAPS:
        if options.many(flag):
            host[field] = key_values.mapping(options.many(flag))
    if options.given("log-driver") or options.given("log-opt"):
        driver = options.text("log-driver")
        if driver == "none" and options.many("log-opt"):
            raise ValueError("invalid logging opts for driver none")
        host["LogConfig"] = {"Type": driver, "Config": key_values.mapping(options.many("log-opt"))}
    restart = restart_policy(options.text("restart", "no"))
    if options.on("rm") and restart["Name"] not in ("", "no"):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    if restart["Name"] != "no":
        host["RestartPolicy"] = restart
    if options.on("lease") or options.given("timeout"):
        _ending(options, host)
    if options.many("dns"):
        host["Dns"] = options.many("dns")
    if options.many("add-host"):
        from dockpy.client.create_network import extra_host

        host["ExtraHosts"] = [extra_host(word) for word in options.many("add-host")]
    _ports(options, body, host)
    if any(map(options.given, _BLOCK_IO)):
        from dockpy.client.create_limits import block_io

        block_io(options, host)
    if console_size is not None:
        host["ConsoleSize"] = list(console_size)
    return host


def _by_table(options: Options, host: Body) -> None:
    for flag, field in _TEXTS:
        if options.text(flag):
            host[field] = options.text(flag)
    for flag, field in _NUMBERS:
        if options.given(flag):
            host[field] = options.number(flag)
    _sizes(options, host)
    for flag, field in _SWITCHES:
        if options.on(flag):
            host[field] = True
    for flag, field in _LISTS:
        if options.many(flag):
            host[field] = options.many(flag)


def _security(options: Options, host: Body) -> None:
    add, drop = capabilities(options.many("cap-add"), options.many("cap-drop"))
    if add:
        host["CapAdd"] = add
    if drop:
        host["CapDrop"] = drop
    if options.many("security-opt"):
        from dockpy.client.create_security import security_options

        security, unconfined = security_options(options.many("security-opt"))
        if security:
            host["SecurityOpt"] = security
        if unconfined:
            host["MaskedPaths"], host["ReadonlyPaths"] = [], []


def _ending(options: Options, host: Body) -> None:
    """What docker does not have: when a container is over though its process is not."""
    if options.on("lease"):
        if options.on("detach"):
            raise ValueError(
                "conflicting options: --lease ends the container with its client, and with --detach "
                "that ends at once"
            )
        host["DockpyLease"] = True
    if options.given("timeout"):
        from dockpy.client import units

        timeout = units.duration(options.text("timeout"))
        if timeout < 0:
            raise ValueError("--timeout cannot be negative")
        host["DockpyTimeout"] = timeout


def _sizes(options: Options, host: Body) -> None:
    given = [(flag, field) for flag, field in _BYTES if options.given(flag)]
    if not given and not options.given("cpus"):
        return
    from dockpy.client import units

    for flag, field in given:
        host[field] = units.ram_bytes(options.text(flag))
    if options.given("cpus"):
        host["NanoCpus"] = units.nano_cpus(options.text("cpus"))


def _check_modes(options: Options) -> None:
    for flag, name, allowed in (
        ("pid", "PID", ("", "host")),
        ("uts", "UTS", ("", "host")),
        ("userns", "USER", ("", "host")),
        ("cgroupns", "CGROUP", ("", "host", "private")),
    ):
        value = options.text(flag)
        if value in allowed or (flag == "pid" and value.startswith("container:") and value[10:]):
            continue
        raise ValueError(f"--{flag}: invalid {name} mode")


def _mounts(options: Options, body: Body, host: Body) -> None:
    if not any(map(options.given, ("volume", "mount", "tmpfs", "device", "gpus"))):
        return
    from dockpy.client import create_mounts

    if options.many("volume"):
        binds, anonymous = create_mounts.volumes(options.many("volume"))
        if binds:
            host["Binds"] = binds
        if anonymous:
            body["Volumes"] = anonymous
    if options.many("mount"):
        host["Mounts"] = [create_mounts.mount(word) for word in options.many("mount")]
    if options.many("tmpfs"):
        host["Tmpfs"] = create_mounts.tmpfs(options.many("tmpfs"))
    requests: list[object] = []
    if options.many("device"):
        devices, cdi = create_mounts.devices(options.many("device"))
        if devices:
            host["Devices"] = devices
        if cdi:
            requests.append({"Driver": "cdi", "DeviceIDs": cdi})
    for word in options.many("gpus"):
        count = -1 if word == "all" else int(word) if word.isdigit() else 0
        requests.append({"Count": count, "Capabilities": [["gpu"]]})
    if requests:
        host["DeviceRequests"] = requests


def _ports(options: Options, body: Body, host: Body) -> None:
    if not (options.many("publish") or options.many("expose")):
        return
    from dockpy.client import create_ports

    exposed, bindings = create_ports.published(options.many("publish"))
    exposed.update(create_ports.exposed(options.many("expose")))
    body["ExposedPorts"] = exposed
    if bindings:
        host["PortBindings"] = bindings
