"""load, save, images, tag, rmi, image inspect, history, import, and the builtin images."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from tests.e2e.engines import Engine


def test_images_lists_what_was_loaded(engine: Engine) -> None:
    table = engine.cli("images").out.splitlines()
    assert re.split(r"\s{2,}", table[0].strip()) == [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
    ]
    repository, _, tag = engine.image.rpartition(":")
    shown = engine.cli("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    assert f"{repository}:{tag}" in shown


def test_tag_and_rmi_untag_first(engine: Engine) -> None:
    assert engine.cli("tag", engine.image, "another/name:v2").code == 0
    first = engine.cli("inspect", "-f", "{{.Id}}", engine.image).out
    assert engine.cli("image", "inspect", "-f", "{{.Id}}", "another/name:v2").out == first
    assert engine.cli("rmi", "another/name:v2").out == "Untagged: another/name:v2\n"
    assert engine.cli("inspect", "-f", "{{.Id}}", engine.image).out == first


def test_images_with_a_name_lists_that_name_only(engine: Engine) -> None:
    engine.cli("tag", engine.image, "named/here:v1")
    shown = engine.cli("images", "--format", "{{.Repository}}:{{.Tag}}", "named/here").out
    assert shown == "named/here:v1\n"
    engine.cli("rmi", "named/here:v1")


def test_image_in_use_is_not_removed(engine: Engine) -> None:
    name = engine.name()
    engine.cli("tag", engine.image, "inuse:v1")
    engine.cli("create", "--name", name, "inuse:v1", "true")
    engine.cli("rm", name)
    missing = engine.cli("rmi", "no-such-image:v1")
    assert missing.code == 1
    assert "No such image: no-such-image:v1" in missing.err
    engine.cli("rmi", "inuse:v1")


def test_save_and_load_keep_the_id(engine: Engine, folder: Path) -> None:
    archive = folder / "image.tar"
    before = engine.cli("inspect", "-f", "{{.Id}}", engine.image).out
    engine.cli("tag", engine.image, "roundtrip:v1")
    assert engine.cli("save", "-o", str(archive), "roundtrip:v1").code == 0
    engine.cli("rmi", "roundtrip:v1")
    loaded = engine.cli("load", "-i", str(archive))
    assert loaded.out == "Loaded image: roundtrip:v1\n"
    assert engine.cli("inspect", "-f", "{{.Id}}", "roundtrip:v1").out == before
    assert engine.cli("run", "--rm", "roundtrip:v1", "echo", "again").out == "again\n"
    piped = engine.cli("load", input=archive.read_bytes())
    assert piped.out == "Loaded image: roundtrip:v1\n"
    engine.cli("rmi", "roundtrip:v1")


def test_a_bad_archive_is_refused_and_leaves_nothing(engine: Engine) -> None:
    before = engine.cli("images", "-aq").out
    for junk in (b"not a tar at all", b"\0" * 20000, b"\x1f\x8bjunk"):
        result = engine.cli("load", input=junk)
        assert result.code == 1, junk[:10]
        assert result.err.strip() and "Traceback" not in result.err
    assert engine.cli("images", "-aq").out == before


def rootfs_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        content = Path("/bin/busybox").read_bytes()
        member = tarfile.TarInfo("bin/busybox")
        member.size, member.mode = len(content), 0o755
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_import_with_changes(engine: Engine) -> None:
    result = engine.cli(
        "import", "-c", 'CMD ["/bin/busybox", "echo", "imported"]', "-c", "ENV A=b c=d", "-m", "made by hand",
        "-", "imported:v1", input=rootfs_tar(),
    )  # fmt: skip
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", result.out)
    assert engine.cli("run", "--rm", "imported:v1").out == "imported\n"
    assert json.loads(engine.cli("image", "inspect", "imported:v1").out)[0]["Config"]["Env"] == [
        "A=b",
        "c=d",
    ]
    assert "made by hand" in engine.cli("history", "imported:v1").out
    bad = engine.cli("import", "-c", "NONSENSE x", "-", "imported:v2", input=rootfs_tar())
    assert bad.code == 1
    assert "NONSENSE" in bad.err.upper()
    engine.cli("rmi", "imported:v1")


def test_owners_of_an_image_are_seen_by_a_user_named_in_it(engine: Engine) -> None:
    assert (
        engine.cli(
            "run", "--rm", "-u", "app", engine.image, "sh", "-c", "touch /home/app/f && echo ok"
        ).out
        == "ok\n"
    )


def test_builtin_host(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("dockpy's own images")
    assert engine.cli("run", "--rm", "dockpy.builtin/host", "echo", "hello").out == "hello\n"
    assert (
        engine.cli(
            "run", "--rm", "dockpy.builtin/host", "python3", "-c", "import json; print(6*7)"
        ).out
        == "42\n"
    )
    assert "ello" in engine.cli("run", "--rm", "dockpy.builtin/hello").out


def test_image_from_host(engine: Engine) -> None:
    if not engine.is_dockpy:
        pytest.skip("dockpy's own images")
    assert engine.cli("image", "from-host", "lister:v1", "/bin/ls").code == 0
    assert engine.cli("run", "--rm", "--entrypoint", "/bin/ls", "lister:v1", "/").code == 0
    missing = engine.cli("image", "from-host", "lister:v2", "/no/such/program")
    assert missing.code == 1
    assert "/no/such/program" in missing.err
    engine.cli("rmi", "lister:v1")
