"""The image config: how to run the image, its layers by diff id, its history (image-spec, config.md, and docker's extras).

The image id is the digest of the config's bytes, so the bytes as they came are the truth and these values
are a reading of them; `to_bytes` is only for images that we make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dockpy.errors import InvalidParameter
from dockpy.oci.digest import ChainID, DiffID, chain_ids, diff_id
from dockpy.oci.fields import Fields, dump, parse, without_empty
from dockpy.oci.platform import Platform

MAX_LAYERS = 127  # docker's own bound; overlayfs takes 500


@dataclass(frozen=True)
class Healthcheck:
    """Durations in nanoseconds, 0 = inherit; `test` is ("NONE",), ("CMD", …), ("CMD-SHELL", …) or () = inherit."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    def to_json(self) -> dict[str, object]:
        pairs = (
            ("Test", list(self.test)),
            ("Interval", self.interval or None),
            ("Timeout", self.timeout or None),
            ("StartPeriod", self.start_period or None),
            ("StartInterval", self.start_interval or None),
            ("Retries", self.retries or None),
        )
        return without_empty(pairs)


def healthcheck_from_json(raw: object) -> Healthcheck:
    fields = Fields(raw, "Healthcheck")
    return Healthcheck(
        fields.texts("Test") or (),
        fields.integer("Interval", 0),
        fields.integer("Timeout", 0),
        fields.integer("StartPeriod", 0),
        fields.integer("StartInterval", 0),
        fields.integer("Retries", 0),
    )


@dataclass(frozen=True)
class ContainerConfig:
    """The config's `config`: defaults of a container. None for a command means that there is none."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    args_escaped: bool = False

    def to_json(self) -> dict[str, object]:
        """Docker's spelling; also the `Config` of the Engine API's image inspect."""
        return without_empty(
            (
                ("User", self.user),
                ("ExposedPorts", {port: {} for port in self.exposed_ports}),
                ("Env", list(self.env)),
                ("Entrypoint", None if self.entrypoint is None else list(self.entrypoint)),
                ("Cmd", None if self.cmd is None else list(self.cmd)),
                ("Healthcheck", self.healthcheck.to_json() if self.healthcheck else None),
                ("ArgsEscaped", self.args_escaped),
                ("Volumes", {volume: {} for volume in self.volumes}),
                ("WorkingDir", self.working_dir),
                ("Labels", dict(self.labels)),
                ("StopSignal", self.stop_signal),
                ("OnBuild", list(self.on_build)),
                ("Shell", None if self.shell is None else list(self.shell)),
            )
        ) | ({} if self.stop_timeout is None else {"StopTimeout": self.stop_timeout})


def container_config_from_json(raw: object) -> ContainerConfig:
    fields = Fields(raw, "config")
    timeout = fields.raw("StopTimeout")
    return ContainerConfig(
        fields.text("User", ""),
        fields.texts("Env") or (),
        _command(fields, "Entrypoint"),
        _command(fields, "Cmd"),
        fields.text("WorkingDir", ""),
        fields.keys("ExposedPorts"),
        fields.keys("Volumes"),
        fields.mapping("Labels"),
        fields.text("StopSignal", ""),
        None if timeout is None else fields.integer("StopTimeout"),
        fields.optional("Healthcheck", healthcheck_from_json),
        _command(fields, "Shell"),
        fields.texts("OnBuild") or (),
        fields.boolean("ArgsEscaped"),
    )


def _command(fields: Fields, key: str) -> tuple[str, ...] | None:
    # Some old builders wrote a bare string; docker reads it as a list of one.
    value = fields.raw(key)
    return (value,) if isinstance(value, str) else fields.texts(key)


@dataclass(frozen=True)
class History:
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    def to_json(self) -> dict[str, object]:
        return without_empty(
            (
                ("created", self.created),
                ("created_by", self.created_by),
                ("author", self.author),
                ("comment", self.comment),
                ("empty_layer", self.empty_layer),
            )
        )


def history_from_json(raw: object) -> History:
    fields = Fields(raw, "history")
    return History(
        fields.text("created", ""),
        fields.text("created_by", ""),
        fields.text("author", ""),
        fields.text("comment", ""),
        fields.boolean("empty_layer"),
    )


@dataclass(frozen=True)
class ImageConfig:
    platform: Platform
    diff_ids: tuple[DiffID, ...]
    config: ContainerConfig = ContainerConfig()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    comment: str = ""
    docker_version: str = ""

    @property
    def chain_ids(self) -> tuple[ChainID, ...]:
        return chain_ids(self.diff_ids)

    def to_json(self) -> dict[str, object]:
        return without_empty(
            (
                ("created", self.created),
                ("author", self.author),
                ("comment", self.comment),
                ("docker_version", self.docker_version),
                ("history", [entry.to_json() for entry in self.history]),
            )
        ) | {
            **self.platform.to_json(),
            "config": self.config.to_json(),
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
        }

    def to_bytes(self) -> bytes:
        return dump(self.to_json())


def image_config_from_json(raw: object) -> ImageConfig:
    fields = Fields(raw, "image config")
    rootfs = Fields(fields.raw("rootfs"), "image config: rootfs")
    if rootfs.text("type", "layers") != "layers":
        raise InvalidParameter("image config: rootfs.type must be layers")
    diff_ids = tuple(diff_id(text) for text in rootfs.texts("diff_ids") or ())
    if len(diff_ids) > MAX_LAYERS:
        raise InvalidParameter(
            f"max depth exceeded: an image has at most {MAX_LAYERS} layers, this one {len(diff_ids)}"
        )
    return ImageConfig(
        Platform(
            fields.text("os", "linux") or "linux",
            fields.text("architecture", ""),
            fields.text("variant", ""),
            fields.text("os.version", ""),
        ),
        diff_ids,
        fields.optional("config", container_config_from_json) or ContainerConfig(),
        fields.each("history", history_from_json),
        fields.text("created", ""),
        fields.text("author", ""),
        fields.text("comment", ""),
        fields.text("docker_version", ""),
    )


def image_config(data: bytes) -> ImageConfig:
    return image_config_from_json(parse(data, "image config"))
