"""/etc/subuid's grammar and what is made of it."""

from __future__ import annotations

from pathlib import Path

from dockpy.rootless import subids
from dockpy.rootless.subids import Range


def test_a_user_stands_there_by_name_or_by_number() -> None:
    text = "root:1:1\npeer:100000:65536\n1001:300000:10\npeer2:5:5\n"
    assert subids.parse(text, "peer", 1001) == (Range(100000, 65536), Range(300000, 10))


def test_nonsense_is_skipped() -> None:
    text = "# peer\npeer\npeer:x:1\npeer:1\npeer:5:0\npeer:-1:4\n peer:7:8 \n\0\npeer:1:2:3\n"
    assert subids.parse(text, "peer", 1001) == (Range(7, 8),)


def test_a_missing_file_has_no_ranges(tmp_path: Path) -> None:
    assert subids.ranges_of(str(tmp_path / "subuid"), "peer", 1001) == ()


def test_ranges_follow_each_other_inside() -> None:
    ranges = (Range(100000, 65536), Range(300000, 10))
    expected = "0 1001 1 1 100000 65536 65537 300000 10".split()
    assert subids.mapping(1001, ranges) == expected
