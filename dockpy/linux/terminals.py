"""Pseudo-terminals by ioctl only: no name of the slave is ever looked up."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441


def unlock_pt(master: int) -> None:
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))


def open_peer(master: int) -> int:
    """The slave of `master`, opened in the master's own devpts whatever /dev/pts is to us (4.13)."""
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def set_winsize(fd: int, height: int, width: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def get_winsize(fd: int) -> tuple[int, int]:
    """(height, width)."""
    height, width, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    return height, width


def set_controlling_terminal(fd: int) -> None:
    """For a session leader without one."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
