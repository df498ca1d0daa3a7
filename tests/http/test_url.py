"""URLs that registries name, honest and otherwise."""

from __future__ import annotations

import pytest

from dockpy.http.url import BadUrl, is_loopback, parse_url


def test_parts_and_back() -> None:
    url = parse_url("HTTPS://Reg.Example.org:443/v2/a?n=1#there")
    assert (url.scheme, url.host, url.port, url.target) == (
        "https",
        "reg.example.org",
        443,
        "/v2/a?n=1",
    )
    assert url.authority == "reg.example.org"
    assert str(parse_url("http://[::1]:5000")) == "http://[::1]:5000/"
    assert parse_url("http://[0:0::1]:5000").authority == "[::1]:5000"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a/",
        "http:///x",
        "//a/b",
        "http://a b/",
        "http://a/\r\nX-Evil: 1",
        "http://a/\n",
        "http://a:99999/",
        "http://user:secret@a/",
        "http://a:80@b/",
        "http://a\\b/",
        "http://[::1/",
        "http://" + "a" * 20000,
        "http://exa\u2028mple/",
        # Python's resolver answers these with an error of its codec's.
        "http://a..b/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 127 + "ab/",
    ],
)
def test_what_is_not_plain_is_refused(text: str) -> None:
    with pytest.raises(BadUrl):
        parse_url(text)


def test_locations_are_joined_as_browsers_do() -> None:
    base = parse_url("https://r.example/v2/a/blobs/uploads/?x=1")
    assert str(base.join("/v2/b?state=q%3D")) == "https://r.example/v2/b?state=q%3D"
    assert str(base.join("https://cdn.example/p?sig=a%2Fb")) == "https://cdn.example/p?sig=a%2Fb"
    assert str(base.join("?y=2")) == "https://r.example/v2/a/blobs/uploads/?y=2"
    assert base.join("//other.example/z").host == "other.example"
    with pytest.raises(BadUrl):
        base.join("/a\r\nSet-Cookie: x")


def test_queries_are_added_encoded() -> None:
    url = parse_url("https://r.example/token?a=1").with_query(
        [("scope", "repository:a/b:pull,push")]
    )
    assert url.target == "/token?a=1&scope=repository%3Aa%2Fb%3Apull%2Cpush"
    assert parse_url("http://a").at("/v2/ö x").target == "/v2/%C3%B6%20x"
    assert url.shown == "https://r.example/token"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_told_by_the_name_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
