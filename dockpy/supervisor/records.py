"""Containers on disk: one folder each, `container.json` (what was asked for) and `state.json` (how it is).

container.json is written once, durably, and again only by rename. state.json changes with each start
and exit and is not synced: after a power cut nothing runs any more, which the boot id tells. What must
outlive it of a container with a restart policy is in restart.json, synced when it changes.
Both are replaced whole. A folder without container.json, or with an empty one, is an interrupted create;
what holds something that cannot be read is damaged (dockpy.damaged): the folder is set aside for a
container.json, the file alone for any other.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dockpy import files
from dockpy.api.container import Config, HostConfig, decode, encode
from dockpy.api.times import ZERO
from dockpy.damaged import Empty, Shelf, load_object
from dockpy.errors import Conflict, DockpyError, InvalidParameter, NotFound
from dockpy.linux.disk import spread_folders

# The mode of a container.json that a power cut cannot have emptied.
SYNCED = 0o400
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


@dataclass(frozen=True)
class Record:
    """What was asked for, resolved once: image values are merged in, defaults filled in."""

    id: str
    name: str
    created: str  # RFC 3339
    image_id: str
    config: Config
    host_config: HostConfig
    endpoints: Mapping[str, Mapping[str, object]]
    snapshotter: str
    platform: str = "linux"
    manifest: Mapping[str, object] | None = None  # OCI descriptor of the image's manifest

    @property
    def argv(self) -> tuple[str, ...]:
        return (*(self.config.entrypoint or ()), *(self.config.cmd or ()))

    def to_json(self) -> dict[str, object]:
        return {
            "Version": 1,
            "Id": self.id,
            "Name": self.name,
            "Created": self.created,
            "ImageId": self.image_id,
            "Config": encode(self.config),
            "HostConfig": encode(self.host_config),
            "Endpoints": dict(self.endpoints),
            "Snapshotter": self.snapshotter,
            "Platform": self.platform,
            "Manifest": self.manifest,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> Record:
        try:
            endpoints, manifest = raw["Endpoints"], raw["Manifest"]
            for key, kind in _SHAPE.items():
                if not isinstance(raw[key], kind):
                    raise InvalidParameter(f"a record whose {key} is of another type")
            if not isinstance(endpoints, dict) or not isinstance(manifest, (dict, type(None))):
                raise InvalidParameter("a record of another shape")
            if NAME.fullmatch(str(raw["Name"])) is None:
                raise InvalidParameter("a record whose Name is none")
            return cls(
                id=str(raw["Id"]),
                name=str(raw["Name"]),
                created=str(raw["Created"]),
                image_id=str(raw["ImageId"]),
                config=decode(Config, raw["Config"], "Config"),
                host_config=decode(HostConfig, raw["HostConfig"], "HostConfig"),
                endpoints=endpoints,
                snapshotter=str(raw["Snapshotter"]),
                platform=str(raw["Platform"]),
                manifest=manifest,
            )
        except KeyError as error:
            raise InvalidParameter(f"a record without {error}") from None


WISH = len(json.dumps({"begun": False, "stopped": False}))
_SHAPE = {
    "Id": str,
    "Name": str,
    "Created": str,
    "ImageId": str,
    "Config": dict,
    "HostConfig": dict,
    "Snapshotter": str,
    "Platform": str,
}
STATUSES = ("created", "running", "paused", "restarting", "exited", "dead")


@dataclass(frozen=True)
class State:
    """How a container is; the words are docker's."""

    status: str = "created"  # created running restarting exited dead
    pid: int = 0
    pid_start: int = 0
    boot: str = ""  # of `pid`
    exit_code: int = 0
    error: str = ""
    oom: bool = False
    started: str = ZERO
    finished: str = ZERO
    restarts: int = 0
    stopped: bool = False  # by a user, not by itself
    begun: bool = False  # ever started
    frozen: bool = False  # see `paused`
    restart_at: float = 0.0  # of a restarting one: on the monotonic clock of `boot`, seconds
    delay: float = 0.0  # its last back-off, seconds
    group: str = ""  # the control group of this run (supervisor.groups)

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def paused(self) -> bool:
        """Runs, and stands still."""
        return self.running and self.frozen

    @property
    def word(self) -> str:
        """docker's word for all of it."""
        return "paused" if self.paused else self.status

    @property
    def restarting(self) -> bool:
        """Waits for its next start: docker counts that as running, though there is no process."""
        return self.status == "restarting"

    @property
    def live(self) -> bool:
        return self.running or self.restarting

    def to_json(self) -> dict[str, object]:
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> State:
        """InvalidParameter when a field is of another type than ours."""
        known: dict[str, Any] = {}
        for name, field_ in cls.__dataclass_fields__.items():
            if name not in raw:
                continue
            kind = type(field_.default)
            value = raw[name]
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind:
                raise InvalidParameter(f"its {name} is of another type")
            known[name] = value
        if known.get("status", "created") not in STATUSES:
            raise InvalidParameter("its status is none")
        return cls(**known)


@dataclass(frozen=True)
class Broken:
    """A folder in the store that holds no readable record."""

    id: str
    reason: str
    # Missing or empty: a create that was cut, or a record that was never synced (of a `--rm`
    # container) after a power cut. Nobody can want it back.
    written: bool = True


@dataclass
class Folders:
    """The containers' folders in one store."""

    root: str
    tmp: str
    damaged: Shelf
    _made: bool = field(default=False, repr=False)

    def bundle(self, container_id: str) -> str:
        return f"{self.root}/{container_id}"

    def create(self, record: Record, *, durable: bool) -> None:
        """The folder and its record; with `durable`, both survive a power cut when this returns."""
        if not self._made:
            os.makedirs(self.root, 0o700, exist_ok=True)
            spread_folders(self.root)
            self._made = True
        bundle = self.bundle(record.id)
        os.mkdir(bundle, 0o700)
        self.write_record(record, durable=durable)
        if durable:
            files.sync_folder(self.root)

    def write_record(self, record: Record, *, durable: bool) -> None:
        data = json.dumps(record.to_json(), separators=(",", ":")).encode()
        mode = SYNCED if durable else 0o600
        files.write_atomic(f"{self.bundle(record.id)}/container.json", data, mode, durable=durable)

    def write_state(self, container_id: str, state: State) -> None:
        data = json.dumps(state.to_json(), separators=(",", ":")).encode()
        files.write_atomic(f"{self.bundle(container_id)}/state.json", data, durable=False)

    def write_wish(self, container_id: str, state: State) -> None:
        """What a restart policy must know after a power cut; durable when this returns."""
        path = f"{self.bundle(container_id)}/restart.json"
        data = json.dumps({"begun": state.begun, "stopped": state.stopped}).encode()
        data = data.ljust(
            WISH
        )  # always as long, so that each has room in the place of the last one
        try:
            files.write_atomic(path, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not os.path.exists(path):
                raise
            files.write_over(path, data)

    def _wish(self, name: str, state: State) -> State:
        try:
            raw = load_object(f"{self.bundle(name)}/restart.json")
            if type(raw.get("begun")) is not bool or type(raw.get("stopped")) is not bool:
                raise InvalidParameter("it does not hold begun and stopped")
        except FileNotFoundError:
            return state
        except DockpyError as error:
            self.set_aside(name, "restart.json", str(error))
            return state
        return changed(state, begun=raw["begun"], stopped=raw["stopped"])

    def set_aside(self, name: str, file: str, reason: str) -> None:
        """A file of a container's folder that is damaged."""
        self.damaged.set_aside(f"{self.bundle(name)}/{file}", f"{name}-{file}", reason)

    def set_aside_whole(self, broken: Broken) -> None:
        self.damaged.set_aside(
            self.bundle(broken.id), f"container-{broken.id}", f"its record: {broken.reason}"
        )

    def is_aside(self, container_id: str) -> bool:
        return self.damaged.holds(f"container-{container_id}")

    def discard(self, container_id: str) -> str | None:
        """Takes the folder out of sight in one step; its new path, still to be deleted. None when it is gone."""
        os.makedirs(self.tmp, 0o700, exist_ok=True)
        aside = f"{self.tmp}/container-{container_id}"
        try:
            os.rename(self.bundle(container_id), aside)
        except FileNotFoundError:
            return None
        return aside

    def load(self) -> Iterator[tuple[Record, State] | Broken]:
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return
        for name in names:
            if re.fullmatch("[0-9a-f]{64}", name):
                yield self.read(name)

    def read(self, name: str) -> tuple[Record, State] | Broken:
        path = f"{self.bundle(name)}/container.json"
        try:
            record = Record.from_json(load_object(path))
            if record.id != name:
                raise InvalidParameter("it is of another container")
        except FileNotFoundError:
            return Broken(name, "it is missing", written=False)
        except Empty as error:
            return Broken(name, str(error), written=os.stat(path).st_mode & 0o777 == SYNCED)
        except DockpyError as error:
            return Broken(name, str(error))
        try:
            state = State.from_json(load_object(f"{self.bundle(name)}/state.json"))
        except (FileNotFoundError, Empty):  # it is not synced
            state = State()
        except DockpyError as error:
            self.set_aside(name, "state.json", str(error))
            state = State()
        return record, self._wish(name, state)


class Names:
    """Ids by name, and by prefix of id. Every change keeps both in step."""

    def __init__(self) -> None:
        self._by_name: dict[str, str] = {}
        self._ids: set[str] = set()

    def check(self, name: str) -> None:
        """InvalidParameter or Conflict when a new container cannot be called `name`."""
        if NAME.fullmatch(name) is None:
            raise InvalidParameter(
                f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
        owner = self._by_name.get(name)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def add(self, container_id: str, name: str) -> None:
        self.check(name)
        self._by_name[name] = container_id
        self._ids.add(container_id)

    def rename(self, container_id: str, old: str, new: str) -> None:
        self.check(new)
        del self._by_name[old]
        self._by_name[new] = container_id

    def remove(self, container_id: str, name: str) -> None:
        self._by_name.pop(name, None)
        self._ids.discard(container_id)

    def find(self, reference: str) -> str:
        """The id meant by a full id, a name, /name or a prefix of one id only."""
        if reference in self._ids:
            return reference
        named = self._by_name.get(reference[1:] if reference.startswith("/") else reference)
        if named is not None:
            return named
        if re.fullmatch("[0-9a-f]{1,63}", reference):
            found = [candidate for candidate in self._ids if candidate.startswith(reference)]
            if len(found) == 1:
                return found[0]
            if found:
                raise InvalidParameter(f"Multiple IDs found with provided prefix: {reference}")
        raise NotFound(f"No such container: {reference}")


def changed(state: State, **values: object) -> State:
    return replace(state, **values)  # type: ignore[arg-type]  # the names are checked by replace itself
