"""Which capabilities a container has: docker's fourteen, what is added and dropped, by any spelling."""

from __future__ import annotations

from typing import Sequence

CAPABILITIES: tuple[str, ...] = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)

DEFAULT: tuple[str, ...] = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT "
        "KILL AUDIT_WRITE"
    ).split()
)


def full_name(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def bounding(add: Sequence[str], drop: Sequence[str], *, privileged: bool) -> tuple[str, ...]:
    """docker's rules: ALL in drop means only what is added; ALL in add means all but what is dropped."""
    if privileged:
        return CAPABILITIES
    added = [full_name(name) for name in add]
    dropped = {full_name(name) for name in drop}
    if "ALL" in added:
        return tuple(name for name in CAPABILITIES if name not in dropped)
    base = () if "ALL" in dropped else tuple(name for name in DEFAULT if name not in dropped)
    return (*base, *(name for name in dict.fromkeys(added) if name not in base))
