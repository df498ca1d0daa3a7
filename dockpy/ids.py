"""Identifiers: 64 hex digits for containers and execs, boot and machine ids, process start times.

A pid is trusted only together with its start time and the boot id: pids are reused.
"""

from __future__ import annotations

import os


def new_id() -> str:
    """64 hex digits; never all decimal in the first twelve, since a short id must not look like a number."""
    while True:
        value = os.urandom(32).hex()
        if not value[:12].isdigit():
            return value


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def machine_id() -> str:
    """/etc/machine-id, else the host name: enough to tell two hosts of one network file system apart."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename


def mapped_ids() -> int:
    """How many user ids there are: 2^32 - 1 on a host, fewer in a user namespace, 1 after `unshare -r`."""
    with open("/proc/self/uid_map", "rb") as file:
        return sum(int(line.split()[2]) for line in file)


def start_time(pid: int) -> int:
    """Clock ticks after boot at which `pid` started (proc(5), field 22); ProcessLookupError when gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(f"process {pid} has ended")
    return int(fields[19])


def alive(pid: int, started: int) -> bool:
    """Whether `pid` is still the process that started at `started`."""
    try:
        return start_time(pid) == started
    except ProcessLookupError:
        return False
