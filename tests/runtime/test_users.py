from __future__ import annotations

import pytest

from dockpy.runtime.errors import SetupError
from dockpy.runtime.users import Identity, home_of, resolve

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
# comment
short:x:7
www:x:33:33:www:/var/www:
twice:x:1000:1000::/first:
twice:x:1001:1001::/second:
12:x:55:55::/named-like-a-number:
nohome:x:60:60:::
"""
GROUP = b"root:x:0:\nwww:x:33:\nadm:x:4:www,twice\ntape:x:26:root\n\nbroken\n77:x:5:\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(0, 0, (0, 26), "/root")),
        ("root", Identity(0, 0, (0, 26), "/root")),
        ("0", Identity(0, 0, (0, 26), "/root")),
        ("www", Identity(33, 33, (33, 4), "/var/www")),
        ("33", Identity(33, 33, (33, 4), "/var/www")),
        ("twice", Identity(1000, 1000, (1000, 4), "/first")),
        ("www:tape", Identity(33, 26, (26,), "/var/www")),
        ("www:4", Identity(33, 4, (4,), "/var/www")),
        ("www:999", Identity(33, 999, (999,), "/var/www")),
        (":26", Identity(0, 26, (26,), "/root")),
        ("4000", Identity(4000, 0, (0,), "/")),
        ("4000:5000", Identity(4000, 5000, (5000,), "/")),
        ("12", Identity(12, 0, (0,), "/")),
        ("short", Identity(7, 0, (0,), "/")),
        ("nohome", Identity(60, 60, (60,), "/")),
        ("+33", Identity(33, 33, (33, 4), "/var/www")),
    ],
)
def test_users_as_docker_reads_them(user: str, expected: Identity) -> None:
    assert resolve(user, (), PASSWD, GROUP) == expected


def test_groups_to_add_by_name_and_number() -> None:
    assert resolve("www", ("tape", "123", "4"), PASSWD, GROUP).groups == (33, 4, 26, 123)


@pytest.mark.parametrize(
    ("user", "groups", "message"),
    [
        ("nope", (), "unable to find user nope: no matching entries in passwd file"),
        ("1_000", (), "unable to find user 1_000: no matching entries in passwd file"),
        ("٣", (), "unable to find user"),
        ("root:nope", (), "unable to find group nope: no matching entries in group file"),
        ("root", ("nope",), "Unable to find group nope: no matching entries in group file"),
        ("-1", (), "uids and gids must be in range 0-2147483647"),
        ("4294967295", (), "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", (), "uids and gids must be in range 0-2147483647"),
    ],
)
def test_what_cannot_be_resolved(user: str, groups: tuple[str, ...], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        resolve(user, groups, PASSWD, GROUP)


def test_without_files_numbers_work() -> None:
    assert resolve("5:6", (), b"", b"") == Identity(5, 6, (6,), "/")
    assert resolve("", (), b"", b"") == Identity(0, 0, (0,), "/")
    assert home_of(33, PASSWD) == "/var/www"
    assert home_of(34, PASSWD) == "/"


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert resolve("9", (), b"\xff\xfe:x:9:9::/h\xff:\n", b"\x00").home == "/h\udcff"
