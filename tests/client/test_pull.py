"""`pull`'s own words: the whole name at the end, and lines in place on a terminal."""

from __future__ import annotations

import os
import pty

import pytest

from dockpy.client.commands.images import full_name, split_reference
from dockpy.client.errors import CommandError
from dockpy.client.livelines import LiveLines
from dockpy.oci.reference import parse_reference


def test_a_name_has_one_tag() -> None:
    digest = "sha256:" + "a" * 64
    assert split_reference("localhost:5000/x:y") == ("localhost:5000/x", "y")
    assert split_reference("localhost:5000/x") == ("localhost:5000/x", "")
    assert split_reference(f"x:y@{digest}") == ("x:y@sha256", "a" * 64)
    for name in ("", "x:", "x:y:z", "localhost:5000/x:y:z"):
        with pytest.raises(CommandError, match="invalid reference format"):
            split_reference(name)


@pytest.mark.parametrize(
    "name",
    [
        "debian",
        "debian:12",
        "me/app",
        "docker.io/me/app:x",
        "index.docker.io/debian",
        "docker.io/debian",
        "localhost/a",
        "localhost:5000/a/b:c",
        "127.0.0.1:5000/a",
        "reg.example/a/b/c",
        "REG/a",
        "[::1]:5000/a:b",
        "debian@sha256:" + "a" * 64,
        "reg.example:443/a@sha256:" + "a" * 64,
    ],
)
def test_full_names_are_what_the_grammar_says(name: str) -> None:
    reference = parse_reference(name)
    assert full_name(name, bare=False) == str(reference.tagged())
    if not reference.tag and not reference.digest:
        assert full_name(name, bare=True) == reference.name


def test_lines_are_rewritten_in_place_on_a_terminal() -> None:
    here, there = pty.openpty()
    live = LiveLines(there, 120)
    live.show({"status": "Pulling from x", "id": "latest"})
    live.show({"status": "Pulling fs layer", "progressDetail": {}, "id": "aa"})
    live.show({"status": "Pulling fs layer", "progressDetail": {}, "id": "bb"})
    live.show(
        {"status": "Downloading", "progressDetail": {"current": 500, "total": 1000}, "id": "aa"}
    )
    live.show({"status": "Digest: d"})
    text = ""
    while not text.endswith("Digest: d\n"):  # a terminal gives what has come so far
        text += os.read(here, 65536).decode().replace("\r\n", "\n")
    os.close(here)
    os.close(there)
    bar = "[" + "=" * 25 + ">" + " " * 25 + "]     500B/1kB"
    assert text == (
        "latest: Pulling from x\n"
        "\n\x1b[1A\x1b[2K\raa: Pulling fs layer \r\x1b[1B"
        "\n\x1b[1A\x1b[2K\rbb: Pulling fs layer \r\x1b[1B"
        f"\x1b[2A\x1b[2K\raa: Downloading {bar}\r\x1b[2B"
        "Digest: d\n"
    )
