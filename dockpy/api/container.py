"""What `POST /containers/create` and `POST /containers/{id}/exec` ask for, and the answers' parts.

Every core field of API 1.40 to 1.50 parses; what this build does not serve is the supervisor's to
refuse, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dockpy.api.fields import (
    decode,
    encode,
    flag,
    integer,
    integers,
    mapping,
    nested,
    nested_list,
    optional_flag,
    optional_integer,
    optional_nested,
    optional_texts,
    parse_object,
    raw_object,
    raw_objects,
    text,
    texts,
)

__all__ = ["Config", "ContainerCreate", "ExecCreate", "HostConfig", "decode", "encode"]


@dataclass(frozen=True)
class Healthcheck:
    test: tuple[str, ...] | None = optional_texts("Test")
    interval: int = integer("Interval")
    timeout: int = integer("Timeout")
    start_period: int = integer("StartPeriod")
    start_interval: int = integer("StartInterval")
    retries: int = integer("Retries")


@dataclass(frozen=True)
class Config:
    """What travels with the image: the process and its surroundings."""

    hostname: str = text("Hostname")
    domainname: str = text("Domainname")
    user: str = text("User")
    attach_stdin: bool = flag("AttachStdin")
    attach_stdout: bool = flag("AttachStdout")
    attach_stderr: bool = flag("AttachStderr")
    exposed_ports: Mapping[str, object] = raw_object("ExposedPorts")
    tty: bool = flag("Tty")
    open_stdin: bool = flag("OpenStdin")
    stdin_once: bool = flag("StdinOnce")
    env: tuple[str, ...] = texts("Env", null=False)
    cmd: tuple[str, ...] | None = optional_texts("Cmd")
    healthcheck: Healthcheck | None = optional_nested("Healthcheck", Healthcheck)  # noqa: RUF009 (makes a field, not a value)
    image: str = text("Image")
    volumes: Mapping[str, object] = raw_object("Volumes", null=True)
    working_dir: str = text("WorkingDir")
    entrypoint: tuple[str, ...] | None = optional_texts("Entrypoint")
    network_disabled: bool = flag("NetworkDisabled")
    mac_address: str = text("MacAddress")
    on_build: tuple[str, ...] = texts("OnBuild")
    labels: Mapping[str, str] = mapping("Labels")
    stop_signal: str = text("StopSignal")
    stop_timeout: int | None = optional_integer("StopTimeout")
    shell: tuple[str, ...] = texts("Shell")

    def to_json(self) -> dict[str, object]:
        """As docker prints it: fields that nobody set are left out where docker leaves them out."""
        result = encode(self)
        for name in (
            "ExposedPorts",
            "Healthcheck",
            "NetworkDisabled",
            "MacAddress",
            "StopSignal",
            "StopTimeout",
            "Shell",
        ):
            if not result[name] and not (name == "StopTimeout" and result[name] == 0):
                del result[name]
        return result


@dataclass(frozen=True)
class LogConfig:
    type: str = text("Type")
    config: Mapping[str, str] = mapping("Config")


@dataclass(frozen=True)
class RestartPolicy:
    name: str = text("Name")
    maximum_retry_count: int = integer("MaximumRetryCount")


@dataclass(frozen=True)
class Ulimit:
    name: str = text("Name")
    hard: int = integer("Hard")
    soft: int = integer("Soft")


@dataclass(frozen=True)
class DeviceMapping:
    path_on_host: str = text("PathOnHost")
    path_in_container: str = text("PathInContainer")
    cgroup_permissions: str = text("CgroupPermissions")


@dataclass(frozen=True)
class BindOptions:
    propagation: str = text("Propagation")
    non_recursive: bool = flag("NonRecursive")
    create_mountpoint: bool = flag("CreateMountpoint")
    read_only_non_recursive: bool = flag("ReadOnlyNonRecursive")
    read_only_force_recursive: bool = flag("ReadOnlyForceRecursive")


@dataclass(frozen=True)
class TmpfsOptions:
    size_bytes: int = integer("SizeBytes")
    mode: int = integer("Mode")


@dataclass(frozen=True)
class MountRequest:
    """One entry of HostConfig.Mounts: `--mount`."""

    type: str = text("Type")
    source: str = text("Source")
    target: str = text("Target")
    read_only: bool = flag("ReadOnly")
    consistency: str = text("Consistency")
    bind_options: BindOptions | None = optional_nested("BindOptions", BindOptions)  # noqa: RUF009 (makes a field, not a value)
    volume_options: Mapping[str, object] = raw_object("VolumeOptions", null=True)
    image_options: Mapping[str, object] = raw_object("ImageOptions", null=True)
    tmpfs_options: TmpfsOptions | None = optional_nested("TmpfsOptions", TmpfsOptions)  # noqa: RUF009 (makes a field, not a value)

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in encode(self).items() if value}


@dataclass(frozen=True)
class HostConfig:
    """What belongs to this host: mounts, isolation, limits."""

    binds: tuple[str, ...] = texts("Binds")
    container_id_file: str = text("ContainerIDFile")
    log_config: LogConfig = nested("LogConfig", LogConfig)  # noqa: RUF009 (makes a field, not a value)
    network_mode: str = text("NetworkMode")
    port_bindings: Mapping[str, object] = raw_object("PortBindings")
    restart_policy: RestartPolicy = nested("RestartPolicy", RestartPolicy)  # noqa: RUF009 (makes a field, not a value)
    auto_remove: bool = flag("AutoRemove")
    volume_driver: str = text("VolumeDriver")
    volumes_from: tuple[str, ...] = texts("VolumesFrom")
    console_size: tuple[int, ...] = integers("ConsoleSize")
    annotations: Mapping[str, str] = mapping("Annotations", null=True)
    cap_add: tuple[str, ...] = texts("CapAdd")
    cap_drop: tuple[str, ...] = texts("CapDrop")
    cgroupns_mode: str = text("CgroupnsMode")
    dns: tuple[str, ...] = texts("Dns", null=False)
    dns_options: tuple[str, ...] = texts("DnsOptions", null=False)
    dns_search: tuple[str, ...] = texts("DnsSearch", null=False)
    extra_hosts: tuple[str, ...] = texts("ExtraHosts")
    group_add: tuple[str, ...] = texts("GroupAdd")
    ipc_mode: str = text("IpcMode")
    cgroup: str = text("Cgroup")
    links: tuple[str, ...] = texts("Links")
    oom_score_adj: int = integer("OomScoreAdj")
    pid_mode: str = text("PidMode")
    privileged: bool = flag("Privileged")
    publish_all_ports: bool = flag("PublishAllPorts")
    readonly_rootfs: bool = flag("ReadonlyRootfs")
    security_opt: tuple[str, ...] = texts("SecurityOpt")
    storage_opt: Mapping[str, str] = mapping("StorageOpt", null=True)
    tmpfs: Mapping[str, str] = mapping("Tmpfs", null=True)
    uts_mode: str = text("UTSMode")
    userns_mode: str = text("UsernsMode")
    shm_size: int = integer("ShmSize")
    sysctls: Mapping[str, str] = mapping("Sysctls", null=True)
    runtime: str = text("Runtime")
    isolation: str = text("Isolation")
    cpu_shares: int = integer("CpuShares")
    memory: int = integer("Memory")
    nano_cpus: int = integer("NanoCpus")
    cgroup_parent: str = text("CgroupParent")
    blkio_weight: int = integer("BlkioWeight")
    blkio_weight_device: tuple[Mapping[str, object], ...] = raw_objects("BlkioWeightDevice")
    blkio_device_read_bps: tuple[Mapping[str, object], ...] = raw_objects("BlkioDeviceReadBps")
    blkio_device_write_bps: tuple[Mapping[str, object], ...] = raw_objects("BlkioDeviceWriteBps")
    blkio_device_read_iops: tuple[Mapping[str, object], ...] = raw_objects("BlkioDeviceReadIOps")
    blkio_device_write_iops: tuple[Mapping[str, object], ...] = raw_objects("BlkioDeviceWriteIOps")
    cpu_period: int = integer("CpuPeriod")
    cpu_quota: int = integer("CpuQuota")
    cpu_realtime_period: int = integer("CpuRealtimePeriod")
    cpu_realtime_runtime: int = integer("CpuRealtimeRuntime")
    cpuset_cpus: str = text("CpusetCpus")
    cpuset_mems: str = text("CpusetMems")
    devices: tuple[DeviceMapping, ...] = nested_list("Devices", DeviceMapping)
    device_cgroup_rules: tuple[str, ...] = texts("DeviceCgroupRules")
    device_requests: tuple[Mapping[str, object], ...] = raw_objects("DeviceRequests")
    memory_reservation: int = integer("MemoryReservation")
    memory_swap: int = integer("MemorySwap")
    memory_swappiness: int | None = optional_integer("MemorySwappiness")
    oom_kill_disable: bool | None = optional_flag("OomKillDisable")
    pids_limit: int | None = optional_integer("PidsLimit")
    ulimits: tuple[Ulimit, ...] = nested_list("Ulimits", Ulimit)
    cpu_count: int = integer("CpuCount")
    cpu_percent: int = integer("CpuPercent")
    io_maximum_iops: int = integer("IOMaximumIOps")
    io_maximum_bandwidth: int = integer("IOMaximumBandwidth")
    mounts: tuple[MountRequest, ...] = nested_list("Mounts", MountRequest)
    masked_paths: tuple[str, ...] | None = optional_texts("MaskedPaths")
    readonly_paths: tuple[str, ...] | None = optional_texts("ReadonlyPaths")
    init: bool | None = optional_flag("Init")
    # Not docker's: see `run --lease` and `--timeout`.
    lease: bool = flag("DockpyLease")
    timeout: int = integer("DockpyTimeout")  # nanoseconds

    def to_json(self) -> dict[str, object]:
        result = encode(self)
        for name in ("Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Init", "Mounts"):
            if result[name] is None:
                del result[name]
        for name in ("DockpyLease", "DockpyTimeout"):
            if not result[name]:
                del result[name]
        if self.mounts:
            result["Mounts"] = [mount.to_json() for mount in self.mounts]
        return result


@dataclass(frozen=True)
class ContainerCreate:
    """One body of `POST /containers/create`, with the query's name and platform."""

    config: Config
    host_config: HostConfig
    endpoints: Mapping[str, Mapping[str, object]]
    name: str = ""
    platform: str = ""

    @classmethod
    def from_json(cls, raw: object, name: str = "", platform: str = "") -> ContainerCreate:
        fields = parse_object(raw, "the body")
        networking = parse_object(fields.get("NetworkingConfig"), "NetworkingConfig")
        endpoints = parse_object(networking.get("EndpointsConfig"), "EndpointsConfig")
        return cls(
            config=decode(Config, fields, ""),
            host_config=decode(HostConfig, fields.get("HostConfig"), "HostConfig"),
            endpoints={
                key: parse_object(value, f"EndpointsConfig.{key}")
                for key, value in endpoints.items()
            },
            name=name,
            platform=platform,
        )


@dataclass(frozen=True)
class ExecCreate:
    user: str = text("User")
    privileged: bool = flag("Privileged")
    tty: bool = flag("Tty")
    attach_stdin: bool = flag("AttachStdin")
    attach_stdout: bool = flag("AttachStdout")
    attach_stderr: bool = flag("AttachStderr")
    detach_keys: str = text("DetachKeys")
    env: tuple[str, ...] = texts("Env")
    working_dir: str = text("WorkingDir")
    cmd: tuple[str, ...] | None = optional_texts("Cmd")
