"""Entering namespaces, each time in a process of its own: there is no way back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    prelude = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from dockpy.errors import Unavailable\n"
        "from dockpy.rootless.enter import enter, join, tier_of\n"
    )
    line = ["/usr/bin/python3", "-IS", "-c", prelude + code]
    if user is not None:
        line = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *line]
    return subprocess.run(line, capture_output=True, text=True, timeout=30)


def said(code: str, user: str | None = None) -> list[str]:
    done = run(code, user)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def needs_user(name: str) -> None:
    if os.geteuid() != 0 or run("pass", name).returncode:
        pytest.skip(f"needs root to become {name}, and {name} to be able to read the source tree")


LOOK = """
print(tier, os.geteuid(), os.getegid(), *open('/proc/self/uid_map').read().split())
print(open('/proc/self/setgroups').read().strip())
print(sum(' shared:' in line for line in open('/proc/self/mountinfo')))
"""


def test_one_id_is_enough() -> None:
    tier, _, shared = said("tier = enter('single')" + LOOK)
    assert tier == f"single 0 0 0 {os.geteuid()} 1"
    assert shared == "0"


def test_a_user_without_ranges_gets_one_id() -> None:
    needs_user("plain")
    tier, setgroups, shared = said("tier = enter()" + LOOK, "plain")
    assert tier.split()[:3] == ["single", "0", "0"]
    assert (setgroups, shared) == ("deny", "0")


def test_a_user_with_ranges_gets_them() -> None:
    needs_user("peer")
    tier, setgroups, shared = said("tier = enter()" + LOOK, "peer")
    words = tier.split()
    assert words[:3] == ["subuid", "0", "0"]
    assert words[-3:] == ["1", "100000", "65536"]
    assert (setgroups, shared) == ("allow", "0")


def test_ranges_that_newuidmap_refuses_fall_back_to_one_id() -> None:
    """What the files say is not what the programs allow: tried, in a child, before it is too late."""
    needs_user("plain")
    code = (
        "from dockpy.rootless import subids\n"
        "subids.ranges_of = lambda *_: (subids.Range(5_000_000, 10),)\n"
        "tier = enter()"
    )
    tier, _, shared = said(code + LOOK, "plain")
    assert tier.split()[0] == "single"
    assert shared == "0"


def test_the_namespaces_of_a_living_process_are_entered() -> None:
    code = """
ready, tell = os.pipe()
hold, end = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(end)
    os.write(tell, enter('single').encode())
    os.read(hold, 1)
    os._exit(0)
tier = os.read(ready, 20).decode()
join(pid, tier)
print(all(os.readlink(f'/proc/{pid}/ns/{k}') == os.readlink(f'/proc/self/ns/{k}') for k in ('user', 'mnt')))
print(os.geteuid())
"""
    assert said(code) == ["True", "0"]


def test_a_limit_of_none_is_told_with_its_remedy() -> None:
    code = """
enter('single')
open('/proc/sys/user/max_user_namespaces', 'w').write('0')
try:
    enter('single')
except Unavailable as error:
    print(error)
"""
    (text,) = said(code)
    assert "user namespaces are switched off here" in text
    assert "sysctl -w user.max_user_namespaces=15000" in text


def test_a_reached_limit_is_told_as_such() -> None:
    code = """
enter('single')
open('/proc/sys/user/max_user_namespaces', 'w').write('1')
if os.fork() == 0:
    enter('single')
    import time; time.sleep(3); os._exit(0)
import time; time.sleep(0.5)
try:
    enter('single')
except Unavailable as error:
    print(error, flush=True)
os._exit(0)
"""
    (text,) = said(code)
    assert text.startswith("the limit of user namespaces is reached")


def test_an_unknown_tier_is_refused() -> None:
    code = "try: enter('best')\nexcept Unavailable as error: print(error)"
    assert said(code) == ["there is no tier 'best'; there are root, subuid, single"]


def test_this_module_starts_no_thread_and_loads_little() -> None:
    code = "print(len(os.listdir('/proc/self/task')), 'trio' in sys.modules)"
    assert said(code) == ["1 False"]
    assert sys.version_info >= (3, 9)


def test_root_of_a_namespace_with_one_id_is_no_root() -> None:
    line = ["unshare", "-rm", "/usr/bin/python3", "-IS", "-c"]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from dockpy.rootless.enter import enter; print(enter())"
    )
    done = subprocess.run([*line, code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("single\n", "")


@pytest.mark.parametrize("tier", ["root", "single", "subuid"])
def test_the_tier_of_a_living_process_is_seen(tier: str) -> None:
    user = "peer" if tier == "subuid" else None
    if tier != "single" and os.geteuid() != 0:
        pytest.skip("needs root")
    if user is not None:
        needs_user(user)
    code = f"""
import signal
out, into = os.pipe()
child = os.fork()
if child == 0:
    enter({tier!r})
    os.write(into, b"1")
    signal.pause()
os.read(out, 1)
print(tier_of(child))
os.kill(child, 9)
"""
    assert said(code, user) == [tier]
