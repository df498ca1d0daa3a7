"""What docker's client knows of the JSON it inspects: its Go structs, as far as templates can see
them. Go's names for fields, which objects are maps (a missing key is no value), and which fields are
there although the JSON leaves them out. Whatever is not here is looked up in the raw JSON.
"""

from __future__ import annotations

from dockpy.client.template_values import Map, NilSlice, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Where Go's name is another one than the JSON's.
GO_NAMES = {
    "Dns": "DNS",
    "DnsOptions": "DNSOptions",
    "DnsSearch": "DNSSearch",
    "HostIp": "HostIP",
    "Id": "ID",
}
MAPS = frozenset(
    [
        "Annotations",
        "Containers",
        "Data",
        "Details",
        "DriverOpts",
        "ExposedPorts",
        "Labels",
        "Networks",
        "Options",
        "PortBindings",
        "Ports",
        "Runtimes",
        "StorageOpt",
        "Sysctls",
        "Tmpfs",
        "Volumes",
    ]
)
SLICES = frozenset(
    [
        "Aliases",
        "Args",
        "Binds",
        "CapAdd",
        "CapDrop",
        "Cmd",
        "DeviceCgroupRules",
        "DeviceRequests",
        "Devices",
        "Dns",
        "DNSNames",
        "DnsOptions",
        "DnsSearch",
        "Entrypoint",
        "Env",
        "ExecIDs",
        "ExtraHosts",
        "GroupAdd",
        "Links",
        "MaskedPaths",
        "Mounts",
        "OnBuild",
        "ReadonlyPaths",
        "RepoDigests",
        "RepoTags",
        "SecondaryIPAddresses",
        "SecondaryIPv6Addresses",
        "SecurityOpt",
        "Shell",
        "Test",
        "Ulimits",
        "VolumesFrom",
    ]
)
# By the name of the object ("" is the whole): fields that omitempty hides, with their zero values.
HIDDEN: dict[str, dict[str, object]] = {
    "container": {
        "SizeRw": None,
        "SizeRootFs": None,
        "ImageManifestDescriptor": None,
    },
    "image": {
        "Parent": "",
        "Comment": "",
        "Created": "",
        "Container": "",
        "ContainerConfig": None,
        "DockerVersion": "",
        "Author": "",
        "Variant": "",
        "OsVersion": "",
        "VirtualSize": 0,
        "Descriptor": None,
        "Manifests": [],
    },
    "State": {"Health": None},
    "Config": {
        "ExposedPorts": {},
        "Healthcheck": None,
        "ArgsEscaped": False,
        "MacAddress": "",
        "NetworkDisabled": False,
        "StopSignal": "",
        "StopTimeout": None,
        "Shell": [],
    },
    "HostConfig": {
        "Annotations": {},
        "StorageOpt": {},
        "Tmpfs": {},
        "Sysctls": {},
        "Init": None,
        "Mounts": [],
    },
    "Mounts": {"Name": "", "Driver": ""},
}
# In Go's order, where %v of the whole is what people print.
ORDER = {
    "Mounts": ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"),
}


def typed(value: Any, kind: str) -> Any:
    """`value` as docker's client sees it; `kind` is container or image."""
    return _struct(value, kind) if isinstance(value, dict) else value


def _struct(value: dict[str, Any], name: str) -> Struct:
    fields = dict(value)
    for hidden, zero in HIDDEN.get(name, {}).items():
        fields.setdefault(hidden, zero)
    order = ORDER.get(name, ())
    if order and "Destination" in fields:
        fields = {key: fields[key] for key in (*order, *fields) if key in fields}
    result = Struct()
    result.raw = value
    for key, item in fields.items():
        result[GO_NAMES.get(key, key)] = _typed(item, key, name)
    return result


def _typed(value: Any, name: str, parent: str) -> Any:
    is_map = name in MAPS or (name, parent) == ("Config", "LogConfig")
    if value is None and (is_map or name in SLICES):
        return Map() if is_map else NilSlice()
    if isinstance(value, dict):
        if not is_map:
            return _struct(value, name)
        result = Map({key: _typed(item, "", name) for key, item in value.items()})
        result.raw = value
        return result
    if isinstance(value, list):
        return [_typed(item, "Mounts" if name == "Mounts" else "", name) for item in value]
    return value
