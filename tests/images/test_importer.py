"""dockpy/images/importer.py: a root file system becomes an image."""

from __future__ import annotations

import gzip
import io

import pytest

from dockpy.errors import InvalidParameter
from dockpy.images.importer import import_rootfs
from dockpy.images.store import ImageStore
from dockpy.oci.platform import host_platform, parse_platform
from tests.images.archives import sha256, tar_of
from tests.images.conftest import is_empty
from tests.images.test_archive import content

ROOTFS = tar_of([("etc", None), ("etc/file", b"imported")])


def test_import(store: ImageStore) -> None:
    made = import_rootfs(store, io.BytesIO(ROOTFS).read, "a", "v1", ["CMD x", "ENV A=b"], "by hand")
    assert made.repo_tags == ("a:v1",)
    assert made.config.diff_ids == (sha256(ROOTFS),)
    assert made.config.config.cmd == ("/bin/sh", "-c", "x")
    assert made.config.platform == host_platform()
    assert store.history(made)[0]["Comment"] == "by hand"
    assert store.inspect(made)["Comment"] == "by hand"
    assert content(store, "a:v1") == "imported"


def test_a_compressed_one_has_the_diff_id_of_the_plain_one(store: ImageStore) -> None:
    made = import_rootfs(store, io.BytesIO(gzip.compress(ROOTFS)).read, "a")
    assert made.config.diff_ids == (sha256(ROOTFS),)
    assert made.repo_tags == ("a:latest",)
    assert store.history(made)[0]["Comment"] == "Imported from -"


def test_without_a_name_for_another_platform(store: ImageStore) -> None:
    platform = parse_platform("linux/arm64")
    made = import_rootfs(store, io.BytesIO(ROOTFS).read, platform=platform)
    assert made.repo_tags == ()
    assert store.resolve(made.id).config.platform.architecture == "arm64"


def test_an_empty_root_is_an_image_too(store: ImageStore) -> None:
    assert import_rootfs(store, io.BytesIO(tar_of([])).read, "scratchy").repo_tags


@pytest.mark.parametrize(
    ("data", "repo", "tag", "changes"),
    [
        (b"not a tar" * 100, "a", "", []),
        (ROOTFS[:1000], "a", "", []),
        (gzip.compress(ROOTFS)[:-9], "a", "", []),
        (tar_of([("../../etc/passwd", b"x")]), "a", "", []),
        (ROOTFS, "UPPER", "", []),
        (ROOTFS, "a", "bad tag", []),
        (ROOTFS, "a@sha256:" + "0" * 64, "", []),
        (ROOTFS, "a", "", ["NONSENSE x"]),
    ],
    ids="noise cut cut-gzip outside upper bad-tag digest change".split(),
)
def test_a_bad_one_leaves_nothing(
    store: ImageStore, data: bytes, repo: str, tag: str, changes: list[str]
) -> None:
    with pytest.raises(InvalidParameter):
        import_rootfs(store, io.BytesIO(data).read, repo, tag, changes)
    assert is_empty(store)
