"""What a shim leaves in the container's folder: who it is, and how the container ended (the truth)."""

from __future__ import annotations

import os

from dockpy import files
from dockpy.fastjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def shim_path(bundle: str) -> str:
    return f"{bundle}/shim.json"


def exit_path(bundle: str) -> str:
    return f"{bundle}/exit.json"


def start_ticks(pid: int) -> int:
    """ids.start_time of ourselves or a child, by bare system calls; a zombie's as well."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 4096).rpartition(b")")[2].split()[19])
    finally:
        os.close(fd)


def write_shim(start: Mapping[str, Any], pid: int, init_pid: int | None, init_start: int) -> None:
    """`start`: Start.to_json; `pid` is the shim's. With init None: a container is about to be created by it."""
    init = None if init_pid is None else {"pid": init_pid, "start": init_start}
    record = {
        "boot": start["boot"],
        "pid": pid,
        "start": start_ticks(pid),
        "socket": start["socket"],
        "init": init,
    }
    files.write_atomic(shim_path(start["bundle"]), dumps(record), durable=False)


def write_exit(
    bundle: str, boot: str, code: int, started: str, finished: str, error: str = ""
) -> None:
    """Survives every process of ours, not a power cut, after which no container runs anyway."""
    record: dict[str, object] = {
        "boot": boot,
        "code": code,
        "started": started,
        "finished": finished,
        "oom": False,
    }
    if error:
        record["error"] = error
    files.write_atomic(exit_path(bundle), dumps(record), durable=False)
