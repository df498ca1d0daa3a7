"""Control groups of version 2: delegated by systemd to a user, and root's."""

from __future__ import annotations

import pytest

from tests.lab.machine import Machine

IMAGE = "localhost/busybox:latest"
HOG = "x=x; while :; do x=$x$x; done"


@pytest.mark.parametrize("user", ["single", "ranged", "root"])
def test_limits_memory_and_standing_still(machine: Machine, user: str) -> None:
    def shell(script: str) -> str:
        done = machine.shell(script, user=user, timeout=300)
        assert done.code == 0, (script, done)
        return done.out.strip()

    # Under emulation a daemon may be born too late for the client that asked for it, not for the next one.
    shell("for i in 1 2 3; do dockpy version > /dev/null && break; done")
    shell("dockpy load -qi /lab/busybox.tar")
    form = "{{.CgroupDriver}} {{.CgroupVersion}} {{.MemoryLimit}} {{.PidsLimit}} {{.CpuCfsQuota}}"
    assert shell(f"dockpy info -f '{form}'") == "cgroupfs 2 true true true"
    flags = "--network none -m 64m --memory-swap 64m --pids-limit 20 --cpus 0.5"
    name = shell(f"dockpy run -d {flags} {IMAGE} sh -c 'while :; do date +%N > /now; done'")
    # Its own cgroup namespace is rooted in its group, and so is what it sees of the tree.
    assert shell(f"dockpy exec {name} cat /proc/self/cgroup /proc/1/cgroup") == "0::/\n0::/"
    files = " ".join(f"/sys/fs/cgroup/{one}.max" for one in ("memory", "pids", "cpu"))
    seen = f"dockpy exec {name} cat {files}"
    assert shell(seen) == f"{64 << 20}\n20\n50000 100000"
    # A user's groups are below their own systemd's, where it is delegated, and not root's.
    group = shell(f"cut -d: -f3 /proc/$(dockpy inspect -f '{{{{.State.Pid}}}}' {name})/cgroup")
    above = {
        "single": "/user@1000.service/",
        "ranged": "/user@1001.service/",
        "root": "/system.slice/",
    }
    assert above[user] in group, group
    assert shell(f"dockpy stats --no-stream --format '{{{{.MemUsage}}}}' {name}").endswith(
        "/ 64MiB"
    )
    shell(f"dockpy pause {name}")
    pid = shell(f"dockpy inspect -f '{{{{.State.Pid}}}}' {name}")
    frozen = f"cat /sys/fs/cgroup$(cut -d: -f3 /proc/{pid}/cgroup)/cgroup.events"
    assert "frozen 1" in shell(frozen)
    shell(f"dockpy unpause {name}")
    assert "frozen 0" in shell(frozen)
    shell(f"dockpy update --pids-limit 30 {name}")
    assert shell(seen) == f"{64 << 20}\n30\n50000 100000"
    # Told when it happens, to who goes on.
    assert machine.shell(f"dockpy exec {name} sh -c '{HOG}'", user=user).code == 137
    asked = "--since 10m --until $(date +%s.%N) --filter event=oom --format '{{.Action}}'"
    assert shell(f"dockpy events {asked} --filter container={name}") == "oom"
    assert shell(f"dockpy inspect -f '{{{{.State.OOMKilled}}}}' {name}") == "true"
    shell(f"dockpy rm -f {name}")

    many = f"dockpy run --rm {flags} {IMAGE} sh -c 'for i in $(seq 40); do sleep 5 & done' 2>&1"
    assert "can't fork" in machine.shell(many, user=user).out
    done = machine.shell(f"dockpy run --name hog {flags} {IMAGE} sh -c '{HOG}'", user=user)
    assert done.code == 137, done
    form = "{{.State.OOMKilled}} {{.State.ExitCode}}"
    assert shell(f"dockpy inspect -f '{form}' hog") == "true 137"
    assert shell(f"dockpy events {asked} --filter container=hog") == "oom"
    shell("dockpy rm hog && dockpy daemon stop")
    assert machine.shell(f"find /sys/fs/cgroup -name '{name}'").out == ""
