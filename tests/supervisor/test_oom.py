"""That memory has run out is told when it happens: by this kernel's groups, and by files as version 2 has them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import trio

from dockpy.linux import cgroup
from dockpy.supervisor.groups import Groups, find
from dockpy.supervisor.oom import OomWatch

HOG = "x=x; while :; do x=$x$x; done"


def test_each_time_is_told_and_each_group_for_itself(tmp_path: Path) -> None:
    groups = find(str(tmp_path), 0)
    if groups.version != 1 or groups.folder("/", "memory") is None:
        pytest.skip("no memory groups of version 1 can be made here")
    paths = [groups.path("a" * 64), groups.path("b" * 64)]
    told: list[str] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            watch = OomWatch(groups, nursery)
            for path in paths:
                groups.make(path, [("memory", "memory.limit_in_bytes", str(8 << 20))])
                watch.begin(path, lambda path=path: told.append(path))  # type: ignore[misc]  # its own
            for count in (1, 2):
                child = await trio.to_thread.run_sync(_hog, groups, paths[0])
                assert child == -9
                with trio.fail_after(5):
                    while len(told) < count:
                        await trio.sleep(0.01)
            watch.end(paths[0])
            groups.end(paths[0])
            await trio.sleep(0.05)
            watch.end(paths[1])
            nursery.cancel_scope.cancel()

    try:
        trio.run(main)
    finally:
        for path in paths:
            groups.end(path)
    assert told == [paths[0], paths[0]]


def _hog(groups: Groups, path: str) -> int:
    folder = groups.folder(path, "memory")
    assert folder is not None
    script = f"read go; {HOG}"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as child:
        cgroup.join(folder, child.pid)
        assert child.stdin is not None
        child.stdin.close()
        return child.wait(30)


def test_version_2_counts_and_its_other_counters_are_nothing(tmp_path: Path) -> None:
    groups = Groups(2, "", {"": str(tmp_path), "memory": str(tmp_path)})
    told: list[str] = []

    def write(name: str, kills: int, high: int) -> None:
        fd = os.open(tmp_path / name / "memory.events", os.O_WRONLY)
        os.write(fd, f"high {high}\noom {kills}\noom_kill {kills}\n".encode())
        os.close(fd)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            watch = OomWatch(groups, nursery)
            for name in ("a", "b"):
                (tmp_path / name).mkdir()
                (tmp_path / name / "memory.events").touch()
                write(name, 1, 0)
                watch.begin(f"/{name}", lambda name=name: told.append(name))  # type: ignore[misc]  # its own
            write("b", 1, 7)
            write("a", 2, 0)
            with trio.fail_after(5):
                while not told:
                    await trio.sleep(0.01)
            # What has not been looked at yet is told before the end.
            write("b", 3, 0)
            watch.end("/b")
            watch.end("/a")
            watch.end("/never")
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert told == ["a", "b"]
