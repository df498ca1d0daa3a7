"""A clock that jumps, a day ahead and then two back: nothing ends, hurries or waits because of it."""

from __future__ import annotations

import pytest

from tests.lab.machine import Machine

IMAGE = "localhost/busybox:latest"
JUMPS = ("+1 day", "-2 days")

# Each ends by itself; the kernel's uptime says how long it took, whatever the clock says.
BEGIN = f"""
systemctl stop systemd-timesyncd chrony 2>/dev/null
dockpy load -qi /lab/busybox.tar
dockpy run -d --name probed --health-cmd true --health-interval 1s {IMAGE} sleep 1000
dockpy run -d --name again --restart always {IMAGE} sh -c 'sleep 0.2; exit 3'
dockpy run -d --name talks {IMAGE} sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done'
dockpy run -d --name deaf {IMAGE} sh -c 'trap "" TERM; while :; do sleep 0.1; done'
"""
JUMP = """
set -e
up() { cut -d. -f1 /proc/uptime; }
dockpy logs -f --tail 1 talks > /tmp/followed & follower=$!
count=$(dockpy inspect -f '{{.RestartCount}}' again)
sleep 1
date -s "JUMP" >/dev/null
day=$(date -u +%Y-%m-%d)
begun=$(up)
dockpy stop -t 2 deaf
stopped=$(($(up) - begun))
dockpy inspect -f '{{.State.ExitCode}}' deaf
dockpy start deaf >/dev/null
tries=0
until dockpy inspect -f '{{range .State.Health.Log}}{{.Start}} {{end}}' probed | grep -q "$day"; do
    tries=$((tries+1)); [ $tries -lt 60 ]; sleep 0.5
done
until [ "$(dockpy inspect -f '{{.RestartCount}}' again)" -gt "$count" ]; do
    tries=$((tries+1)); [ $tries -lt 120 ]; sleep 0.5
done
dockpy ps --format '{{.Names}} {{.Status}}' >&2
dockpy inspect -f '{{.State.Health.Status}}' probed
kill $follower
sort -nc /tmp/followed
[ $(wc -l < /tmp/followed) -gt 5 ]
dockpy logs talks | sort -nc
[ -n "$(dockpy logs --since 5s talks)" ]
[ $stopped -ge 2 ] && [ $stopped -le 30 ]
dockpy run --rm IMAGE echo works
"""


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump(machine: Machine, jump: str) -> None:
    begun = machine.shell(BEGIN, user="root")
    assert begun.code == 0, begun.err
    try:
        done = machine.shell(JUMP.replace("JUMP", jump).replace("IMAGE", IMAGE), user="root")
        assert done.code == 0, (done.out, done.err)
        assert done.out.split() == ["deaf", "137", "healthy", "works"], done.err
        statuses = done.err.partition("WARNING")[0]
        assert statuses and "-" not in statuses, done.err  # no age is negative
    finally:
        machine.shell("dockpy rm -f probed again talks deaf; dockpy daemon stop", user="root")
