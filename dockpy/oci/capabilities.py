"""Capabilities by name: the kernel's numbers, docker's default set, what may be added or dropped.

Values only; the sets of a process are linux's. Names here have CAP_ and capitals; what a user
writes may lack both.
"""

from __future__ import annotations

from dockpy.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# In the order of their numbers (linux/capability.h), from 0.
_NAMES = """\
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES = tuple("CAP_" + name for name in _NAMES.split())
NUMBERS = {name: number for number, name in enumerate(NAMES)}
_DEFAULT = """\
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
SYS_CHROOT KILL AUDIT_WRITE
"""
DEFAULT = tuple("CAP_" + name for name in _DEFAULT.split())
ALL = "ALL"


def normalize(
    names: Iterable[str], field: str = "CapAdd", available: Collection[str] = NAMES
) -> list[str]:
    """As docker: any case, CAP_ or not, ALL as it is; `field` tells where an unknown one stood."""
    result = []
    for name in names:
        upper = name.upper()
        if upper != ALL:
            if not upper.startswith("CAP_"):
                upper = "CAP_" + upper
            if upper not in NUMBERS:
                raise InvalidParameter(f'invalid {field}: unknown capability: "{upper}"')
            if upper not in available:
                raise InvalidParameter(
                    f"invalid {field}: capability not supported by your kernel or not available "
                    f'in the current environment: "{upper}"'
                )
        result.append(upper)
    return result


def adjust(
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    privileged: bool = False,
    available: Collection[str] = NAMES,
) -> tuple[str, ...]:
    """The capabilities of a container, by number; `available`: what this kernel and user have.

    Docker's rules: --privileged has all, whatever else is said; `add` ALL is all without `drop`;
    `drop` ALL is `add` alone; else the default ones without `drop`, and then `add`.
    """
    everything = [name for name in NAMES if name in available]
    if privileged:
        return tuple(everything)
    added = normalize(add, "CapAdd", available)
    dropped = normalize(drop, "CapDrop")
    if ALL in added:
        chosen = {name for name in everything if name not in dropped}
    elif ALL in dropped:
        chosen = set(added)
    else:
        chosen = {name for name in DEFAULT if name not in dropped} | set(added)
    return tuple(name for name in everything if name in chosen)


def mask(names: Iterable[str]) -> int:
    """Bits for linux.credentials; KeyError for a name that no kernel of ours knows."""
    result = 0
    for name in names:
        result |= 1 << NUMBERS[name]
    return result


def from_mask(bits: int) -> tuple[str, ...]:
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)
