"""`system check` finds what is wrong in a store while it is served, and mends it, and what runs runs on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockpy.damaged import STALE
from tests.daemon.conftest import Engine, eventually
from tests.images.archives import docker_archive, image

BIG = "x" * 5000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(str(tmp_path_factory.mktemp("check") / "store"))
    engine.start()
    live = engine.run("sh", "-c", "echo out; sleep 1000", name="live")
    ended = engine.run("sh", "-c", "echo one; sleep 0.1; echo two", name="ended")
    assert engine.wait(ended) == 0
    assert engine.state(live)["Running"] is True
    yield engine
    engine.start()
    engine.stop()


def check(engine: Engine, repair: bool = False, content: bool = False) -> list[dict[str, object]]:
    answer = engine.ask("POST", f"/dockpy/check?repair={int(repair)}&content={int(content)}")
    assert answer.status == 200, answer.body
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert not any("error" in line for line in lines), lines
    return [line for line in lines if "progress" not in line]


def of(engine: Engine, name: str) -> str:
    return str(engine.inspect(name)["Id"])


def bundle(engine: Engine, name: str) -> Path:
    return Path(engine.paths.containers, of(engine, name))


def load(engine: Engine, *names: str, layer: str = BIG) -> str:
    made = image(layer, names=list(names))
    assert engine.ask("POST", "/images/load", docker_archive(made)).status == 200
    return made.id


def tree_of_layer(engine: Engine) -> Path:
    (found,) = Path(engine.paths.snapshots).glob("n/*/etc/file")
    return found


def mended(engine: Engine, *wanted: tuple[str, str]) -> None:
    """Exactly those findings; repaired at once; and then nothing."""
    found = [(str(line["Kind"]), str(line["Problem"])) for line in check(engine)]
    assert len(found) == len(wanted), found
    for (kind, problem), (wanted_kind, part) in zip(sorted(found), sorted(wanted)):
        assert kind == wanted_kind and part in problem, found
    assert all(line["Repaired"] for line in check(engine, repair=True))
    assert check(engine) == []
    assert engine.state("live")["Running"] is True


def test_a_sound_store_has_no_findings(served: Engine) -> None:
    assert check(served) == []


def test_records_of_containers_are_written_again(served: Engine) -> None:
    folder = bundle(served, "ended")
    for name in ("container.json", "state.json"):
        (folder / name).chmod(0o600)
        (folder / name).write_bytes(b"{torn")
    (folder / "exit.json").write_bytes(b"[]")
    mended(served, ("record", "not JSON"), ("record", "not JSON"), ("record", "no JSON object"))
    assert json.loads((folder / "container.json").read_bytes())["Name"] == "ended"
    assert len(os.listdir(served.paths.damaged)) == 3


def test_what_belongs_to_no_container_goes(served: Engine) -> None:
    store = served.paths
    Path(store.containers, "a" * 64).mkdir()
    Path(store.containers, "b" * 64).mkdir()
    Path(store.containers, "b" * 64, "container.json").write_bytes(b"{torn")
    Path(store.containers, "stranger").mkdir()
    Path(str(served.record()["run"]), "s", "0123456789abcdef.sock").write_bytes(b"")
    Path(store.images, "index.json.999999999.ab.tmp").write_bytes(b"half")
    Path(store.images, "ingest", "999999999.abcd").write_bytes(b"half")
    Path(bundle(served, "ended"), "state.json.999999999.ab.tmp").write_bytes(b"half")
    Path(store.snapshots, "n", "4711").mkdir()
    Path(store.snapshots, "n", "4711", "file").write_bytes(b"x")
    mended(
        served,
        ("leftover", "a folder without a record"),
        ("container", "its record"),
        ("leftover", "no container's folder"),
        ("leftover", "no container's socket"),
        *[("leftover", "half written")] * 3,
        ("leftover", "a tree that belongs to nothing"),
    )
    assert {f"container-{'b' * 64}", "stranger"} <= set(os.listdir(store.damaged))


def test_a_name_that_two_have_is_given_to_one(served: Engine) -> None:
    other = "e" * 64
    Path(served.paths.containers, other).mkdir()
    record = json.loads((bundle(served, "ended") / "container.json").read_bytes())
    Path(served.paths.containers, other, "container.json").write_text(
        json.dumps({**record, "Id": other})
    )
    assert [(line["Kind"], line["Repaired"]) for line in check(served, repair=True)] == [
        ("container", True)
    ]
    assert [(line["Problem"], line["Automatic"]) for line in check(served)] == [
        ("what it has written is gone", False)
    ]
    assert served.inspect(other)["Name"] != "/ended"
    # It has no files, which nothing brings back.
    assert served.ask("DELETE", f"/containers/{other}").status == 204
    eventually(lambda: check(served) == [])


def test_layers_are_unpacked_again(served: Engine) -> None:
    load(served, "localhost/big:1")
    container = served.ask(
        "POST", "/containers/create", {"Image": "localhost/big:1", "Cmd": ["x"]}
    ).json()
    assert isinstance(container, dict)
    tree = tree_of_layer(served)
    tree.write_bytes(b"")
    mended(served, ("layer", "etc/file has 0 bytes, not 5000"))
    tree = tree_of_layer(served)
    tree.unlink()
    mended(served, ("layer", "etc/file is missing"))
    assert tree_of_layer(served).stat().st_size == 5000
    answer = served.ask("GET", f"/containers/{container['Id']}/archive?path=/etc/file")
    assert b"x" * 5000 in answer.body
    served.ask("DELETE", f"/containers/{container['Id']}")
    served.ask("DELETE", "/images/localhost/big:1")


def test_a_byte_that_has_changed_in_place_is_found_by_content(served: Engine) -> None:
    """As a bad disk does it: size and times are as they were."""
    load(served, "localhost/big:1")
    container = served.create("x", Image="localhost/big:1")
    assert check(served, content=True) == []
    tree = tree_of_layer(served)
    before = tree.stat()
    with tree.open("r+b") as file:
        file.seek(4321)
        file.write(b"y")
    os.utime(tree, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert check(served) == [], "names, sizes and links are right"
    problem = "etc/file has other bytes than in its archive"
    (found,) = check(served, content=True)
    assert (found["Kind"], found["Problem"], found["Repaired"]) == ("layer", problem, False)
    (found,) = check(served, repair=True, content=True)
    assert (found["Problem"], found["Repaired"]) == (problem, True)
    assert check(served, content=True) == []
    assert tree_of_layer(served).read_bytes() == BIG.encode()
    answer = served.ask("GET", f"/containers/{container}/archive?path=/etc/file")
    assert BIG.encode() in answer.body
    aside = [path.read_bytes() for path in Path(served.paths.damaged).glob("*/etc/file")]
    assert any(data[4321:4322] == b"y" for data in aside), "the damaged tree is set aside"
    served.ask("DELETE", f"/containers/{container}")
    served.ask("DELETE", "/images/localhost/big:1")


def test_blobs_are_held_against_their_digests(served: Engine) -> None:
    load(served, "localhost/big:1")
    inspected = served.ask("GET", "/images/localhost/big:1/json").json()
    assert isinstance(inspected, dict)
    layer = Path(served.paths.images, "blobs", "sha256", inspected["RootFS"]["Layers"][0][7:])
    data = bytearray(layer.read_bytes())
    data[700] ^= 1
    layer.write_bytes(data)
    kinds = [(line["Kind"], line["Automatic"]) for line in check(served)]
    assert kinds == [("blob", True), ("image", False)]
    assert [line["Repaired"] for line in check(served, repair=True)] == [True, False]
    assert [line["Kind"] for line in check(served)] == ["image"]
    load(served, "localhost/big:1")
    assert check(served) == []
    # A config that is damaged takes the image's name along, and nothing else.
    config = Path(served.paths.images, "blobs", "sha256", inspected["Id"][7:])
    config.write_bytes(b"{}")
    found = check(served, repair=True)
    assert [line["Kind"] for line in found[:2]] == ["blob", "image"]
    assert all(line["Repaired"] for line in found)
    assert check(served) == []
    assert served.ask("GET", "/images/localhost/big:1/json").status == 404
    assert served.ask("GET", "/images/dockpy.builtin/host/json").status == 200


def test_an_index_that_is_gone_is_written_again(served: Engine) -> None:
    load(served, "localhost/big:1")
    before = served.ask("GET", "/images/json").json()
    Path(served.paths.images, "index.json").write_bytes(b"{torn")
    Path(served.paths.images, "oci-layout").write_bytes(b"")
    found = check(served, repair=True)
    assert [(line["Kind"], line["Repaired"]) for line in found] == [("record", True)] * 2
    assert check(served) == []
    assert served.ask("GET", "/images/json").json() == before
    served.ask("DELETE", "/images/localhost/big:1")


def test_logs_are_cut_where_they_are_whole(served: Engine) -> None:
    index = bundle(served, "ended") / "log" / "0.index"
    data = bundle(served, "ended") / "log" / "0.data"
    with index.open("ab") as file:
        file.write(b"half a rec")
    with data.open("ab") as file:
        file.write(b"three without a record")
    mended(served, ("log", "within a record"))
    assert served.output("ended") == b"one\ntwo\n"
    data.write_bytes(b"one\n")
    mended(served, ("log", "4 bytes, and the index tells of 8"))
    assert served.output("ended") == b"one\n"


def test_beside_creates_and_removals_nothing_is_found(served: Engine) -> None:
    """And nothing of them is repaired away."""
    import threading

    over = threading.Event()
    trouble: list[object] = []

    def churn() -> None:
        while not over.is_set():
            container = served.create("true")
            served.ask("POST", f"/containers/{container}/start")
            if served.wait(container) != 0:
                trouble.append(container)
            served.ask("DELETE", f"/containers/{container}?force=1")
            load(served, "localhost/churn:1", layer=os.urandom(2000).hex())
            served.ask("DELETE", "/images/localhost/churn:1")

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert check(served, repair=True) == []
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert trouble == []
    eventually(lambda: check(served) == [])


def test_minutes_are_long_enough_for_any_writer() -> None:
    assert STALE >= 60
