"""Control groups of the kernel that runs these tests, of either version, where they may be made."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockpy.linux import cgroup

TREES = [cgroup.MOUNT, f"{cgroup.MOUNT}/unified", f"{cgroup.MOUNT}/freezer"]


@pytest.fixture(params=TREES)
def group(request: pytest.FixtureRequest) -> Iterator[str]:
    root = request.param
    if not os.path.exists(f"{root}/cgroup.procs"):
        pytest.skip(f"no tree at {root}")
    folder = f"{root}/dockpy-test-{os.getpid()}"
    try:
        cgroup.make(folder)
    except OSError as error:
        pytest.skip(f"no group can be made in {root}: {error}")
    yield folder
    while not cgroup.remove(folder):
        cgroup.thaw(folder)
        cgroup.kill(folder)
        time.sleep(0.01)
    assert not os.path.exists(folder)


def looping(group: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(["sh", "-c", "while :; do echo; done"], stdout=subprocess.PIPE)
    cgroup.join(group, child.pid)
    return child


def test_frozen_killed_removed(group: str) -> None:
    child = looping(group)
    assert not cgroup.remove(group)
    assert cgroup.freeze(group, 5)
    assert cgroup.frozen(group)
    cgroup.thaw(group)
    assert not cgroup.frozen(group)
    cgroup.kill(group)
    assert child.wait(5) == -9
    assert child.stdout is not None
    child.stdout.close()


def test_groups_below_go_with_it(group: str) -> None:
    below = cgroup.make_below(group, "/a/b")
    assert below == f"{group}/a/b"
    child = looping(below)
    assert not cgroup.remove(group)
    cgroup.kill(group)
    child.wait(5)
    assert child.stdout is not None
    child.stdout.close()
    while not cgroup.remove(group):
        time.sleep(0.01)
    assert not os.path.exists(group)
    cgroup.make(group)


def test_a_process_that_has_ended_joins_nothing(group: str) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    cgroup.join(group, child.pid)
    assert cgroup.read(group, "cgroup.procs") == ""


def nobody(_pid: int) -> bool:
    return False


def test_a_tree_is_divided_below_a_leaf_only_when_all_in_it_is_ours() -> None:
    root = next((tree for tree in TREES[:2] if os.path.exists(f"{tree}/cgroup.controllers")), None)
    if root is None or not os.access(f"{root}/cgroup.procs", os.W_OK):
        pytest.skip("no tree of version 2 that we may write to")
    name = f"/dockpy-test-{os.getpid()}"
    cgroup.make(root + name)
    child = looping(root + name)
    try:
        assert cgroup.divide(name, os.getpid().__eq__, root) is None
        assert cgroup.divide(name, child.pid.__eq__, root) == name
        assert cgroup.read(f"{root}{name}/{cgroup.LEAF}", "cgroup.procs") == str(child.pid)
        assert cgroup.divide(f"{name}/{cgroup.LEAF}", nobody, root) == name
        assert cgroup.divide("", nobody, root) is None
    finally:
        child.kill()
        child.communicate()
        while not cgroup.remove(root + name):
            time.sleep(0.01)


def test_numbers_of_files(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "pids.max").write_text("7\n")
    (tmp_path / "memory.events").write_text("low 0\noom_kill 2\nodd\n")
    folder = str(tmp_path)
    assert cgroup.number(folder, "memory.max") is None
    assert cgroup.number(folder, "pids.max") == 7
    assert cgroup.number(folder, "nothing") is None
    assert cgroup.numbers(folder, "memory.events") == {"low": 0, "oom_kill": 2}
    assert cgroup.numbers(folder, "nothing") == {}
