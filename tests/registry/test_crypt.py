"""bcrypt through the system's libcrypt, and files of accounts."""

from __future__ import annotations

import base64

import pytest

from dockpy.errors import InvalidParameter
from dockpy.registry.crypt import Bcrypt
from dockpy.registry.htpasswd import basic_credentials, parse_htpasswd

# Openwall's vectors, and one as Apache's htpasswd -B writes it.
VECTORS = [
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
    ("", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
    ("U*U", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
]


@pytest.fixture(scope="module")
def bcrypt() -> Bcrypt:
    return Bcrypt()


@pytest.mark.parametrize(("password", "hashed"), VECTORS)
def test_known_answers(bcrypt: Bcrypt, password: str, hashed: str) -> None:
    assert bcrypt.verify(password, hashed)
    assert not bcrypt.verify(f"{password}x", hashed)


def test_a_password_ends_at_no_nul(bcrypt: Bcrypt) -> None:
    assert not bcrypt.verify("U*U\0more", VECTORS[0][1])


def test_nobodys_hash_has_the_form_and_the_cost_and_fits_nothing(bcrypt: Bcrypt) -> None:
    nobody = bcrypt.nobodys(VECTORS[0][1])
    assert nobody.startswith("$2a$05$")
    assert parse_htpasswd(f"u:{nobody}", "f") == {"u": nobody}
    assert not bcrypt.verify("", nobody)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "user",
        "user:secret",
        "user:$apr1$abcdefgh$0123456789012345678901",
        "user:{SHA}abc",
        f":{VECTORS[0][1]}",
        f"user:{VECTORS[0][1]}x",
        "user:$2y$99$" + "a" * 53,
    ],
)
def test_what_is_no_file_of_accounts(text: str) -> None:
    with pytest.raises(InvalidParameter, match="^accounts"):
        parse_htpasswd(text, "accounts")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Basic " + base64.b64encode(b"me:a:b").decode(), ("me", "a:b")),
        ("basic " + base64.b64encode(b"me:").decode(), ("me", "")),
        ("Basic " + base64.b64encode(b"me").decode(), None),
        ("Basic !", None),
        ("Bearer abc", None),
        ("", None),
        ("Basic " + "QUFB" * 1000, None),
    ],
)
def test_credentials(header: str, found: tuple[str, str] | None) -> None:
    assert basic_credentials(header) == found
