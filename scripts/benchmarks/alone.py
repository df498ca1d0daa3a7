"""Rows of dockpy alone: sizes, and times that have no counterpart."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.engines import Engine
from scripts.benchmarks.report import quartiles, verdict
from scripts.benchmarks.rows import LOG_LINE


def pss(pids: Sequence[int]) -> float:
    """MiB, shared pages divided among those who share them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def processes(engine: Engine) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in json.loads(engine.text("daemon", "status", "--format", "json"))["processes"]:
        found.setdefault(row["role"], []).append(row["pid"])
    return found


def sizes(engine: Engine) -> None:
    """PSS per container after 1,000 log lines and one exec; the daemon with a hundred running."""
    names: list[str] = []
    figures: dict[int, float] = {}
    for count in (1, 100):
        while len(names) < count:
            names.append(
                engine.running("sh", "-c", f"yes '{LOG_LINE}' | head -n 1000; exec sleep 1000")
            )
            engine.time("exec", names[-1], "true")
        time.sleep(3)  # the shims have come to rest (shim.main.QUIET)
        ours = processes(engine)
        figures[count] = pss(
            [pid for role, pids in ours.items() if role != "workload" for pid in pids]
        )
        if count == 100:
            daemon = pss(ours["daemon"])
    engine.drop(*names)
    each = (figures[100] - figures[1]) / 99
    print(f"memory\n  {each:.2f} MiB PSS a container; at most 1.0: {verdict(each, 1)}")
    print(f"  {daemon:.1f} MiB PSS the daemon with 100 running; under 60: {verdict(daemon, 60)}")


def first_command(engine: Engine) -> None:
    """A user's very first command, then one that only has to start the daemon again."""
    entry = pwd.getpwnam(engine.user)
    first, spawn = [], []
    for _ in range(5):
        home = tempfile.mkdtemp(prefix="dockpy-bench-")
        os.chown(home, entry.pw_uid, entry.pw_gid)
        fresh = Engine("dockpy", engine.command, engine.user, {"HOME": home})
        first.append(fresh.time("run", "--rm", "dockpy.builtin/hello") / 1e3)
        fresh.time("daemon", "stop")
        time.sleep(0.5)
        cold = fresh.time("ps") / 1e3
        spawn.append(cold - fresh.time("ps") / 1e3)
        fresh.time("daemon", "stop")
        shutil.rmtree(home, ignore_errors=True)
    for title, found, bound in (
        ("the very first command", first, 4.0),
        ("a later start of the daemon", spawn, 0.7),
    ):
        low, middle, high = quartiles(found)
        told = verdict(middle, bound)
        print(f"{title}\n  {middle:.2f} s ({low:.2f} to {high:.2f}); under {bound}: {told}")
