"""Challenges, credentials and tokens as values."""

from __future__ import annotations

import base64
import json

import pytest

from dockpy.registry.auth import (
    ANONYMOUS,
    Credentials,
    _life,
    parse_challenges,
    registry_auth,
)


def test_challenges_of_real_registries() -> None:
    [hub] = parse_challenges(
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
        'scope="repository:library/debian:pull,push",error="invalid_token"'
    )
    assert hub.scheme == "bearer"
    assert hub.parameters["realm"] == "https://auth.docker.io/token"
    assert hub.parameters["scope"] == "repository:library/debian:pull,push"
    both = parse_challenges('Basic realm="a \\"b\\"", Bearer realm="https://t/", service=x')
    assert [one.scheme for one in both] == ["basic", "bearer"]
    assert both[0].parameters["realm"] == 'a "b"'
    assert both[1].parameters["service"] == "x"


@pytest.mark.parametrize(
    "header", ["", ",,,", "Bearer", "Bearer realm=", 'Basic realm="' + "\\" * 5000]
)
def test_broken_challenges_cost_nothing(header: str) -> None:
    assert len(parse_challenges(header)) <= 1


def _header(raw: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(raw).encode()).decode()


def test_x_registry_auth() -> None:
    assert registry_auth(_header({"username": "ü?>", "password": "p"})) == Credentials("ü?>", "p")
    assert registry_auth(_header({"identitytoken": "t"}).rstrip("=")).identity_token == "t"
    auth = base64.b64encode(b"a:b:c").decode()
    assert registry_auth(_header({"auth": auth})) == Credentials("a", "b:c")
    for nobody in ("", "%%%", _header([1]), _header({}), base64.b64encode(b"{").decode()):
        assert registry_auth(nobody) == ANONYMOUS
    assert "secret" not in repr(Credentials("me", "secret", "secret", "secret"))


@pytest.mark.parametrize(
    ("said", "life"),
    [
        (300, 290.0),
        (5, 2.5),
        (None, 50.0),
        ("300", 50.0),
        (-1, 50.0),
        (float("nan"), 50.0),
        (float("inf"), 86390.0),
        (10**400, 86390.0),
    ],
)
def test_a_token_lives_as_long_as_it_says_but_a_day(said: object, life: float) -> None:
    assert _life(said) == life
