"""`update`: limits and the restart policy of containers that exist."""

from __future__ import annotations

from dockpy.client import create_body
from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

_NUMBERS = (
    ("blkio-weight", "BlkioWeight"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("cpu-shares", "CpuShares"),
    ("pids-limit", "PidsLimit"),
)
_TEXTS = (("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems"))
_BYTES = (
    ("kernel-memory", "KernelMemory"),
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
)


def update_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    from dockpy.client import units

    body: dict[str, object] = {}
    try:
        for flag, field in _NUMBERS:
            if options.given(flag):
                body[field] = options.number(flag)
        for flag, field in _TEXTS:
            if options.given(flag):
                body[field] = options.text(flag)
        for flag, field in _BYTES:
            if options.given(flag):
                body[field] = units.ram_bytes(options.text(flag))
        if options.given("cpus"):
            body["NanoCpus"] = units.nano_cpus(options.text("cpus"))
        if options.given("restart"):
            body["RestartPolicy"] = create_body.restart_policy(options.text("restart"))
    except ValueError as error:
        raise CommandError(str(error)) from None
    if not body:
        raise CommandError("you must provide one or more flags when using this command")
    failures = []
    warnings: list[str] = []
    for name in arguments:
        try:
            reply = cli.connection.post(f"/containers/{quote(name)}/update", json=body)
        except ApiError as error:
            failures.append(str(error))
            continue
        out(f"{name}\n")
        told = reply.get("Warnings") if isinstance(reply, dict) else None
        warnings += told if isinstance(told, list) else []
    if warnings:
        out("\n".join(warnings) + "\n")  # docker: not on stderr
    if failures:
        raise CommandError("\n".join(failures))
    return 0
