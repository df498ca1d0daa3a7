"""`docker cp`, `diff`, `export`, `commit` by the command: the same cases against docker."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest

from tests.e2e.engines import Engine

MAKE = (
    "mkdir -p /d/e /s/sub /long; echo old > /d/f; ln -s e /d/le; ln -s f /d/lf; echo 1 > /s/1; "
    "echo 2 > /s/sub/2; ln -s 1 /s/l; ln -s /s /ls; chmod 640 /s/1; "
)


@pytest.fixture(params=["running", "stopped"])
def container(engine: Engine, request: pytest.FixtureRequest) -> str:
    name = engine.name()
    script = MAKE + ("exec sleep 100" if request.param == "running" else "true")
    ran = engine.cli("run", "-d", "--name", name, engine.image, "sh", "-c", script)
    assert ran.code == 0, ran.err
    if request.param == "stopped":
        assert engine.cli("wait", name).out == "0\n"
    else:
        for _ in range(100):
            if engine.cli("exec", name, "ls", "/ls/1").code == 0:
                break
    request.addfinalizer(lambda: engine.cli("rm", "-f", name))
    return name


@pytest.fixture
def source(engine: Engine, folder: Path) -> Path:
    (folder / "src" / "sub").mkdir(parents=True)
    (folder / "src" / "a").write_text("a\n")
    (folder / "src" / "sub" / "b").write_text("b\n")
    (folder / "src" / "l").symlink_to("a")
    (folder / "file").write_text("f\n")
    for path in (folder / "src", folder / "src" / "sub"):
        engine.give(path)
    return folder


def listing(engine: Engine, container: str, path: str) -> list[str]:
    done = engine.cli("cp", f"{container}:{path}", "-")
    assert done.code == 0, done.err
    raw = engine_bytes(engine, "cp", f"{container}:{path}", "-")
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return sorted(member.name for member in tar)


def engine_bytes(engine: Engine, *args: str) -> bytes:
    import subprocess

    process = engine.start(*args, stdout=subprocess.PIPE)
    data, _ = process.communicate(timeout=60)
    return data


def text(engine: Engine, container: str, path: str) -> str:
    raw = engine_bytes(engine, "cp", f"{container}:{path}", "-")
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        member = tar.next()
        assert member is not None
        file = tar.extractfile(member)
        assert file is not None
        return file.read().decode()


@pytest.mark.parametrize(
    ("what", "where", "made"),
    [
        ("file", "/d", {"/d/file": "f\n"}),
        ("file", "/d/", {"/d/file": "f\n"}),
        ("file", "/d/f", {"/d/f": "f\n"}),
        ("file", "/d/lf", {"/d/f": "f\n"}),
        ("file", "/d/le", {"/d/e/file": "f\n"}),
        ("file", "/new", {"/new": "f\n"}),
        ("src", "/d", {"/d/src/sub/b": "b\n"}),
        ("src/.", "/d", {"/d/sub/b": "b\n", "/d/a": "a\n"}),
        ("src", "/new", {"/new/sub/b": "b\n"}),
        ("src/.", "/new", {"/new/a": "a\n"}),
    ],
)
def test_to_a_container(
    engine: Engine, container: str, source: Path, what: str, where: str, made: dict[str, str]
) -> None:
    done = engine.cli("cp", f"{source}/{what}", f"{container}:{where}")
    assert (done.code, done.err) == (0, "")
    for path, content in made.items():
        assert text(engine, container, path) == content


@pytest.mark.parametrize(
    ("what", "where", "said"),
    [
        ("file", "/new/", "no such directory"),
        ("src", "/d/f", "cannot copy directory"),
        ("file", "/nope/x", "nope"),
        ("nope", "/d", "no such file or directory"),
        ("file/", "/d", "not a directory"),
    ],
)
def test_what_cannot_be_copied_to_a_container(
    engine: Engine, container: str, source: Path, what: str, where: str, said: str
) -> None:
    done = engine.cli("cp", f"{source}/{what}", f"{container}:{where}")
    assert done.code == 1
    assert said in done.err


@pytest.mark.parametrize(
    ("what", "where", "made"),
    [
        ("/s", "out", {"out/s/1": "1\n", "out/s/sub/2": "2\n"}),
        ("/s/.", "out", {"out/1": "1\n"}),
        ("/s", "new", {"new/1": "1\n"}),
        ("/s/1", "out", {"out/1": "1\n"}),
        ("/s/1", "new", {"new": "1\n"}),
        ("/s/1", "file", {"file": "1\n"}),
        ("/ls/", "out", {"out/ls/1": "1\n"}),
    ],
)
def test_from_a_container(
    engine: Engine, container: str, source: Path, what: str, where: str, made: dict[str, str]
) -> None:
    out = source / "out"
    out.mkdir()
    engine.give(out)
    done = engine.cli("cp", f"{container}:{what}", f"{source}/{where}")
    assert (done.code, done.err) == (0, "")
    for path, content in made.items():
        assert (source / path).read_text() == content
        # Whoever copies owns the copy.
        assert (source / path).stat().st_uid == engine.uid
    if "s/1" in what and where == "new":
        assert (source / "new").stat().st_mode & 0o777 == 0o640


def test_links_are_copied_or_followed(engine: Engine, container: str, source: Path) -> None:
    assert engine.cli("cp", f"{container}:/ls", f"{source}/ls").code == 0
    assert os.readlink(source / "ls") == "/s"
    done = engine.cli("cp", "-L", f"{container}:/ls", f"{source}/followed")
    assert (done.code, done.err) == (0, "")
    assert (source / "followed" / "1").read_text() == "1\n"
    (source / "link").symlink_to("file")
    assert engine.cli("cp", f"{source}/link", f"{container}:/link").code == 0
    assert engine.cli("cp", "-L", f"{source}/link", f"{container}:/copy").code == 0
    assert text(engine, container, "/copy") == "f\n"
    raw = engine_bytes(engine, "cp", f"{container}:/link", "-")
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert [(member.name, member.linkname) for member in tar] == [("link", "file")]


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("/s", ["s", "s/1", "s/l", "s/sub", "s/sub/2"]),
        ("/s/.", [".", "./1", "./l", "./sub", "./sub/2"]),
        ("/ls", ["ls"]),
        ("/s/sub/2", ["2"]),
    ],
)
def test_a_stream_to_stdout(engine: Engine, container: str, what: str, names: list[str]) -> None:
    assert listing(engine, container, what) == names


def test_a_stream_from_stdin_keeps_owners_links_and_times(engine: Engine, container: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link in (
            ("a/b", tarfile.REGTYPE, ""),
            ("a/hard", tarfile.LNKTYPE, "a/b"),
            ("a/soft", tarfile.SYMTYPE, "b"),
            ("a/fifo", tarfile.FIFOTYPE, ""),
            ("a/new\nline", tarfile.REGTYPE, ""),
            ("a/" + "x" * 200, tarfile.REGTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.uid, member.gid, member.mode, member.mtime = 5, 6, 0o750, 1234567890
            member.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"xyz") if member.size else None)
    done = engine.cli("cp", "-", f"{container}:/d/le/", input=buffer.getvalue())
    assert (done.code, done.err) == (0, "")
    raw = engine_bytes(engine, "cp", f"{container}:/d/e/a", "-")
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        found = {member.name: member for member in tar}
    assert sorted(found) == sorted(
        ["a", "a/b", "a/hard", "a/soft", "a/fifo", "a/new\nline", "a/" + "x" * 200]
    )
    assert {found["a/b"].type, found["a/hard"].type} == {tarfile.REGTYPE, tarfile.LNKTYPE} or (
        found["a/b"].type == tarfile.REGTYPE and found["a/hard"].linkname == "a/b"
    )
    assert found["a/fifo"].type == tarfile.FIFOTYPE
    assert found["a/soft"].linkname == "b"
    b = found["a/b"]
    assert (b.uid, b.gid, b.mode & 0o777, b.mtime) == (5, 6, 0o750, 1234567890)


def test_what_is_said_of_paths_that_are_not_there(engine: Engine, container: str) -> None:
    done = engine.cli("cp", f"{container}:/nope", "-")
    assert done.code == 1
    # Older clients have words of their own for a 404.
    assert "Could not find the file /nope in container" in done.err or "/nope" in done.err
    done = engine.cli("cp", "nope-x:/a", "-")
    assert (done.code, "nope-x" in done.err) == (1, True)
    done = engine.cli("cp", "/etc", "nope-x:/a")
    assert (done.code, "nope-x" in done.err) == (1, True)
    assert engine.cli("cp", "a:b", "c:d").err == "copying between containers is not supported\n"
    assert engine.cli("cp", "/a", "/b").err == "must specify at least one container source\n"
    done = engine.cli("cp", "-", f"{container}:/d/f", input=b"")
    assert done.err == f'destination "{container}:/d/f" must be a directory\n'


def test_volumes_are_seen_and_what_is_read_only_is_refused(engine: Engine, source: Path) -> None:
    name = engine.name()
    args = ("--read-only", "-v", f"{source}/src:/rw", "-v", f"{source}/src:/ro:ro")
    made = engine.cli("run", "-d", "--name", name, *args, engine.image, "sleep", "100")
    assert made.code == 0, made.err
    try:
        for _ in ("running", "stopped"):
            assert text(engine, name, "/ro/sub/b") == "b\n"
            done = engine.cli("cp", f"{source}/file", f"{name}:/rw/sub")
            assert (done.code, done.err) == (0, "")
            assert (source / "src" / "sub" / "file").read_text() == "f\n"
            (source / "src" / "sub" / "file").unlink()
            done = engine.cli("cp", f"{source}/file", f"{name}:/ro/sub")
            assert (done.code, "mounted volume is marked read-only" in done.err) == (1, True)
            done = engine.cli("cp", f"{source}/file", f"{name}:/tmp")
            assert (done.code, "container rootfs is marked read-only" in done.err) == (1, True)
            if not engine.is_dockpy:
                break  # docker 20.10 holds on to a killed one's mounts for a while
            engine.cli("kill", name)
            engine.cli("wait", name)
    finally:
        engine.cli("rm", "-f", name)


def test_archive_mode_gives_files_to_the_containers_user(engine: Engine, source: Path) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker 20.10 looks the container's user up in the host's passwd")
    name = engine.name()
    made = engine.cli("create", "--name", name, "--user", "1000:1000", engine.image, "true")
    assert made.code == 0, made.err
    try:
        assert engine.cli("cp", "-a", f"{source}/file", f"{name}:/tmp/own").code == 0
        raw = engine_bytes(engine, "cp", f"{name}:/tmp/own", "-")
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            member = tar.getmember("own")
            assert (member.uid, member.gid) == (1000, 1000)
    finally:
        engine.cli("rm", "-f", name)


def test_diff_export_and_commit(engine: Engine, folder: Path) -> None:
    name, image = engine.name(), "localhost/e2e-committed:v1"
    script = (
        "echo new > /home/n; mkdir /x; echo y > /x/y; rm /etc/group; chmod 700 /root; rm -r /var"
    )
    args = ("--name", name, "-v", "/vol/v", "-e", "A=b", engine.image)
    made = engine.cli("run", *args, "sh", "-c", script)
    assert made.code == 0, made.err
    try:
        changes = sorted(engine.cli("diff", name).out.splitlines())
        assert changes == sorted(
            [
                "C /home",
                "A /home/n",
                "A /x",
                "A /x/y",
                "C /etc",
                "D /etc/group",
                "C /root",
                "D /var",
                "A /vol",
                "A /vol/v",
            ]
        )
        done = engine.cli("export", "-o", str(folder / "all.tar"), name)
        assert (done.code, done.err) == (0, "")
        with tarfile.open(folder / "all.tar") as tar:
            names = tar.getnames()
            assert {"x/y", "bin/busybox", "home/n"} <= set(names)
            assert "etc/group" not in names
            assert tar.getmember("home/app").uid == 1000
        assert engine_bytes(engine, "export", name) == (folder / "all.tar").read_bytes()
        done = engine.cli("commit", "-a", "me", "-m", "why", "-c", "ENV C=d", "-c", 'ENTRYPOINT ["cat"]',
                          "-c", 'CMD ["/x/y"]', "-c", "LABEL l=1", name, image)  # fmt: skip
        assert done.code == 0, done.err
        assert done.out.startswith("sha256:")
        assert engine.cli("run", "--rm", image).out == "y\n"
        ran = engine.cli(
            "run", "--rm", "--entrypoint", "sh", image, "-c", "ls -d /var /etc/group; echo $A$C"
        )
        assert ran.out == "bd\n"
        shown = json.loads(engine.cli("image", "inspect", image).out)[0]
        assert (shown["Author"], shown["Comment"]) == ("me", "why")
        assert shown["Config"]["Labels"] == {"l": "1"}
        assert shown["Config"]["Cmd"] == ["/x/y"]
        used = engine.cli("system", "df", "-v").out.split("\n")
        row = re.split("  +", next(line for line in used if "e2e-committed" in line))
        assert (row[5] != "0B", row[6] != "0B") == (True, True), row  # of its own, and shared
        assert len(shown["RootFS"]["Layers"]) == 2
    finally:
        engine.cli("rm", "-f", name)
        engine.cli("rmi", "-f", image)


def test_a_commit_without_changes_adds_no_layer(engine: Engine) -> None:
    name, image = engine.name(), "localhost/e2e-same:v1"
    assert engine.cli("run", "--name", name, engine.image, "true").code == 0
    try:
        assert engine.cli("diff", name).out == ""
        assert engine.cli("commit", name, image).code == 0
        shown = json.loads(engine.cli("image", "inspect", image).out)[0]
        assert len(shown["RootFS"]["Layers"]) == 1
        assert shown["Config"]["Cmd"] == ["true"]
        assert engine.cli("commit", "-c", "FROM x", name).code == 1
    finally:
        engine.cli("rm", "-f", name)
        engine.cli("rmi", "-f", image)
