"""dockpy/images/inspect.py and history.py: what the Engine API shows of an image."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dockpy.images.inspect import unix_time
from dockpy.images.store import ImageStore
from tests.images.archives import docker_archive, image


def test_inspect_and_summary(store: ImageStore, load: Callable[[bytes], list[str]]) -> None:
    made = image("one", "two", names=["a:v1"], Env=["A=b"], Labels={"k": "v"})
    load(docker_archive(made))
    found = store.resolve("a:v1")
    full = store.inspect(found)
    assert full["Id"] == made.id
    assert full["RepoTags"] == ["a:v1"]
    assert full["RepoDigests"] == []
    assert full["Created"] == "2026-01-01T00:00:00Z"
    assert full["Config"] == {"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"k": "v"}}
    assert full["RootFS"] == {"Type": "layers", "Layers": list(found.config.diff_ids)}
    assert full["Os"] == "linux"
    assert isinstance(full["Size"], int) and full["Size"] > 0
    short = store.summary(found)
    assert short["Created"] == 1767225600
    assert short["Labels"] == {"k": "v"}
    assert short["SharedSize"] == short["Containers"] == -1
    assert short["ParentId"] == ""


def test_history_is_newest_first_and_only_the_top_has_a_name(
    store: ImageStore, load: Callable[[bytes], list[str]]
) -> None:
    made = image("one", "two", names=["a:v1"])
    load(docker_archive(made))
    rows = store.history(store.resolve("a:v1"))
    assert [row["CreatedBy"] for row in rows] == ["made two", "made one"]
    assert [row["Id"] for row in rows] == [made.id, "<missing>"]
    assert [row["Tags"] for row in rows] == [["a:v1"], None]
    assert all(isinstance(row["Size"], int) and row["Size"] >= 3 for row in rows)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:01:00.123456789Z", 60),
        ("1970-01-01T02:00:00+01:00", 3600),
        ("1969-12-31T23:00:00-01:00", 0),
        ("", 0),
        ("yesterday", 0),
        ("0001-01-01T00:00:00Z", -62135596800),
    ],
)
def test_times(text: str, seconds: int) -> None:
    assert unix_time(text) == seconds
