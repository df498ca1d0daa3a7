"""Raw mode on a real pseudo terminal, its size, and detach keys."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

import pytest

from dockpy.client.terminal import BadKeys, DetachDetector, Raw, detach_keys, is_terminal, size


def test_raw_mode_passes_keys_on_and_is_undone_also_after_an_error() -> None:
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    with pytest.raises(KeyError), Raw(slave):
        inside = termios.tcgetattr(slave)
        os.write(master, b"\x03\x04\r")
        assert os.read(slave, 10) == b"\x03\x04\r"
        assert not inside[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        raise KeyError
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_leaving_raw_mode_survives_the_end_of_the_terminal() -> None:
    master, slave = os.openpty()
    left = False
    with Raw(slave):
        os.close(slave)
        os.close(master)
        left = True
    assert left
    with pytest.raises(termios.error, match="Bad file descriptor"):
        termios.tcgetattr(slave)  # there is nothing that could have been put back


def test_size_is_height_and_width() -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    assert size(slave) == (33, 77)
    assert is_terminal(slave)
    read, write = os.pipe()
    assert size(read) is None
    assert not is_terminal(read)
    for fd in (master, slave, read, write):
        os.close(fd)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,x,ctrl-_", b"\0x\x1f"),
        ("ctrl-[", b"\x1b"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert detach_keys(text) == keys


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-A", "ctrl-1", "ab", "ctrl-p,", "\u00e9"])
def test_bad_detach_keys(text: str) -> None:
    with pytest.raises(BadKeys):
        detach_keys(text)


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10", b"\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_detach_detection(typed: list[bytes], passed: bytes, detached: bool) -> None:
    detector = DetachDetector(b"\x10\x11")
    assert b"".join(detector.feed(data) for data in typed) == passed
    assert detector.detached is detached


def test_no_keys_detect_nothing() -> None:
    detector = DetachDetector(b"")
    assert detector.feed(b"\x10\x11") == b"\x10\x11"
