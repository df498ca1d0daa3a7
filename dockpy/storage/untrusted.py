"""What a member of an archive may say of itself, whoever wrote it: its name, its times, its attributes.

Pure. Both extractors ask here (layer: an image's layers; untar: `cp`), so that neither believes what the
other refuses.
"""

from __future__ import annotations

from dockpy.errors import InvalidParameter
from dockpy.storage.tar import shown

# They would forge owners, whiteouts and opaque folders.
REFUSED_XATTRS = (b"user.overlay.", b"user.containers.", b"trusted.")
_PATH_MAX = 4095
_TIME_LIMIT = (1 << 63) - 1  # nanoseconds; beyond, docker takes the epoch


def safe_path(name: bytes) -> bytes:
    """`name` relative to the root, lexically clean as docker cleans it; b"" is the root itself.

    InvalidParameter when it climbs out, is longer than the kernel's PATH_MAX or has a NUL.
    """
    if len(name) > _PATH_MAX:
        raise InvalidParameter(f"{shown(name)}: the name is too long")
    if b"\0" in name:
        raise InvalidParameter(f"{shown(name)}: the name has a NUL")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise InvalidParameter(f"{shown(name)}: the name leads out of the archive's root")
            parts.pop()
        else:
            parts.append(part)
    return b"/".join(parts)


def bounded_time(value: int) -> int:
    """`value`, in nanoseconds, or the epoch when it is beyond what fits into 64 bits."""
    return value if -_TIME_LIMIT <= value <= _TIME_LIMIT else 0
