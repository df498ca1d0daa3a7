"""Where a name is asked for, and what config.toml may say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockpy import config
from dockpy.config import SETTINGS, RegistrySettings
from dockpy.errors import InvalidParameter
from dockpy.registry.endpoints import endpoints

LAN = RegistrySettings(
    mirrors=("https://mirror.example/", "http://127.0.0.1:5000"),
    insecure=("reg.lan:5000", "plain.lan", "10.0.0.0/8", "[fd00::1]:5000"),
)


def tried(domain: str, settings: RegistrySettings = SETTINGS) -> list[str]:
    return [
        f"{one.url}{'' if one.verify else ' unverified'}{' mirror' if one.mirror else ''}"
        for one in endpoints(domain, settings)
    ]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("docker.io", ["https://registry-1.docker.io/"]),
        ("reg.example", ["https://reg.example/"]),
        ("reg.example:5000", ["https://reg.example:5000/"]),
        ("localhost", ["http://localhost/", "https://localhost/ unverified"]),
        ("127.0.0.1:5000", ["http://127.0.0.1:5000/", "https://127.0.0.1:5000/ unverified"]),
        ("[::1]:5000", ["http://[::1]:5000/", "https://[::1]:5000/ unverified"]),
    ],
)
def test_https_but_for_loopback(domain: str, expected: list[str]) -> None:
    assert tried(domain) == expected


@pytest.mark.parametrize(
    ("domain", "insecure"),
    [
        ("reg.lan:5000", True),
        ("reg.lan", False),
        ("reg.lan:5001", False),
        ("plain.lan:77", True),
        ("10.1.2.3:5000", True),
        ("11.1.2.3:5000", False),
        ("[fd00::1]:5000", True),
    ],
)
def test_http_only_for_what_the_settings_name(domain: str, insecure: bool) -> None:
    urls = tried(domain, LAN)
    assert any(url.startswith("http://") for url in urls) == insecure
    assert urls[0].startswith("https://")


def test_mirrors_come_first_and_for_docker_io_alone() -> None:
    assert tried("docker.io", LAN) == [
        "https://mirror.example/ mirror",
        "http://127.0.0.1:5000/ unverified mirror",
        "https://registry-1.docker.io/",
    ]
    assert not any("mirror" in url for url in tried("reg.example", LAN))
    assert len(endpoints("docker.io", LAN, mirrors=False)) == 1


def test_the_settings_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[registry]\nmirrors = ["https://m/"]\ninsecure = ["a:1", "10.0.0.0/8"]\n'
        'https-proxy = "http://p:3128"\nno-proxy = "x"\n'
    )
    assert config.load(str(path)).registry == RegistrySettings(
        ("https://m/",), ("a:1", "10.0.0.0/8"), "", "http://p:3128", "x"
    )


@pytest.mark.parametrize(
    "text",
    [
        "registry = 1",
        "[registry]\nmirror = []",
        '[registry]\nmirrors = "https://m/"',
        '[registry]\nmirrors = ["m.example"]',
        '[registry]\ninsecure = ["http://a"]',
        '[registry]\ninsecure = ["10.0.0.0/99"]',
        "[registry]\nno-proxy = 1",
    ],
)
def test_mistakes_in_it_are_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InvalidParameter, match=r"config.toml: "):
        config.load(str(path))
