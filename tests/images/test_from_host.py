"""dockpy/images/from_host.py: what is gathered, what is left out, and that it runs."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from dockpy.errors import InvalidParameter, NotFound, Unavailable
from dockpy.images import from_host
from dockpy.images.store import ImageStore
from dockpy.oci.image import ContainerConfig
from tests.images.conftest import in_tree, inside


def packed(collector: from_host.Collector) -> tarfile.TarFile:
    buffer = io.BytesIO()
    from_host.pack(collector.entries, buffer.write)
    buffer.write(bytes(1024))
    buffer.seek(0)
    return tarfile.open(fileobj=buffer)


def make(store: ImageStore, *paths: str) -> list[str]:
    warnings: list[str] = []
    from_host.from_host(store, "made:v1", paths, warnings.append)
    return warnings


def test_a_program_runs(store: ImageStore) -> None:
    assert make(store, "/bin/ls", "sh") == []
    found = store.resolve("made:v1")
    assert found.config.config.cmd == ("/bin/ls",)
    store.snapshots.prepare("probe", store.unpack(found))
    root = in_tree(store, "probe", "usr").parent
    assert "etc" in inside(root, "ls /").stdout.split()


def test_links_are_kept_as_they_are_and_lead_somewhere(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("content")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "folder" / "file")
    collector = from_host.collect([str(tmp_path / "absolute")])
    base = str(tmp_path)[1:]
    with packed(collector) as archive:
        assert archive.getmember(f"{base}/absolute").linkname == str(tmp_path / "folder" / "file")
        assert archive.getmember(f"{base}/folder").linkname == "real"
        assert archive.extractfile(f"{base}/real/file").read() == b"content"  # type: ignore[union-attr]
        names = archive.getnames()
    assert len(names) == len(set(names))
    for name in names:
        parent = os.path.dirname(name)
        assert not parent or names.index(parent) < names.index(name)


def test_a_folder_comes_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_text("x")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    script = folder / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    collector = from_host.collect([str(folder)])
    base = str(folder)[1:]
    assert f"{base}/deep/er/file" in collector.entries
    assert collector.entries[f"{base}/dangling"].link == "nowhere"
    assert f"{base}/pipe" not in collector.entries
    assert any("pipe is left out" in warning for warning in collector.warnings)
    assert os.path.realpath("/bin/sh")[1:] in collector.entries


def test_owners_are_root_and_modes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_text("x")
    path.chmod(0o640)
    with packed(from_host.collect([str(path)])) as archive:
        member = archive.getmember(str(path)[1:])
        assert (member.uid, member.gid, member.mode) == (0, 0, 0o640)
        assert all(one.uid == one.gid == 0 for one in archive)
        assert stat.S_IMODE(archive.getmember("tmp").mode) == 0o1777


def test_a_python_brings_its_library_and_a_script_its_python(tmp_path: Path) -> None:
    if shutil.which("python3", path="/usr/bin") is None:
        pytest.skip("this machine lacks /usr/bin/python3")
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env python3\n")
    script.chmod(0o755)
    collector = from_host.collect([str(script)])
    names = {path.rpartition("/")[2] for path in collector.entries}
    assert {"os.py", "encodings", "python3", "env"} <= names
    assert not any("/test/" in path or "/idlelib/" in path for path in collector.entries)


@pytest.mark.parametrize(
    ("path", "error", "told"),
    [
        ("/no/such/program", NotFound, "/no/such/program: no such file or directory"),
        ("no-such-program", NotFound, "no such program on this host"),
        ("some/where", InvalidParameter, "absolute path"),
        ("/", InvalidParameter, "whole host"),
        ("/proc/self/exe/..", InvalidParameter, "kernel's files"),
        ("/dev/null", InvalidParameter, "kernel's files"),
        ("/etc/passwd/x", NotFound, "not a directory"),
    ],
)
def test_what_cannot_be_packed(
    store: ImageStore, path: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        make(store, path)
    assert store.list() == ()


def test_what_cannot_be_read(store: ImageStore, tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0)
    assert any("cannot be read" in warning for warning in make(store, str(tmp_path)))
    with pytest.raises(Unavailable, match="cannot be read"):
        make(store, str(tmp_path / "secret"))


def test_links_in_a_circle(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(NotFound, match="too many levels"):
        make(store, str(tmp_path / "a"))


@pytest.mark.parametrize("name", ["UPPER", "a@sha256:" + "0" * 64])
def test_bad_names(store: ImageStore, name: str) -> None:
    with pytest.raises(InvalidParameter):
        from_host.from_host(store, name, ["/bin/ls"], lambda warning: None)


def test_a_file_that_shrinks_while_it_is_packed_leaves_nothing(
    store: ImageStore, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("x" * 1000)
    collector = from_host.collect([str(path)])
    path.write_text("x")
    with pytest.raises(Unavailable, match="became shorter"):
        from_host.build(
            store,
            collector,
            "a",
            ContainerConfig(),
            "test",
            created="1970-01-01T00:00:00Z",
        )
    assert store.list() == ()
    assert not list(store.content.digests())
