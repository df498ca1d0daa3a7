from __future__ import annotations

import pytest

from dockpy.errors import InvalidParameter
from dockpy.oci.digest import Digest
from dockpy.oci.reference import parse_reference

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("me/app", "docker.io/me/app", "me/app"),
        ("docker.io/library/x/y", "docker.io/library/x/y", "library/x/y"),
        ("index.docker.io/debian", "docker.io/library/debian", "debian"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("Host/a", "Host/a", "Host/a"),
        ("dockpy.builtin/host", "dockpy.builtin/host", "dockpy.builtin/host"),
        ("a__b-c--d.e", "docker.io/library/a__b-c--d.e", "a__b-c--d.e"),
        (f"debian@sha256:{HEX}", f"docker.io/library/debian@sha256:{HEX}", f"debian@sha256:{HEX}"),
        (f"d:1@sha256:{HEX}", f"docker.io/library/d:1@sha256:{HEX}", f"d:1@sha256:{HEX}"),
    ],
)
def test_references_are_completed_and_shortened(text: str, whole: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert str(reference) == whole
    assert reference.familiar() == familiar
    assert parse_reference(whole) == reference


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", "-a", "a//b", "a/", "/a", "a:b:c", "a b", "a@b", "a@sha256:12", "a..b", "é", "a:" + "x" * 129,
     "a___b", HEX, "a\n", "x" * 256, "host.x/", "a@sha256:" + HEX.upper(), "h.x:port/a"],
)  # fmt: skip
def test_bad_references_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_reference(text)


def test_upper_case_is_told_as_docker_does() -> None:
    with pytest.raises(InvalidParameter, match="repository name .library/Foo. must be lowercase"):
        parse_reference("Foo")


def test_latest_is_added_only_where_nothing_was_said() -> None:
    assert str(parse_reference("a").tagged()) == "docker.io/library/a:latest"
    assert parse_reference("a:b").tagged().tag == "b"
    assert parse_reference("a").with_digest(Digest("sha256:" + HEX)).tagged().tag == ""
