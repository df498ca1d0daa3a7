"""The OCI runtime specification's config.json (Linux) as frozen values, to JSON and back.

Names are the specification's in snake_case. What dockpy's runtime does not act on (hooks, cgroup
resources, labels of security modules) is not kept. A `Mount` is also the currency between storage,
volumes and runtime: one with destination "/" is the container's root.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dockpy.errors import InvalidParameter
from dockpy.oci.seccomp import Seccomp, seccomp_from_json, seccomp_to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OCI_VERSION = "1.2.0"

# Annotations that dockpy's own runtime honours (see dockpy.runtime).
ANNOTATION_USER = "io.dockpy.user"  # "name|uid[:group|gid]", resolved in the image's own files
ANNOTATION_GROUPS = "io.dockpy.groups"  # "a,b": supplementary groups beside those of the user
ANNOTATION_TIER = "io.dockpy.tier"  # "single": only one uid is mapped
ANNOTATION_FOLDERS = "io.dockpy.folders"  # paths between NULs, made where the root lacks them
ANNOTATION_INIT = "io.dockpy.init"  # "true": our own init is pid 1


@dataclass(frozen=True)
class User:
    """Who runs. `username`, when set, is resolved in the container ("name|uid[:group|gid]") and
    wins.
    """

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str | None = None


@dataclass(frozen=True)
class ConsoleSize:
    height: int
    width: int


@dataclass(frozen=True)
class Capabilities:
    """Names with CAP_; None of the whole means none at all."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rlimit:
    type: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Process:
    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None


@dataclass(frozen=True)
class Root:
    path: str
    readonly: bool = False


@dataclass(frozen=True)
class Mount:
    destination: str
    type: str = "bind"
    source: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Namespace:
    """`type` is the specification's word (pid network mount ipc uts user cgroup); `path` joins
    one.
    """

    type: str
    path: str | None = None


@dataclass(frozen=True)
class IDMapping:
    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True)
class Device:
    path: str
    type: str
    major: int
    minor: int
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True)
class Linux:
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    sysctl: Mapping[str, str] = field(default_factory=dict)
    seccomp: Seccomp | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    rootfs_propagation: str | None = None
    cgroups_path: str | None = None  # from the root of the tree (of each, for version 1)

    def namespace(self, kind: str) -> Namespace | None:
        return next((entry for entry in self.namespaces if entry.type == kind), None)


@dataclass(frozen=True)
class Spec:
    process: Process
    root: Root
    hostname: str | None = None
    domainname: str | None = None
    mounts: tuple[Mount, ...] = ()
    linux: Linux = Linux()
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: object) -> Spec:
        return spec_from_json(raw)

    def to_json(self) -> dict[str, object]:
        return spec_to_json(self)


# ------------------------------------------------------------------------------------- from JSON


def spec_from_json(raw: object) -> Spec:
    fields = _Fields(raw, "config.json")
    root = fields.section("root")
    linux = fields.section("linux")
    return Spec(
        process=process_from_json(fields.get("process")),
        root=Root(root.text("path"), root.flag("readonly")),
        hostname=fields.optional_text("hostname"),
        domainname=fields.optional_text("domainname"),
        mounts=tuple(mount_from_json(entry) for entry in fields.array("mounts")),
        linux=_linux(linux),
        annotations=fields.texts_by_name("annotations"),
    )


def process_from_json(raw: object) -> Process:
    fields = _Fields(raw, "process")
    size = fields.section("consoleSize")
    user = fields.section("user")
    caps = fields.section("capabilities")
    args = fields.texts("args")
    if not args:
        raise InvalidParameter("process.args is empty")
    return Process(
        args=args,
        cwd=fields.text("cwd"),
        env=fields.texts("env"),
        terminal=fields.flag("terminal"),
        console_size=ConsoleSize(size.number("height"), size.number("width")) if size else None,
        user=User(
            uid=user.number("uid", 0),
            gid=user.number("gid", 0),
            umask=user.optional_number("umask"),
            additional_gids=user.numbers("additionalGids"),
            username=user.optional_text("username"),
        ),
        capabilities=Capabilities(
            bounding=caps.texts("bounding"),
            effective=caps.texts("effective"),
            inheritable=caps.texts("inheritable"),
            permitted=caps.texts("permitted"),
            ambient=caps.texts("ambient"),
        )
        if caps
        else None,
        rlimits=tuple(_rlimit(entry) for entry in fields.array("rlimits")),
        no_new_privileges=fields.flag("noNewPrivileges"),
        oom_score_adj=fields.optional_number("oomScoreAdj"),
    )


def mount_from_json(raw: object) -> Mount:
    fields = _Fields(raw, "mounts")
    options = fields.texts("options")
    kind = fields.optional_text("type")
    if kind is None:
        kind = "bind" if "bind" in options or "rbind" in options else "none"
    return Mount(
        destination=fields.text("destination"),
        type=kind,
        source=fields.optional_text("source") or "",
        options=options,
    )


def _rlimit(raw: object) -> Rlimit:
    fields = _Fields(raw, "process.rlimits")
    return Rlimit(fields.text("type"), fields.number("soft"), fields.number("hard"))


def _linux(fields: _Fields) -> Linux:
    seccomp = fields.get("seccomp")
    return Linux(
        namespaces=tuple(_namespace(entry) for entry in fields.array("namespaces")),
        uid_mappings=tuple(_id_mapping(entry) for entry in fields.array("uidMappings")),
        gid_mappings=tuple(_id_mapping(entry) for entry in fields.array("gidMappings")),
        devices=tuple(_device(entry) for entry in fields.array("devices")),
        sysctl=fields.texts_by_name("sysctl"),
        seccomp=None if seccomp is None else seccomp_from_json(seccomp),
        masked_paths=fields.texts("maskedPaths"),
        readonly_paths=fields.texts("readonlyPaths"),
        rootfs_propagation=fields.optional_text("rootfsPropagation"),
        cgroups_path=fields.optional_text("cgroupsPath"),
    )


def _namespace(raw: object) -> Namespace:
    fields = _Fields(raw, "linux.namespaces")
    return Namespace(fields.text("type"), fields.optional_text("path"))


def _id_mapping(raw: object) -> IDMapping:
    fields = _Fields(raw, "linux id mappings")
    return IDMapping(fields.number("containerID"), fields.number("hostID"), fields.number("size"))


def _device(raw: object) -> Device:
    fields = _Fields(raw, "linux.devices")
    return Device(
        path=fields.text("path"),
        type=fields.text("type"),
        major=fields.number("major", 0),
        minor=fields.number("minor", 0),
        file_mode=fields.optional_number("fileMode"),
        uid=fields.optional_number("uid"),
        gid=fields.optional_number("gid"),
    )


class _Fields:
    """One JSON object, read field by field; every complaint names the field."""

    def __init__(self, raw: object, where: str) -> None:
        if not isinstance(raw, dict):
            raise InvalidParameter(f"{where} must be an object")
        self._raw = raw
        self._where = where

    def __bool__(self) -> bool:
        return bool(self._raw)

    def get(self, name: str) -> object:
        return self._raw.get(name)

    def _wrong(self, name: str, wanted: str) -> InvalidParameter:
        return InvalidParameter(f"{self._where}: {name} must be {wanted}")

    def section(self, name: str) -> _Fields:
        value = self._raw.get(name)
        return _Fields({} if value is None else value, f"{self._where}: {name}")

    def array(self, name: str) -> list[object]:
        value = self._raw.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def optional_text(self, name: str) -> str | None:
        value = self._raw.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or "\0" in value:
            raise self._wrong(name, "a text without NUL")
        return value or None

    def text(self, name: str) -> str:
        value = self.optional_text(name)
        if value is None:
            raise self._wrong(name, "a text that is not empty")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        values = self.array(name)
        for value in values:
            if not isinstance(value, str) or "\0" in value:
                raise self._wrong(name, "a list of texts without NUL")
        return tuple(value for value in values if isinstance(value, str))

    def texts_by_name(self, name: str) -> dict[str, str]:
        value = self._raw.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(name, "an object of texts")
        for key, text in value.items():
            if not isinstance(text, str) or "\0" in key or "\0" in text:
                raise self._wrong(name, "an object of texts")
        return dict(value)

    def optional_number(self, name: str) -> int | None:
        value = self._raw.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name, "a whole number")
        return value

    def number(self, name: str, default: int | None = None) -> int:
        value = self.optional_number(name)
        if value is None:
            value = default
        if value is None:
            raise self._wrong(name, "a whole number")
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        values = self.array(name)
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool):
                raise self._wrong(name, "a list of whole numbers")
        return tuple(value for value in values if isinstance(value, int))

    def flag(self, name: str) -> bool:
        value = self._raw.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value


# --------------------------------------------------------------------------------------- to JSON


def spec_to_json(spec: Spec) -> dict[str, object]:
    return _without_empty(
        {
            "ociVersion": OCI_VERSION,
            "process": process_to_json(spec.process),
            "root": {"path": spec.root.path, "readonly": spec.root.readonly},
            "hostname": spec.hostname,
            "domainname": spec.domainname,
            "mounts": [mount_to_json(mount) for mount in spec.mounts],
            "annotations": dict(spec.annotations),
            "linux": _linux_to_json(spec.linux),
        }
    )


def process_to_json(process: Process) -> dict[str, object]:
    size, caps, user = process.console_size, process.capabilities, process.user
    result = _without_empty(
        {
            "terminal": process.terminal,
            "consoleSize": {"height": size.height, "width": size.width} if size else None,
            "args": list(process.args),
            "env": list(process.env),
            "cwd": process.cwd,
            "rlimits": [
                {"type": limit.type, "soft": limit.soft, "hard": limit.hard}
                for limit in process.rlimits
            ],
            "noNewPrivileges": process.no_new_privileges,
            "oomScoreAdj": process.oom_score_adj,
        }
    )
    result["user"] = {
        "uid": user.uid,
        "gid": user.gid,
        **_without_empty(
            {
                "umask": user.umask,
                "additionalGids": list(user.additional_gids),
                "username": user.username,
            }
        ),
    }
    if caps is not None:
        result["capabilities"] = {
            "bounding": list(caps.bounding),
            "effective": list(caps.effective),
            "inheritable": list(caps.inheritable),
            "permitted": list(caps.permitted),
            "ambient": list(caps.ambient),
        }
    return result


def mount_to_json(mount: Mount) -> dict[str, object]:
    return _without_empty(
        {
            "destination": mount.destination,
            "type": mount.type,
            "source": mount.source,
            "options": list(mount.options),
        }
    )


def _linux_to_json(linux: Linux) -> dict[str, object]:
    return _without_empty(
        {
            "namespaces": [
                _without_empty({"type": entry.type, "path": entry.path})
                for entry in linux.namespaces
            ],
            "uidMappings": [_id_mapping_to_json(entry) for entry in linux.uid_mappings],
            "gidMappings": [_id_mapping_to_json(entry) for entry in linux.gid_mappings],
            "devices": [_device_to_json(entry) for entry in linux.devices],
            "sysctl": dict(linux.sysctl),
            "seccomp": None if linux.seccomp is None else seccomp_to_json(linux.seccomp),
            "maskedPaths": list(linux.masked_paths),
            "readonlyPaths": list(linux.readonly_paths),
            "rootfsPropagation": linux.rootfs_propagation,
            "cgroupsPath": linux.cgroups_path,
        }
    )


def _id_mapping_to_json(entry: IDMapping) -> dict[str, object]:
    return {"containerID": entry.container_id, "hostID": entry.host_id, "size": entry.size}


def _device_to_json(device: Device) -> dict[str, object]:
    return {
        "path": device.path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        **_without_empty({"fileMode": device.file_mode, "uid": device.uid, "gid": device.gid}),
    }


def _without_empty(fields: dict[str, object]) -> dict[str, object]:
    """Without what was not set: None, False, and empty lists, objects and texts; 0 is a value."""
    return {
        name: value
        for name, value in fields.items()
        if not (value is None or value is False or value in ("", [], {}))
    }
