"""Records on a real disk, and the index of names."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from dockpy.api.container import ContainerCreate
from dockpy.damaged import Shelf
from dockpy.errors import Conflict, InvalidParameter, NotFound
from dockpy.supervisor.create import host_defaults
from dockpy.supervisor.names import pick
from dockpy.supervisor.records import Broken, Folders, Names, Record, State

ID = "ab" * 32


def a_record() -> Record:
    request = ContainerCreate.from_json(
        {
            "Image": "x",
            "Cmd": ["a"],
            "Labels": {"k": "v"},
            "HostConfig": {"Binds": ["/a:/b"], "Init": False},
        }
    )
    return Record(
        ID,
        "name",
        "2023-11-14T22:13:20Z",
        "sha256:1",
        request.config,
        host_defaults(request.host_config),
        {},
        "copy",
    )


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(f"{tmp_path}/containers", f"{tmp_path}/tmp", Shelf(f"{tmp_path}/damaged"))


def test_a_record_comes_back_as_it_was(folders: Folders) -> None:
    folders.create(a_record(), durable=True)
    state = State(status="running", pid=7, pid_start=8, boot="b", started="s")
    folders.write_state(ID, state)
    assert list(folders.load()) == [(a_record(), state)]


def test_without_a_state_a_container_is_created(folders: Folders) -> None:
    folders.create(a_record(), durable=False)
    assert list(folders.load()) == [(a_record(), State())]


OTHERS: tuple[object, ...] = (None, 7, "x", [], {}, 0.5)


def damages(data: bytes) -> list[bytes]:
    raw = json.loads(data)
    types = [{**raw, key: other} for key in raw for other in OTHERS]
    return [
        *(data[: len(data) * eighths // 8] for eighths in range(8)),
        b"[]",
        b"\xff" * 50,
        bytes(len(data)),
        b"[" * 100_000,
        data.replace(b"1", b"NaN"),
        *(json.dumps(one).encode() for one in types if one != raw),
    ]


def test_a_record_that_cannot_be_read_is_told_not_raised(folders: Folders) -> None:
    """And a value of another type never comes in as ours."""
    folders.create(a_record(), durable=True)
    path = Path(folders.bundle(ID), "container.json")
    for content in damages(path.read_bytes()):
        path.write_bytes(content)
        (found,) = folders.load()
        if isinstance(found, Broken):
            assert found.written, "it was synced: somebody wants it back"
        else:  # what may be null, or any text or object
            was = a_record().to_json()
            assert all(
                isinstance(value, type(was[key])) or key in ("Manifest", "Version")
                for key, value in found[0].to_json().items()
            )


def test_only_what_no_power_cut_can_have_emptied_is_kept(folders: Folders) -> None:
    folders.create(a_record(), durable=False)
    Path(folders.bundle(ID), "container.json").write_bytes(b"")
    assert [found.written for found in folders.load() if isinstance(found, Broken)] == [False]


def test_a_damaged_state_is_set_aside_and_the_container_stays(folders: Folders) -> None:
    folders.create(a_record(), durable=True)
    folders.write_wish(ID, State(begun=True, stopped=True))
    folders.write_state(ID, State(status="exited", exit_code=5, boot="b", restart_at=1.5))
    for name in ("state.json", "restart.json"):
        path = Path(folders.bundle(ID), name)
        data = path.read_bytes()
        for number, content in enumerate(damages(data)):
            path.write_bytes(content)
            ((record, state),) = [one for one in folders.load() if not isinstance(one, Broken)]
            assert record.id == ID
            for field, value in State().__dict__.items():
                assert type(getattr(state, field)) is type(value), (number, field)
            path.write_bytes(data)
        aside = [entry for entry in os.listdir(folders.damaged.folder) if name in entry]
        assert len(aside) >= 8


def test_discarding_is_one_step(folders: Folders) -> None:
    folders.create(a_record(), durable=False)
    aside = folders.discard(ID)
    assert aside is not None
    assert os.path.isdir(aside)
    assert list(folders.load()) == []
    assert folders.discard(ID) is None


def test_only_the_owner_may_look(folders: Folders) -> None:
    folders.create(a_record(), durable=False)
    assert os.stat(folders.bundle(ID)).st_mode & 0o777 == 0o700


def test_ids_prefixes_and_names_are_found() -> None:
    names = Names()
    names.add("ab" + "0" * 62, "one")
    names.add("ac" + "0" * 62, "two")
    assert names.find("one") == names.find("/one") == names.find("ab") == "ab" + "0" * 62
    with pytest.raises(InvalidParameter, match="Multiple IDs"):
        names.find("a")
    with pytest.raises(NotFound, match="No such container: b"):
        names.find("b")


def test_a_name_is_one_containers() -> None:
    names = Names()
    names.add(ID, "one")
    with pytest.raises(Conflict, match='"/one" is already in use'):
        names.check("one")
    names.rename(ID, "one", "two")
    names.check("one")
    assert names.find("two") == ID


@pytest.mark.parametrize("name", ["", "a", "-x", "a b", "a/b", "ä1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid container name"):
        Names().check(name)


def test_made_up_names_are_valid_and_free() -> None:
    names = Names()
    for number in range(300):
        container_id = f"{number:064x}"
        names.add(container_id, pick(names, random.Random(number % 7)))


def test_renaming_keeps_everything_else(folders: Folders) -> None:
    folders.create(a_record(), durable=True)
    folders.write_record(replace(a_record(), name="other"), durable=True)
    ((record, _),) = [found for found in folders.load() if not isinstance(found, Broken)]
    assert record == replace(a_record(), name="other")


def test_every_field_of_a_state_has_one_plain_type() -> None:
    """By its default: State.from_json takes no other."""
    assert {type(value) for value in State().__dict__.values()} <= {str, int, bool, float}
