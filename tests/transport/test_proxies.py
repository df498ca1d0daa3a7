"""Proxy variables, as Go reads them."""

from __future__ import annotations

import pytest

from dockpy.errors import InvalidParameter
from dockpy.http.url import parse_url
from dockpy.transport.proxies import Proxies, from_environ, parse_proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "http://a.example/", False),
        ("*", "http://a.example/", True),
        ("example", "http://a.example/", True),
        ("a.example", "http://a.example/", True),
        ("a.example", "http://ba.example/", False),
        (".example", "http://a.example/", True),
        ("*.a.example", "http://a.example/", False),
        (" x, A.Example:8080", "http://a.example:8080/", True),
        ("a.example:8080", "http://a.example/", False),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("fd00::/8", "http://[fd00::1]:5000/", True),
        ("10.1.2.3", "http://10.1.2.3:5000/", True),
        ("[fd00::1]:5000", "http://[fd00::1]:5000/", True),
        ("10/abc", "http://10.1.2.3/", False),
        ("", "http://localhost:5000/", True),
        ("", "http://127.0.0.1/", True),
    ],
)
def test_no_proxy(no_proxy: str, url: str, direct: bool) -> None:
    proxies = Proxies("http://p:3128", "", no_proxy)
    assert (proxies.proxy_for(parse_url(url)) is None) is direct


def test_each_scheme_has_its_own() -> None:
    proxies = from_environ(
        {"http_proxy": "p:1", "HTTPS_PROXY": "https://u%40v:s@q:2", "NO_PROXY": ""}
    )
    assert proxies == Proxies("p:1", "https://u%40v:s@q:2", "")
    plain = proxies.proxy_for(parse_url("http://a.example/"))
    secure = proxies.proxy_for(parse_url("https://a.example/"))
    assert plain is not None
    assert secure is not None
    assert str(plain.url) == "http://p:1/"
    assert (str(secure.url), secure.authorization) == ("https://q:2/", "Basic dUB2OnM=")


def test_other_kinds_of_proxies_are_refused_by_name() -> None:
    with pytest.raises(InvalidParameter, match="socks5"):
        parse_proxy("socks5://localhost:1080")
