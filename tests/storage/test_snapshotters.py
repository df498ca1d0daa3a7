"""One suite for the snapshotter's contract, for every driver that this host can run; again in a user namespace."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockpy.errors import Conflict, InvalidParameter, NotFound
from dockpy.linux.mounts import MS_BIND, MS_PRIVATE, MS_REC, mount, move_mount
from dockpy.linux.namespaces import CLONE_NEWNS, unshare
from dockpy.linux.overlay import LOWER, detached
from dockpy.oci.digest import ChainID, DiffID, chain_ids
from dockpy.oci.spec import Mount
from dockpy.storage import fuse, overlay
from dockpy.storage.copy import CopySnapshotter
from dockpy.storage.fuse import FuseSnapshotter
from dockpy.storage.overlay import OverlaySnapshotter
from dockpy.storage.snapshot import LayerSource, Snapshotter
from tests.storage.archives import Archive, reader

INSIDE = os.environ.get("DOCKPY_TEST_IN_USERNS") == "1"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs a user namespace: runs there by way of the test at the end"
)


def make_overlay(root: Path) -> Snapshotter:
    root.mkdir(exist_ok=True)
    if not overlay.works(str(root), userxattr=True):
        pytest.skip("this kernel mounts no overlay with userxattr here (Linux 5.11)")
    return OverlaySnapshotter(str(root), real_owners=not INSIDE)


def make_copy(root: Path) -> Snapshotter:
    return CopySnapshotter(str(root), real_owners=not INSIDE)


def make_fuse(root: Path) -> Snapshotter:
    root.mkdir(exist_ok=True)
    if not fuse.works(str(root)):
        pytest.skip("fuse-overlayfs is not installed, or /dev/fuse cannot be opened")
    return FuseSnapshotter(str(root), real_owners=not INSIDE)


DRIVERS: dict[str, Callable[[Path], Snapshotter]] = {
    "overlay": make_overlay,
    "copy": make_copy,
    "fuse": make_fuse,
}


@pytest.fixture(params=sorted(DRIVERS))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Snapshotter]:
    return lambda: DRIVERS[request.param](tmp_path / "s")


@pytest.fixture
def snapshots(make: Callable[[], Snapshotter]) -> Iterator[Snapshotter]:
    store = make()
    yield store
    for key in list(store.keys()):
        store.remove(key)


class Stack:
    """Layers unpacked one on the other."""

    def __init__(self, snapshots: Snapshotter) -> None:
        self.snapshots = snapshots
        self.diff_ids: list[DiffID] = []

    def add(self, archive: bytes) -> ChainID:
        self.diff_ids.append(DiffID("sha256:" + hashlib.sha256(archive).hexdigest()))
        chain = chain_ids(self.diff_ids)
        parent = chain[-2] if len(chain) > 1 else None
        source = LayerSource(lambda: reader(archive), self.diff_ids[-1])
        self.snapshots.unpack(chain[-1], parent, source)
        return chain[-1]


def attach(one: Mount, target: str) -> None:
    """What the runtime does with the Mount, in a mount namespace of its own."""
    if one.type == "overlay":
        if any(option.startswith(LOWER) for option in one.options):
            move_mount(detached(one.options), os.open(target, os.O_PATH))
        else:
            mount(one.source, target, "overlay", 0, ",".join(one.options))
    else:
        mount(one.source, target, None, MS_BIND | MS_REC)


def inside(snapshots: Snapshotter, key: str, script: str, tmp: Path) -> str:
    """Runs a shell script with the active tree as its current directory; what it printed."""
    target = tmp / "rootfs"
    target.mkdir(exist_ok=True)
    (one,) = snapshots.mounts(key)
    assert one.destination == "/"
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            unshare(CLONE_NEWNS)
            mount(None, "/", None, MS_REC | MS_PRIVATE)
            attach(one, str(target))
            os.chdir(target)
            os.dup2(into, 1)
            os.dup2(into, 2)
            os.execvp("sh", ["sh", "-ec", script])
        except BaseException as error:
            os.write(into, repr(error).encode())
        finally:
            os._exit(99)
    os.close(into)
    with open(out, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, text
    return text


def test_layers_lie_on_each_other(snapshots: Snapshotter, tmp_path: Path) -> None:
    stack = Stack(snapshots)
    stack.add(Archive().folder("d").add("d/a", b"one").add("d/b", b"one").add("gone", b"x").done())
    top = stack.add(Archive().add("d/a", b"two").add(".wh.gone").add("d/.wh.b").done())
    snapshots.prepare("c1", top)
    assert inside(snapshots, "c1", "cat d/a; ls d; test ! -e gone", tmp_path) == "twoa\n"
    assert snapshots.parent_of("c1") == top
    assert len(snapshots.layers("c1")) in (0, 2)


def test_an_opaque_directory_hides_what_is_below(snapshots: Snapshotter, tmp_path: Path) -> None:
    stack = Stack(snapshots)
    stack.add(Archive().folder("d").add("d/a").add("d/b").done())
    top = stack.add(Archive().add("d/.wh..wh..opq").add("d/c").done())
    snapshots.prepare("c1", top)
    assert inside(snapshots, "c1", "ls d", tmp_path) == "c\n"


def test_an_opaque_root_hides_everything_below(snapshots: Snapshotter, tmp_path: Path) -> None:
    stack = Stack(snapshots)
    stack.add(Archive().add("a").done())
    top = stack.add(Archive().add(".wh..wh..opq").add("b").done())
    snapshots.prepare("c1", top)
    assert inside(snapshots, "c1", "ls", tmp_path) == "b\n"


def test_a_file_and_a_directory_take_each_others_place(
    snapshots: Snapshotter, tmp_path: Path
) -> None:
    stack = Stack(snapshots)
    stack.add(Archive().folder("d").add("d/a").add("f").done())
    top = stack.add(Archive().add("d", b"file").add(".wh.f").folder("f").add("f/x").done())
    snapshots.prepare("c1", top)
    assert inside(snapshots, "c1", "cat d; ls f", tmp_path) == "filex\n"


def test_what_one_container_writes_no_other_sees(snapshots: Snapshotter, tmp_path: Path) -> None:
    top = Stack(snapshots).add(Archive().add("a", b"image").add("b").done())
    snapshots.prepare("c1", top)
    snapshots.prepare("c2", top)
    inside(snapshots, "c1", "echo mine > a; rm b; mkdir n; echo 1 > n/f", tmp_path)
    assert inside(snapshots, "c1", "cat a; ls", tmp_path) == "mine\na\nn\n"
    assert inside(snapshots, "c2", "cat a; ls", tmp_path) == "imagea\nb\n"
    assert snapshots.usage("c1").inodes >= snapshots.usage("c2").inodes
    snapshots.remove("c1")
    assert snapshots.keys() == ("c2",)
    with pytest.raises(NotFound):
        snapshots.mounts("c1")


def test_a_container_without_layers_is_empty_and_writable(
    snapshots: Snapshotter, tmp_path: Path
) -> None:
    snapshots.prepare("c1", None)
    assert inside(snapshots, "c1", "ls -A; echo x > f; cat f", tmp_path) == "x\n"


def test_the_root_has_the_mode_the_image_gave_it(snapshots: Snapshotter, tmp_path: Path) -> None:
    stack = Stack(snapshots)
    stack.add(Archive().folder("./", mode=0o1777).add("a").done())
    top = stack.add(Archive().add("b").done())
    snapshots.prepare("c1", top)
    assert inside(snapshots, "c1", "stat -c %a .", tmp_path) == "1777\n"


def test_a_directory_not_described_keeps_the_lower_ones_mode(
    snapshots: Snapshotter, tmp_path: Path
) -> None:
    stack = Stack(snapshots)
    stack.add(Archive().folder("t", mode=0o1770).done())
    top = stack.add(Archive().add("t/f").done())
    snapshots.prepare("c1", top)
    assert inside(snapshots, "c1", "stat -c %a t", tmp_path) == "1770\n"


def test_unpacking_twice_reads_once(snapshots: Snapshotter) -> None:
    stack = Stack(snapshots)
    chain = stack.add(Archive().add("a", b"12345").done())

    def never(size: int) -> bytes:
        raise AssertionError("read again")

    usage = snapshots.unpack(chain, None, LayerSource(lambda: never))
    assert usage == snapshots.chain_usage(chain)
    assert usage.size == 5
    assert snapshots.has(chain)
    assert snapshots.chains() == (chain,)


def test_a_bad_layer_leaves_nothing(snapshots: Snapshotter, tmp_path: Path) -> None:
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    good = Archive().add("a", b"x" * 10000).done()
    wrong = LayerSource(lambda: reader(good), DiffID("sha256:" + "0" * 64))
    chain = ChainID("sha256:" + "1" * 64)
    for source in (
        wrong,
        LayerSource(lambda: reader(good[:4000])),
        LayerSource(lambda: reader(b"x" * 600)),
    ):
        with pytest.raises(InvalidParameter):
            snapshots.unpack(chain, None, source)
    assert not snapshots.has(chain)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_what_is_in_use_is_not_dropped(snapshots: Snapshotter) -> None:
    stack = Stack(snapshots)
    bottom = stack.add(Archive().add("a").done())
    top = stack.add(Archive().add("b").done())
    snapshots.prepare("c1", top)
    for chain in (bottom, top):
        with pytest.raises(Conflict):
            snapshots.drop(chain)
    with pytest.raises(Conflict):
        snapshots.prepare("c1", top)
    snapshots.remove("c1")
    snapshots.drop(top)
    snapshots.drop(bottom)
    snapshots.drop(bottom)
    assert snapshots.chains() == ()


def test_what_was_there_is_there_after_a_restart(
    make: Callable[[], Snapshotter], tmp_path: Path
) -> None:
    first = make()
    top = Stack(first).add(Archive().add("a", b"kept").done())
    first.prepare("c1", top)
    inside(first, "c1", "echo w > w", tmp_path)
    again = make()
    again.recover()
    assert again.chains() == (top,)
    assert again.keys() == ("c1",)
    assert inside(again, "c1", "cat a w", tmp_path) == "keptw\n"
    again.prepare("c2", top)
    again.remove("c1")
    again.remove("c2")


def test_half_done_work_is_removed_at_recover(
    make: Callable[[], Snapshotter], tmp_path: Path
) -> None:
    store = make()
    top = Stack(store).add(Archive().add("a").done())
    root = tmp_path / "s"
    (root / "n" / "77" / "u" / "deep").mkdir(parents=True)
    (root / "o" / "77").write_text("")
    (root / "chains" / "x.1.tmp").write_text("{")
    (root / "try.5" / "u").mkdir(parents=True)
    again = make()
    again.recover()
    assert again.chains() == (top,)
    assert not (root / "n" / "77").exists()
    assert not (root / "o" / "77").exists()
    assert not (root / "chains" / "x.1.tmp").exists()
    assert not (root / "try.5").exists()


def test_two_threads_unpack_one_layer_once(snapshots: Snapshotter) -> None:
    archive = Archive().add("a", b"x" * 100_000).done()
    diff = DiffID("sha256:" + hashlib.sha256(archive).hexdigest())
    opened: list[int] = []

    def source() -> Callable[[int], bytes]:
        opened.append(1)
        return reader(archive)

    (chain,) = chain_ids((diff,))
    threads = [
        threading.Thread(target=snapshots.unpack, args=(chain, None, LayerSource(source, diff)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert snapshots.chains() == (chain,)


def test_a_hundred_and_twenty_seven_layers_mount(snapshots: Snapshotter, tmp_path: Path) -> None:
    stack = Stack(snapshots)
    for number in range(127):
        top = stack.add(
            Archive().add(f"f{number}", b"%d" % number).add("same", b"%d" % number).done()
        )
    snapshots.prepare("c1", top)
    assert inside(snapshots, "c1", "ls | wc -l; cat same", tmp_path) == "128\n126"


def test_changes_make_the_layer_that_makes_them_again(
    snapshots: Snapshotter, tmp_path: Path
) -> None:
    stack = Stack(snapshots)
    base = (
        Archive().folder("d").add("d/a", b"1").add("d/b", b"2").add("gone").folder("o").add("o/x")
    )
    top = stack.add(base.done())
    snapshots.prepare("c1", top)
    script = "echo new > d/a; rm gone d/b; rm -r o; mkdir o; echo y > o/y; ln -s a d/s; ln d/a d/h"
    inside(snapshots, "c1", script, tmp_path)
    told = {(change.kind, change.path) for change in snapshots.changes("c1")}
    assert told == {
        ("C", b"/d"), ("C", b"/d/a"), ("D", b"/d/b"), ("A", b"/d/h"), ("A", b"/d/s"), ("D", b"/gone"),
        ("C", b"/o"), ("D", b"/o/x"), ("A", b"/o/y"),
    }  # fmt: skip
    layer = io.BytesIO()
    snapshots.write_layer("c1", layer.write)
    snapshots.prepare("c2", stack.add(layer.getvalue()))
    whole = []
    for key in ("c1", "c2"):
        output = io.BytesIO()
        snapshots.write_tree(key, output.write)
        whole.append(output.getvalue())
    assert whole[0] == whole[1]
    assert (
        inside(snapshots, "c2", "cat d/h o/y; ls d o", tmp_path) == "new\ny\nd:\na\nh\ns\n\no:\ny\n"
    )


def test_a_store_may_have_colons_and_commas_in_its_path(tmp_path: Path) -> None:
    store = make_overlay(tmp_path / "a:b,c\\d e")
    stack = Stack(store)
    stack.add(Archive().add("a", b"1").done())
    store.prepare("c1", stack.add(Archive().add("b", b"2").done()))
    assert inside(store, "c1", "cat a b", tmp_path) == "12"


def test_bad_keys_are_refused(snapshots: Snapshotter) -> None:
    for key in ("", "../x", "a/b", "."):
        with pytest.raises(InvalidParameter):
            snapshots.prepare(key, None)
    with pytest.raises(NotFound):
        snapshots.prepare("c1", ChainID("sha256:" + "2" * 64))


@pytest.mark.skipif(INSIDE, reason="is the outer half")
def test_the_suite_passes_in_a_user_namespace_with_one_id(tmp_path: Path) -> None:
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "pytest", "-q",
         "-p", "no:cacheprovider", f"--basetemp={tmp_path}/in", __file__],
        env={**os.environ, "DOCKPY_TEST_IN_USERNS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout.decode()[-3000:]
