"""The socket of a daemon, and whether it is this user's own. For requests and for birth alike."""

from __future__ import annotations

import _socket
import os
import sys


def unix(path: str) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def is_ours(sock: _socket.socket) -> bool:
    """Whether this very user listens at the other end.

    A run folder below /tmp may have gone with a reboot, and somebody else have taken its name.
    """
    return credentials(sock)[1] == os.geteuid()


def credentials(sock: _socket.socket) -> tuple[int, int]:
    """(pid, uid) of whoever listens at the other end."""
    said = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(said[:4], sys.byteorder), int.from_bytes(said[4:8], sys.byteorder)
