"""Stores for the images room: real content, real trees. The overlay's are made without a mount."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dockpy.damaged import Shelf
from dockpy.images import archive
from dockpy.images.store import ImageStore
from dockpy.storage.content import ContentStore
from dockpy.storage.overlay import OverlaySnapshotter

Open = Callable[[Path], ImageStore]


def opened(folder: Path, *lenders: Path) -> ImageStore:
    """The store in `folder` as a daemon opens it at its start; with other stores to read."""
    folder.mkdir(exist_ok=True)
    snapshots = OverlaySnapshotter(str(folder / "snapshots"), real_owners=os.getuid() == 0)
    snapshots.borrow([str(lender / "snapshots") for lender in lenders])
    snapshots.recover()
    images = str(folder / "images")
    lent = [str(lender / "images") for lender in lenders]
    store = ImageStore(
        ContentStore(images, lent), snapshots, f"{images}/index.json", str(folder / "images.lock")
    )
    store.index.borrow(lent)
    store.recover(Shelf(f"{folder}/damaged"))
    return store


@pytest.fixture
def open_store() -> Open:
    return opened


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return opened(tmp_path / "store")


@pytest.fixture(params=["stream", "file"])
def load(store: ImageStore, request: pytest.FixtureRequest) -> Callable[[bytes], list[str]]:
    """Loads an archive that comes as a stream, and one that lies in a file."""

    def loading(data: bytes) -> list[str]:
        if request.param == "stream":
            return archive.load(store, io.BytesIO(data).read, lambda message: None)
        return load_lying(store, data)

    return loading


def load_lying(
    store: ImageStore, data: bytes, watch: Callable[[], None] = lambda: None
) -> list[str]:
    with tempfile.TemporaryFile() as file:
        file.write(b"passed over" + data)
        file.flush()
        file.seek(len(b"passed over"))
        return archive.load_file(store, file.fileno(), lambda message: None, watch=watch)


def in_tree(store: ImageStore, key: str, path: str) -> Path:
    """Where a file of an active tree is: in what was changed, else in the topmost layer that has
    it.
    """
    places = (store.snapshots.upper(key), *store.snapshots.layers(key))
    return next(Path(place, path) for place in places if Path(place, path).exists())


def is_empty(store: ImageStore) -> bool:
    """No image, no blob, no tree, nothing half done."""
    root = Path(store.content.root)
    left = [path for path in root.rglob("*") if path.is_file()]
    names = {path.name for path in left}
    return (
        not store.list()
        and names <= {"oci-layout", "index.json", "readers.lock"}
        and not store.snapshots.chains()
    )


def inside(root: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell line with `root` as its root directory, as root of a new user namespace."""
    line = ["unshare", "-r", "-m", "chroot", str(root), "/bin/sh", "-c", command]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    if subprocess.run([*line[:3], "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lacks user namespaces, or unshare")
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
