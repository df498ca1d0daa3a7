"""Our table of docker's default policy against the published file, entry by entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dockpy.oci.seccomp import Arg, Condition, kernel_version, profile_from_json
from dockpy.oci.seccomp_default import default_profile

PUBLISHED: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data/seccomp/default.json").read_text()
)


def test_every_rule_is_the_published_one() -> None:
    ours = default_profile()
    assert ours.default_action == PUBLISHED["defaultAction"]
    assert ours.default_errno_ret == PUBLISHED["defaultErrnoRet"]
    assert len(ours.rules) == len(PUBLISHED["syscalls"])
    for rule, entry in zip(ours.rules, PUBLISHED["syscalls"]):
        assert list(rule.syscall.names) == entry["names"]
        assert rule.syscall.action == entry["action"]
        assert rule.syscall.errno_ret == entry.get("errnoRet")
        assert list(rule.syscall.args) == [
            Arg(arg["index"], arg["value"], arg["op"], arg.get("valueTwo", 0))
            for arg in entry.get("args", [])
        ]
        for side, published in ((rule.includes, "includes"), (rule.excludes, "excludes")):
            condition = entry.get(published, {})
            least = condition.get("minKernel")
            assert side == Condition(
                tuple(condition.get("caps", ())),
                tuple(condition.get("arches", ())),
                kernel_version(least) if least else None,
            )


def test_every_architecture_map_is_the_published_one() -> None:
    assert list(default_profile().arch_map) == [
        (entry["architecture"], tuple(entry["subArchitectures"] or ()))
        for entry in PUBLISHED["archMap"]
    ]


def test_the_published_file_reads_as_our_table() -> None:
    assert profile_from_json(PUBLISHED) == default_profile()
