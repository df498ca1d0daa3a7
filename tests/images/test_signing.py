"""Keys as openssl writes them, and signatures as it makes them, by both ways to verify."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from dockpy.errors import InvalidParameter, Unavailable
from dockpy.images.signing import Signed, fitting, public_key
from tests.images.signatures import KINDS, Key

NO_PYTHON = "/nonexistent/python3"


def python_with_cryptography() -> str:
    for python in (sys.executable, "/usr/bin/python3"):
        asked = subprocess.run(
            [python, "-I", "-c", "import cryptography"], stderr=subprocess.DEVNULL, check=False
        )
        if asked.returncode == 0:
            return python
    pytest.skip("no python here has the package cryptography (Debian: python3-cryptography)")


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Key]:
    folder = tmp_path_factory.mktemp("keys")
    return [Key(folder, name, request.param) for name in ("mine", "other")]


@pytest.mark.parametrize("way", ["openssl", "cryptography"])
def test_only_what_the_key_has_signed_fits(pair: list[Key], way: str) -> None:
    python = NO_PYTHON if way == "openssl" else python_with_cryptography()
    path = None if way == "openssl" else "/nonexistent"
    mine, other = pair
    good = base64.b64decode(mine.sign(b"payload"))
    signed = [
        Signed(b"payload", good),
        Signed(b"payloaD", good),
        Signed(b"payload", base64.b64decode(other.sign(b"payload"))),
        Signed(b"payload", good[:-1]),
        Signed(b"payload", b""),
    ]
    key = public_key(mine.public)
    assert list(fitting(key, signed, python=python, path=path)) == [True, *[False] * 4]


def test_what_to_install_is_said(tmp_path: Path) -> None:
    key = public_key(Key(tmp_path, "mine").public)
    assert list(fitting(key, [], path="/nonexistent")) == []
    with pytest.raises(Unavailable, match="install the program openssl, or the package crypto"):
        fitting(key, [Signed(b"", b"")], python=NO_PYTHON, path="/nonexistent")


def test_a_point_that_is_not_on_the_curve_is_no_key(tmp_path: Path) -> None:
    key = public_key(Key(tmp_path, "mine").public)
    bent = public_key(type(key)(key.kind, key.der[:-32] + bytes(32)).pem)
    with pytest.raises(InvalidParameter, match="openssl cannot read the key"):
        fitting(bent, [Signed(b"", b"")], python=NO_PYTHON)


def test_what_is_no_key_is_said(tmp_path: Path) -> None:
    good = Key(tmp_path, "mine").public
    assert public_key(f"# by me\n{good}").pem == good
    begin, end = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
    secret = (tmp_path / "mine.key").read_text()
    weak = tmp_path / "weak.pub"
    words = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]
    made = subprocess.run(words, check=True, capture_output=True).stdout
    words = ["openssl", "pkey", "-pubout", "-out", str(weak)]
    subprocess.run(words, input=made, check=True)
    for text, what in (
        ("", "not one public key in PEM"),
        (secret, "not one public key in PEM"),
        (good + good, "not one public key in PEM"),
        (f"{begin}\n{end}", "of a kind that cannot be used"),
        (f"{begin}\n????\n{end}", "damaged"),
        (weak.read_text(), r"RSA \(2048 bits or more\)"),
        (good + " " * 20_000, "longer than"),
    ):
        with pytest.raises(InvalidParameter, match=what):
            public_key(text)
