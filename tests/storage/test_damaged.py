"""Records of trees that cannot be read, and layers that are made again beneath a container."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from dockpy.errors import Unavailable
from dockpy.oci.digest import ChainID, DiffID, chain_ids
from dockpy.paths import Paths
from dockpy.storage.choose import choose
from dockpy.storage.overlay import OverlaySnapshotter
from dockpy.storage.owners import load_table
from dockpy.storage.snapshot import LayerSource
from tests.storage.archives import Archive, reader

LAYERS = (Archive().add("one", b"1").done(), Archive().add("two", b"2").done())
CHAINS = chain_ids([DiffID("sha256:" + hashlib.sha256(layer).hexdigest()) for layer in LAYERS])


OTHERS: tuple[object, ...] = ("x", [], 0.5)


def opened(folder: Path) -> OverlaySnapshotter:
    snapshots = OverlaySnapshotter(str(folder / "s"), real_owners=False, damaged=str(folder / "d"))
    snapshots.recover()
    return snapshots


def unpacked(snapshots: OverlaySnapshotter) -> OverlaySnapshotter:
    sources = [LayerSource(lambda data=data: reader(data)) for data in LAYERS]  # type: ignore[misc]  # a default binds
    snapshots.unpack_stack(None, list(zip(CHAINS, sources)))
    return snapshots


def record(folder: Path, chain: ChainID) -> Path:
    return folder / "s" / "chains" / chain.partition(":")[2]


def damages(data: bytes) -> list[bytes]:
    raw = json.loads(data)
    types = [{**raw, key: other} for key in raw for other in OTHERS]
    return [
        *(data[: len(data) * eighths // 8] for eighths in range(8)),
        b"[]",
        b"\xff" * 50,
        bytes(len(data)),
        b"[" * 100_000,
        *(json.dumps(one).encode() for one in types),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_a_layer_with_a_damaged_record_is_unpacked_again(tmp_path: Path, which: int) -> None:
    """Beneath the same container; the tree that may be in use is set aside, not removed."""
    snapshots = unpacked(opened(tmp_path))
    snapshots.prepare("c", CHAINS[1])
    (Path(snapshots.upper("c")) / "mine").write_bytes(b"3")
    for number, content in enumerate(damages(record(tmp_path, CHAINS[which]).read_bytes())):
        record(tmp_path, CHAINS[which]).write_bytes(content)
        again = opened(tmp_path)
        assert not again.has(CHAINS[1])
        assert not again.whole("c")
        assert (
            len([name for name in os.listdir(tmp_path / "d") if name.startswith("tree")])
            == number + 1
        )
        unpacked(again)
        again.rebase("c", CHAINS[1])
        last = opened(tmp_path)
        assert last.whole("c")
        assert [sorted(os.listdir(tree)) for tree in last.layers("c")] == [["two"], ["one"]]
        assert os.listdir(last.upper("c")) == ["mine"]


@pytest.mark.parametrize("target", ["", "1", "x.1", "1.x", "1.", "0.1", "-1.2", "²", "a file"])
def test_a_container_with_a_damaged_link_is_alone_without_files(
    tmp_path: Path, target: str
) -> None:
    snapshots = unpacked(opened(tmp_path))
    for key in ("bad", "good"):
        snapshots.prepare(key, CHAINS[1])
    tree = os.path.dirname(snapshots.upper("bad"))
    link = tmp_path / "s" / "active" / "bad"
    link.unlink()
    if target in ("", "a file"):
        link.write_bytes(b"1.2")
    else:
        link.symlink_to(target)
    again = opened(tmp_path)
    assert again.keys() == ("good",)
    assert again.whole("good")
    assert sorted(os.listdir(tmp_path / "d")) == ["active-bad", f"tree-{os.path.basename(tree)}"]


def test_a_rebase_that_was_cut_leaves_nothing(tmp_path: Path) -> None:
    snapshots = unpacked(opened(tmp_path))
    snapshots.prepare("c", CHAINS[1])
    (tmp_path / "s" / "active" / "c.tmp").symlink_to("3.9")
    assert opened(tmp_path).keys() == ("c",)
    assert os.listdir(tmp_path / "s" / "active") == ["c"]


@pytest.mark.parametrize("content", [b"", b"over", b"\xff\xfe", b"\0" * 7])
def test_the_driver_is_chosen_again_when_its_record_is_damaged(
    tmp_path: Path, content: bytes
) -> None:
    paths = Paths(str(tmp_path))
    before = choose(paths, "single")
    before.prepare("c", None)
    (tmp_path / "snapshots" / "driver").write_bytes(content)
    again = choose(paths, "single")
    assert (type(again), again.keys()) == (type(before), ("c",))
    assert os.listdir(paths.damaged) == ["driver"]


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b'["a", 0, "x", 0, "f", 0, 0]', b"[" * 100_000, b"\xff"]
)
def test_a_damaged_table_of_owners_is_told(tmp_path: Path, line: bytes) -> None:
    table = tmp_path / "7"
    table.write_bytes(line)
    with pytest.raises(Unavailable, match="is damaged"):
        load_table(str(table))
