"""The number tables against the kernel's headers on this machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dockpy.runtime.syscalls import numbers

ARCHITECTURES = ["x86_64", "x32", "i386", "aarch64", "arm"]
HEADERS = {"x86_64": "unistd_64.h", "x32": "unistd_x32.h", "i386": "unistd_32.h"}


@pytest.mark.parametrize("arch", HEADERS)
def test_the_numbers_are_those_of_the_headers(arch: str) -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm") / HEADERS[arch]
    if not header.exists():
        pytest.skip(f"no {header} here (package linux-libc-dev)")
    pattern = r"#define __NR_(\w+)\s+(?:\(__X32_SYSCALL_BIT \+ )?(\d+)"
    theirs = {name: int(number) for name, number in re.findall(pattern, header.read_text())}
    ours = numbers(arch)
    assert len(theirs) > 300
    assert {name: ours.get(name) for name in theirs} == theirs


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_number_has_two_names_and_new_ones_are_the_same_everywhere(arch: str) -> None:
    ours = numbers(arch)
    assert len(set(ours.values())) == len(ours)
    assert (ours["pidfd_send_signal"], ours["mseal"], ours["listns"]) == (424, 462, 470)


def test_known_numbers() -> None:
    assert numbers("aarch64")["openat"] == 56
    assert numbers("aarch64")["statx"] == 291
    assert numbers("arm")["openat"] == 322
    assert numbers("arm")["set_tls"] == 0xF0005
    assert "memfd_secret" not in numbers("arm")
