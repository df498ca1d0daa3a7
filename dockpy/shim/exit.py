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


def write_shim(start: Mapping[str, Any], pid: int) -> None:
    """`start`: Start.to_json; `pid` is the shim's. A container is about to be created by it."""
    os.rename(prepare_shim(start, pid, None), shim_path(start["bundle"]))


def prepare_shim(start: Mapping[str, Any], pid: int, init: tuple[int, int] | None) -> str:
    """The name of a file that is to be renamed to shim_path; `init`: pid and start in ticks."""
    record = {
        "boot": start["boot"],
        "pid": pid,
        "start": start_ticks(pid),
        "socket": start["socket"],
        "init": None if init is None else {"pid": init[0], "start": init[1]},
    }
    return files.write_temporary(shim_path(start["bundle"]), dumps(record), durable=False)


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
