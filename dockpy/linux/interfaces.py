"""Just enough of network interfaces for a container without a network: lo up."""

from __future__ import annotations

import _socket
import fcntl
import struct

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
IFREQ = "16sh22x"


def set_up(name: str) -> None:
    """Brings interface `name` of this network namespace up."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
    try:
        request = fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, struct.pack(IFREQ, name.encode(), 0))
        flags = struct.unpack(IFREQ, request)[1]
        if not flags & IFF_UP:
            request = struct.pack(IFREQ, name.encode(), flags | IFF_UP)
            fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, request)
    finally:
        sock.close()
