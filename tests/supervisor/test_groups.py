"""One container's group: made with limits, joined, counted, ended; on this kernel and on a tree of files."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dockpy.errors import DockpyError
from dockpy.linux import cgroup
from dockpy.linux.proctable import Table
from dockpy.supervisor.counters import count
from dockpy.supervisor.groups import Groups, find

CID = "c" * 64


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Groups]:
    if cgroup.version() == 2 and cgroup.own():
        pytest.skip("it could be the test's own group that is divided")
    found = find(str(tmp_path), os.getppid())
    if not found.version:
        pytest.skip("no control groups can be made here")
    yield found
    found.leave()
    assert not any(os.path.exists(folder) for folder in found.folders(found.base))


def test_a_life(groups: Groups) -> None:
    path = groups.path(CID)
    limits = [("pids", "pids.max", "5")] if "pids" in groups.roots else []
    groups.make(path, limits)
    child = subprocess.Popen(["sleep", "60"])
    try:
        groups.gather(path, lambda: [child.pid])
        assert not groups.removed(path)
        counted = count(groups, path, 1 << 40)
        if limits:
            assert counted.pids == {"current": 1, "limit": 5}
        assert groups.oom_kills(path) == 0
        groups.make(path, [])  # what is in it belongs to an earlier run
        assert child.wait(5) == -9
        assert all(os.path.isdir(folder) for folder in groups.folders(path))
        groups.sweep()
        assert not any(os.path.exists(folder) for folder in groups.folders(path))
        assert groups.removed(path)
    finally:
        child.kill()
        child.wait()
        groups.end(path)


def test_groups_that_come_while_the_last_one_goes_take_processes(groups: Groups) -> None:
    wrong: list[object] = []

    def lives(letter: str) -> None:
        path = groups.path(letter * 64)
        for _ in range(40):
            child = subprocess.Popen(["sleep", "60"])
            try:
                groups.make(path, [])
                groups.gather(path, partial(list, [child.pid]))
            except (OSError, DockpyError) as error:
                wrong.append(error)
            finally:
                child.kill()
                child.wait()
                groups.end(path)

    threads = [threading.Thread(target=lives, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_limit_that_the_kernel_refuses_is_named(groups: Groups) -> None:
    if "pids" not in groups.roots:
        pytest.skip("no pids controller")
    try:
        with pytest.raises(DockpyError, match='failed to write "many" to ".*pids.max": Invalid'):
            groups.make(groups.path(CID), [("pids", "pids.max", "many")])
    finally:
        groups.end(groups.path(CID))


def test_a_container_that_never_rests_is_gathered_in_the_end(groups: Groups) -> None:
    path = groups.path(CID)
    groups.make(path, [])
    busy = subprocess.Popen(["sh", "-c", "while :; do (sleep 0.02) & sleep 0.01; done"])
    looks: list[list[int]] = []

    def members() -> list[int]:
        assert len(looks) < 50, "it follows every new process"
        looks.append([busy.pid, *(one.pid for one in Table().below(busy.pid))])
        return looks[-1]

    try:
        groups.gather(path, members)
        assert len(looks) > 1
        for folder in groups.folders(path):
            assert busy.pid in cgroup.members(folder)
    finally:
        groups.end(path)
        busy.wait(5)


def test_a_parent_of_the_user_s_choice() -> None:
    groups = Groups(2, "/dockpy-1", {"": "/x"})
    assert groups.path("c") == "/dockpy-1/c"
    assert groups.path("c", "mine") == "/mine/c"
    assert groups.path("c", "/../../a/../b") == "/b/c"
    assert groups.folder(groups.path("c"), "") == "/x/dockpy-1/c"
    assert groups.folder("", "") is None
    assert Groups().folders("/a") == []


def test_what_version_2_counts(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    folder.mkdir()
    for name, text in {
        "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n",
        "memory.current": "4096\n",
        "memory.max": "max\n",
        "memory.stat": "anon 5\ninactive_file 6\n",
        "memory.events": "oom 1\noom_kill 1\n",
        "pids.current": "2\n",
        "pids.max": "9\n",
        "io.stat": "8:0 rbytes=7 wbytes=8 rios=1\n8:16\n",
    }.items():
        (folder / name).write_text(text)
    groups = Groups(2, "", {"": str(tmp_path), "memory": str(tmp_path)})
    counted = count(groups, "/g", 1 << 30)
    assert counted.whole and counted.cpu is not None
    assert (counted.cpu.total, counted.cpu.throttling) == (30_000, (4, 3, 2000))
    assert counted.memory == {
        "usage": 4096,
        "stats": {"anon": 5, "inactive_file": 6},
        "limit": 1 << 30,
    }
    assert counted.pids == {"current": 2, "limit": 9}
    assert counted.io is not None
    assert counted.io["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 0, "op": "read", "value": 7},
        {"major": 8, "minor": 0, "op": "write", "value": 8},
    ]
    assert groups.oom_kills("/g") == 1
    assert not count(Groups(), "/g", 1).whole
