"""Another user's unpacked layers: their files' bytes are shown, and everything else is ours.

Each test's lender is a store of a user that the borrower's namespace has no id for; the borrower is root of a
namespace with one id, or the host's.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import socket
import tarfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from dockpy.errors import Unavailable
from dockpy.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare
from dockpy.linux.overlay import detached
from dockpy.oci.digest import ChainID, DiffID, chain_ids, digest_bytes
from dockpy.storage import twin
from dockpy.storage.check import tree_problem
from dockpy.storage.content import ContentStore
from dockpy.storage.overlay import OverlaySnapshotter
from dockpy.storage.recipes import Recipes
from dockpy.storage.snapshot import LayerSource
from dockpy.storage.twin import REDIRECT
from tests.storage.archives import Archive, reader
from tests.storage.test_snapshotters import inside

STRANGER = 12345
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives a store to another user: root may")

Layers = list[bytes]


def noise(seed: str, size: int = 50_000) -> bytes:
    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "big")


class Old(OverlaySnapshotter):
    """As before Linux 6.16: the probe says no."""

    def _can_twin(self, trees: str) -> bool:
        return False


def unpacked(store: OverlaySnapshotter, layers: Layers) -> ChainID:
    diff_ids = [DiffID(digest_bytes(layer)) for layer in layers]
    chains = chain_ids(diff_ids)
    steps = [
        (chain, LayerSource(lambda layer=layer: reader(layer), diff_id))  # type: ignore[misc]  # bound now
        for chain, layer, diff_id in zip(chains, layers, diff_ids)
    ]
    store.unpack_stack(None, steps)
    return chains[-1]


def lent(folder: Path, layers: Layers, *, real_owners: bool = True) -> str:
    """A store of the stranger's that has unpacked `layers`; its snapshots folder."""
    folder.mkdir()
    unpacked(OverlaySnapshotter(str(folder), real_owners=real_owners), layers)
    for path in (folder, *folder.rglob("*")):
        mode = path.lstat().st_mode
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(mode & 0o7777)
    folder.chmod(0o711)
    return str(folder)


@pytest.fixture(params=["single", "root"])
def within(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[], None]], None]:
    """Runs a function as the borrower, in a child; what it raises is a failure."""
    if not works_on_the_host(tmp_path):
        pytest.skip("this kernel shows no data layers beside user xattrs (Linux 6.16)")

    def run(body: Callable[[], None]) -> None:
        mine, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            try:
                if request.param == "single":
                    unshare(CLONE_NEWUSER | CLONE_NEWNS)
                    for name, value in (
                        ("setgroups", "deny"),
                        ("uid_map", "0 0 1"),
                        ("gid_map", "0 0 1"),
                    ):
                        Path("/proc/self", name).write_text(value)
                body()
            except BaseException:
                theirs.sendall(traceback.format_exc()[-20_000:].encode())
            finally:
                os._exit(0)
        theirs.close()
        with mine, mine.makefile("rb") as told:
            text = told.read().decode()
        os.waitpid(child, 0)
        if text:
            pytest.fail(text, pytrace=False)

    return run


def works_on_the_host(folder: Path) -> bool:
    (folder / "probe/lender").mkdir(parents=True)
    return twin.works(str(folder / "probe"), str(folder / "probe/lender"))


def mine(
    tmp_path: Path, *sites: str, kind: type[OverlaySnapshotter] = OverlaySnapshotter
) -> OverlaySnapshotter:
    """The borrower's store as a daemon opens it at its start."""
    folder = tmp_path / "mine"
    folder.mkdir(exist_ok=True)
    store = kind(str(folder), real_owners=not single())
    store.borrow(sites)
    store.recover()
    return store


def single() -> bool:
    """Whether we are root of a namespace with one id."""
    return Path("/proc/self/uid_map").read_text().split()[2] == "1"


def exported(store: OverlaySnapshotter, key: str) -> bytes:
    out = io.BytesIO()
    store.write_tree(key, out.write)
    return out.getvalue()


def size_of(store: OverlaySnapshotter, chain: ChainID, path: str) -> int:
    """What a file of a layer's own tree takes on the disk."""
    return os.stat(f"{store.chain_tree(chain).path}/{path}").st_blocks * 512


def all_kinds() -> Layers:
    first = Archive().folder("d", 0o2750, uid=5, gid=6).add("d/f", noise("f"), mode=0o4755, uid=33)
    first.hardlink("d/h", "d/f").symlink("s", "d/f").add("small", b"1" * 4096).add("empty")
    first.add("secret", noise("secret"), mode=0o600).folder("closed", 0o700).add(
        "closed/x", noise("x")
    )
    first.add("x", noise("1")).add("y", noise("y1")).folder("o").add("o/a", noise("a"))
    first.add("k", noise("k"), pax={"SCHILY.xattr.user.k": "v"}).add("p", type=tarfile.FIFOTYPE)
    first.folder("r").add("r/" + "n" * 200, noise("long")).add("zeros", bytes(100_000))
    second = (
        Archive()
        .add("x", noise("2"))
        .add(".wh.y")
        .folder("o")
        .add("o/.wh..wh..opq")
        .add("o/b", noise("b"))
    )
    third = (
        Archive().add("x", noise("3")).add("y", noise("y3")).folder("r").add("r/.wh." + "n" * 200)
    )
    return [first.done(), second.done(), third.done()]


def test_the_bytes_stay_where_they_are_and_all_else_is_ours(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    site = lent(tmp_path / "site", all_kinds())

    def body() -> None:
        store = mine(tmp_path, site)
        top = unpacked(store, all_kinds())
        first = store.chains()[0]
        assert not any(map(store.owns, store.chains()))
        assert size_of(store, first, "k") <= 4096 and size_of(store, first, "small") == 4096
        if single():  # the host's root reads everything
            assert all(size_of(store, first, name) >= 50_000 for name in ("secret", "d/f"))
        assert store.chain_usage(first).size - store.chain_takes(first) > 300_000
        store.prepare("c1", top)
        assert inside(store, "c1", "ls -d * o/*; ls r", tmp_path).split() == (
            "closed d empty k o o/b p r s secret small x y zeros".split()
        )
        script = "for name in x y d/f d/h o/b secret closed/x small; do sha256sum < $name; done"
        shown = [line.split()[0] for line in inside(store, "c1", script, tmp_path).splitlines()]
        wanted = [noise(seed) for seed in ("3", "y3", "f", "f", "b", "secret", "x")] + [b"1" * 4096]
        assert [f"sha256:{one}" for one in shown] == [digest_bytes(data) for data in wanted]

    within(body)


@pytest.mark.parametrize("real_owners", [True, False])
def test_what_is_exported_is_as_if_it_had_been_unpacked_here(
    tmp_path: Path, within: Callable[[Callable[[], None]], None], real_owners: bool
) -> None:
    site = lent(tmp_path / "site", all_kinds(), real_owners=real_owners)

    def body() -> None:
        store = mine(tmp_path, site)
        store.prepare("c1", unpacked(store, all_kinds()))
        (tmp_path / "other").mkdir()
        plain = mine(tmp_path / "other")
        plain.prepare("c1", unpacked(plain, all_kinds()))
        assert exported(store, "c1") == exported(plain, "c1")
        assert not list(store.changes("c1"))
        trees = [(store.chain_tree(chain), plain.chain_tree(chain)) for chain in store.chains()]
        for ours, theirs in trees:
            assert ours.data and not theirs.data
            assert ours.table.items() == theirs.table.items()

    within(body)


def test_lent_files_are_changed_here_and_committed(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    site = lent(tmp_path / "site", all_kinds())
    before = {path: path.read_bytes() for path in Path(site).rglob("n/*/*") if path.is_file()}

    def body() -> None:
        store = mine(tmp_path, site)
        top = unpacked(store, all_kinds())
        store.prepare("c1", top)
        script = "echo more >> x; mv d/f d/g; chmod 700 y; rm k; ln o/b o/c; rm -r r; mkdir r; cat x d/g y o/c > all"
        inside(store, "c1", script, tmp_path)
        data = noise("3") + b"more\n" + noise("f") + noise("y3") + noise("b")
        assert inside(store, "c1", "sha256sum < all", tmp_path)[:64] == digest_bytes(data)[7:]
        kinds = {(change.kind, change.path) for change in store.changes("c1")}
        assert {("C", b"/x"), ("A", b"/d/g"), ("D", b"/d/f"), ("C", b"/y"), ("D", b"/k")} <= kinds
        layer = io.BytesIO()
        store.write_layer("c1", layer.write)
        above = unpacked(store, [*all_kinds(), layer.getvalue()])
        assert store.owns(above)
        store.prepare("c2", above)
        script = "sha256sum < all; tail -c 5 x; test ! -e d/f; sha256sum < d/h; ls r"
        shown = inside(store, "c2", script, tmp_path).split()
        assert shown[:4] == [digest_bytes(data)[7:], "-", "more", digest_bytes(noise("f"))[7:]]

    within(body)
    assert before == {path: path.read_bytes() for path in before}


def test_one_layer_needs_no_merging_and_what_is_merged_goes_with_its_layer(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    site = lent(tmp_path / "site", all_kinds())

    def body() -> None:
        store = mine(tmp_path, site)
        first = unpacked(store, all_kinds()[:1])
        above = unpacked(store, [all_kinds()[0], Archive().add("own", b"o").done()])
        store.prepare("c1", above)
        assert inside(store, "c1", "cat own; wc -c < x", tmp_path) == "o50000\n"
        assert os.listdir(tmp_path / "mine/m") == []
        top = unpacked(store, all_kinds())
        for key in ("c2", "c3"):
            store.prepare(key, top)
        assert len(os.listdir(tmp_path / "mine/m")) == 1
        (tmp_path / "mine/m/77.0123456789abcdef/d").mkdir(parents=True)
        (tmp_path / "mine/m/3.0123456789abcdef.99.tmp").mkdir()
        again = mine(tmp_path, site)
        assert len(os.listdir(tmp_path / "mine/m")) == 1
        assert inside(again, "c3", "sha256sum < x", tmp_path)[:64] == digest_bytes(noise("3"))[7:]
        for key in ("c1", "c2", "c3"):
            again.remove(key)
        for chain in reversed(chain_ids([DiffID(digest_bytes(one)) for one in all_kinds()])):
            if chain != first:
                again.drop(chain)
        assert os.listdir(tmp_path / "mine/m") == []

    within(body)


@pytest.mark.parametrize(
    "what", ["bytes", "size", "fifo", "link", "folder's link", "gone", "unreadable"]
)
def test_what_the_lender_has_otherwise_is_written(
    tmp_path: Path, within: Callable[[Callable[[], None]], None], what: str
) -> None:
    layers = [Archive().folder("d").add("d/f", noise("f")).add("g", noise("g")).done()]
    site = lent(tmp_path / "site", layers)
    place = Path(site, "n/1/d/f")
    if what == "bytes":
        place.write_bytes(noise("f")[:-1] + b"?")
    elif what == "unreadable":
        place.chmod(0o600)
    elif what == "folder's link":
        os.rename(place.parent, tmp_path / "d")
        place.parent.symlink_to(tmp_path / "d")
    else:
        place.unlink()
        if what == "size":
            place.write_bytes(noise("f") + b"?")
        elif what == "fifo":
            os.mkfifo(place)
        elif what == "link":
            (tmp_path / "f").write_bytes(noise("f"))
            place.symlink_to(tmp_path / "f")

    def body() -> None:
        if what == "unreadable" and not single():
            return
        store = mine(tmp_path, site)
        (chain,) = (unpacked(store, layers),)
        assert size_of(store, chain, "d/f") >= 50_000 and size_of(store, chain, "g") <= 4096
        assert Path(store.chain_tree(chain).path, "d/f").read_bytes() == noise("f")
        store.prepare("c1", chain)
        script = "sha256sum < d/f; sha256sum < g"
        told = inside(store, "c1", script, tmp_path).split()
        assert told[0] == digest_bytes(noise("f"))[7:] and told[2] == digest_bytes(noise("g"))[7:]

    within(body)


def test_a_name_that_the_archive_has_twice_is_not_mixed_up(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    """The link is one to the first `f`, which the lender's tree has under that name only."""
    layers = [Archive().add("f", noise("1")).hardlink("h", "f").add("f", noise("2")).done()]
    site = lent(tmp_path / "site", layers)

    def body() -> None:
        store = mine(tmp_path, site)
        store.prepare("c1", unpacked(store, layers))
        told = inside(store, "c1", "sha256sum < h; sha256sum < f", tmp_path).split()
        assert told[0] == digest_bytes(noise("1"))[7:] and told[2] == digest_bytes(noise("2"))[7:]

    within(body)


def test_a_lender_that_has_gone_is_told_and_its_layers_are_unpacked_again(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    site = lent(tmp_path / "site", all_kinds())

    def body() -> None:
        store = mine(tmp_path, site)
        top = unpacked(store, all_kinds())
        store.prepare("c1", top)
        whole = exported(store, "c1")
        for again in (store, mine(tmp_path, site)):
            os.rename(site, f"{site}.moved") if os.path.exists(site) else None
            assert not again.has(top) and not again.whole("c1")
            with pytest.raises(
                Unavailable, match=rf"lies in another store, where {site}/n/\d is gone"
            ):
                again.mounts("c1")
            with pytest.raises(Unavailable, match="is gone"):
                again.prepare("c2", top)
            with pytest.raises(Unavailable, match="is not as it was"):
                exported(again, "c1")
        unpacked(again, all_kinds())
        assert again.has(top) and all(map(again.owns, again.chains()))
        assert exported(again, "c1") == whole
        assert inside(again, "c1", "sha256sum < x", tmp_path)[:64] == digest_bytes(noise("3"))[7:]

    within(body)


def test_a_link_put_in_the_lenders_place_leads_nowhere(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    layers = [Archive().add("f", noise("f")).done()]
    site = lent(tmp_path / "site", layers)
    Path(site, "n/1").chmod(0o777)  # the lender's part is played here, too

    def body() -> None:
        store = mine(tmp_path, site)
        store.prepare("c1", unpacked(store, layers))
        (one,) = store.mounts("c1")
        (tmp_path / "private/n/1").mkdir(parents=True)
        (tmp_path / "private/n/1/f").write_bytes(noise("private"))
        os.rename(site, f"{site}.moved")
        os.symlink(tmp_path / "private", site)
        with pytest.raises(OSError, match="symbolic links"):
            detached(one.options)
        with pytest.raises(Unavailable, match="is not as it was"):
            exported(store, "c1")
        os.unlink(site)
        os.rename(f"{site}.moved", site)
        os.unlink(f"{site}/n/1/f")
        os.symlink(tmp_path / "private/n/1/f", f"{site}/n/1/f")
        assert "cannot open" in inside(store, "c1", "sha256sum < f 2>&1 || true", tmp_path)

    within(body)


def test_a_kernel_that_cannot_gets_them_unpacked(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    site = lent(tmp_path / "site", all_kinds())

    def body() -> None:
        store = mine(tmp_path, site, kind=Old)
        top = unpacked(store, all_kinds())
        assert all(map(store.owns, store.chains()))
        store.prepare("c1", top)
        whole = exported(store, "c1")
        shutil.rmtree(tmp_path / "mine")

        newer = mine(tmp_path, site)
        newer.prepare("c1", unpacked(newer, all_kinds()))
        older = mine(tmp_path, site, kind=Old)
        with pytest.raises(Unavailable, match="cannot be shown by this kernel"):
            older.mounts("c1")
        unpacked(older, all_kinds())
        assert all(map(older.owns, older.chains())) and exported(older, "c1") == whole
        assert inside(older, "c1", "sha256sum < x", tmp_path)[:64] == digest_bytes(noise("3"))[7:]

    within(body)


def test_the_probe_is_of_the_lenders_folder_too(tmp_path: Path) -> None:
    if not works_on_the_host(tmp_path):
        pytest.skip("this kernel shows no data layers beside user xattrs (Linux 6.16)")
    assert not twin.works(str(tmp_path), str(tmp_path / "nowhere"))
    (tmp_path / "link").symlink_to(tmp_path / "probe")
    assert not twin.works(str(tmp_path), str(tmp_path / "link/lender"))
    assert os.listdir(tmp_path / "probe") == ["lender"]


def test_a_stack_has_the_bytes_of_one_lender(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    """The kernel looks for a path in all data layers: the other lender's number 1 is another layer."""
    layers = [Archive().add("f", noise(name)).done() for name in "abc"]
    one = lent(tmp_path / "one", layers[:1])
    two = lent(tmp_path / "two", [layers[2]])
    os.rename(f"{one}/chains", f"{one}/kept")
    wanted = chain_ids([DiffID(digest_bytes(layer)) for layer in layers])
    both = lent(tmp_path / "both", layers)
    for place, chain in ((one, wanted[0]), (two, wanted[2])):
        os.makedirs(f"{place}/chains", exist_ok=True)
        record = Path(both, "chains", chain.partition(":")[2]).read_text()
        number = record.partition('"number": ')[2].partition(",")[0]
        record = record.replace(f'"number": {number}', '"number": 1')
        Path(place, "chains", chain.partition(":")[2]).write_text(record)

    def body() -> None:
        store = mine(tmp_path, one, two)
        store.prepare("c1", unpacked(store, layers))
        assert [store.owns(chain) for chain in wanted] == [False, True, True]
        assert inside(store, "c1", "sha256sum < f", tmp_path)[:64] == digest_bytes(noise("c"))[7:]
        first = unpacked(store, layers[:1])
        store.prepare("c2", first)
        assert inside(store, "c2", "sha256sum < f", tmp_path)[:64] == digest_bytes(noise("a"))[7:]

    within(body)


def test_twins_are_borrowed_by_the_same_user_and_lent_to_nobody_else(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    site = lent(tmp_path / "site", all_kinds())

    def body() -> None:
        store = mine(tmp_path, site)
        top = unpacked(store, all_kinds())
        (tmp_path / "job").mkdir()
        job = mine(tmp_path / "job", str(tmp_path / "mine"))
        unpacked(job, all_kinds())
        assert not any(map(job.owns, job.chains()))
        assert all(job.chain_takes(chain) == 0 for chain in job.chains())
        job.prepare("c1", top)
        store.prepare("c1", top)
        assert exported(job, "c1") == exported(store, "c1")
        assert inside(job, "c1", "sha256sum < x", tmp_path)[:64] == digest_bytes(noise("3"))[7:]
        from dockpy.storage.lender import Lender

        assert Lender(site).foreign_tree(top)
        assert not Lender(str(tmp_path / "mine")).foreign_tree(top)

    within(body)


def test_the_check_and_the_recipes_read_through_them(
    tmp_path: Path, within: Callable[[Callable[[], None]], None]
) -> None:
    layers = [Archive().folder("d").add("d/f", noise("f")).add("g", noise("g")).done()]
    site = lent(tmp_path / "site", layers)
    Path(site, "n/1/d").chmod(0o777)  # the lender's part is played here, too
    diff_id = DiffID(digest_bytes(layers[0]))

    def body() -> None:
        store = mine(tmp_path, site)
        chain = unpacked(store, layers)
        tree = store.chain_tree(chain)
        assert tree_problem(reader(layers[0]), tree, content=True) == ""
        recipes = Recipes(ContentStore(str(tmp_path / "images")))
        assert recipes.write(diff_id, reader(layers[0]), f"{site}/n/1")
        read, made = recipes.open(diff_id, tree), io.BytesIO()
        while piece := read(1 << 16):
            made.write(piece)
        assert made.getvalue() == layers[0]
        store.prepare("c1", chain)
        os.unlink(f"{site}/n/1/d/f")
        Path(site, "n/1/d/f").write_bytes(noise("other"))
        told = tree_problem(reader(layers[0]), tree, content=True)
        assert told == "d/f has other bytes than in its archive"
        os.unlink(f"{site}/n/1/d/f")
        assert "d/f is not there any more" in tree_problem(reader(layers[0]), tree)
        store.remake(chain, LayerSource(lambda: reader(layers[0]), diff_id))
        assert store.owns(chain)
        assert inside(store, "c1", "sha256sum < d/f", tmp_path)[:64] == digest_bytes(noise("f"))[7:]

    within(body)


def test_an_archive_cannot_forge_the_marks(tmp_path: Path) -> None:
    forged = {f"SCHILY.xattr.{name}": "/1/etc/shadow" for name in (REDIRECT, twin.METACOPY)}
    (tmp_path / "s").mkdir()
    store = OverlaySnapshotter(str(tmp_path / "s"), real_owners=True)
    chain = unpacked(store, [Archive().add("f", b"x" * 9000, pax=forged).done()])
    assert os.listxattr(f"{store.chain_tree(chain).path}/f") == []


def test_whoever_is_let_in_reads_layers_and_nothing_that_containers_write(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir(0o700)
    folder.chmod(0o777)
    store = OverlaySnapshotter(str(folder), real_owners=True)
    assert folder.stat().st_mode & 0o777 == 0o711, "made by somebody else's umask"
    store.prepare("c1", unpacked(store, all_kinds()))
    place = Path(store.upper("c1")).parent
    assert place.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o004 for path in (folder / "chains").iterdir())
    place.chmod(0o755)  # as an older build has made it
    folder.chmod(0o700)
    OverlaySnapshotter(str(folder), real_owners=True).recover()
    assert folder.stat().st_mode & 0o777 == 0o700 and place.stat().st_mode & 0o777 == 0o700
