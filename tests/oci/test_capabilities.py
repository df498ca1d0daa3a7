"""Docker's rules for --cap-add, --cap-drop and --privileged, and the kernel's own numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dockpy.errors import InvalidParameter
from dockpy.oci.capabilities import DEFAULT, NAMES, NUMBERS, adjust, from_mask, mask, normalize


def test_the_numbers_are_those_of_the_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no linux/capability.h here (package linux-libc-dev)")
    theirs = dict(re.findall(r"#define (CAP_[A-Z_]+)\s+(\d+)\s", header.read_text()))
    assert {name: int(number) for name, number in theirs.items()} == NUMBERS


def test_the_default_set_is_docker_s() -> None:
    assert len(DEFAULT) == 14
    assert mask(DEFAULT) == 0xA80425FB  # what CapBnd of a docker container shows
    assert set(adjust()) == set(DEFAULT)


@pytest.mark.parametrize("name", ["net_admin", "NET_ADMIN", "CAP_NET_ADMIN", "Cap_Net_Admin"])
def test_any_spelling_is_understood(name: str) -> None:
    assert normalize([name]) == ["CAP_NET_ADMIN"]
    assert set(adjust(add=[name])) == {*DEFAULT, "CAP_NET_ADMIN"}


def test_all_and_its_exceptions() -> None:
    assert adjust(add=["all"]) == NAMES
    assert adjust(add=["ALL"], drop=["sys_admin"]) == tuple(
        name for name in NAMES if name != "CAP_SYS_ADMIN"
    )
    assert adjust(drop=["ALL"]) == ()
    assert adjust(drop=["ALL"], add=["CHOWN"]) == ("CAP_CHOWN",)
    assert adjust(add=["ALL"], drop=["ALL"]) == NAMES


def test_adding_wins_over_dropping() -> None:
    assert "CAP_CHOWN" in adjust(add=["CHOWN"], drop=["CHOWN"])


def test_privileged_has_all_that_there_is() -> None:
    available = NAMES[:38]
    assert adjust(drop=["CHOWN"], privileged=True, available=available) == available
    assert adjust(add=["ALL"], available=available) == available


def test_what_is_wrong_is_said_as_docker_says_it() -> None:
    with pytest.raises(InvalidParameter, match='invalid CapAdd: unknown capability: "CAP_FOO"'):
        adjust(add=["foo"])
    with pytest.raises(InvalidParameter, match='invalid CapDrop: unknown capability: "CAP_X"'):
        adjust(drop=["x"])
    with pytest.raises(InvalidParameter, match="not supported by your kernel"):
        adjust(add=["BPF"], available=NAMES[:38])


def test_masks_and_names_are_two_spellings() -> None:
    assert from_mask(mask(DEFAULT)) == adjust()
    assert from_mask((1 << 64) - 1) == NAMES
