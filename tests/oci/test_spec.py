from __future__ import annotations

import json
from typing import Any

import pytest

from dockpy.errors import InvalidParameter
from dockpy.oci.spec import Spec

WHOLE: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 63, "additionalGids": [3, 0], "username": "bob"},
        "args": ["sh", "-c", ""],
        "env": ["A=1", "B="],
        "cwd": "/",
        "capabilities": {
            "bounding": ["CAP_KILL"],
            "effective": ["CAP_KILL"],
            "inheritable": [],
            "permitted": ["CAP_KILL"],
            "ambient": [],
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 18446744073709551615}],
        "noNewPrivileges": True,
        "oomScoreAdj": 0,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h",
    "domainname": "d",
    "mounts": [{"destination": "/", "type": "bind", "source": "/x", "options": ["rbind", "ro"]}],
    "annotations": {"a": ""},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "devices": [
            {
                "path": "/dev/fuse",
                "type": "c",
                "major": 10,
                "minor": 229,
                "fileMode": 438,
                "uid": 0,
                "gid": 0,
            }
        ],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "rootfsPropagation": "rslave",
        "cgroupsPath": "/dockpy/x",
    },
}


def test_everything_we_know_survives_the_round_trip() -> None:
    spec = Spec.from_json(WHOLE)
    assert json.loads(json.dumps(spec.to_json())) == WHOLE
    assert Spec.from_json(spec.to_json()) == spec


def test_null_is_absent_and_unknown_fields_are_not_kept() -> None:
    least: dict[str, Any] = {
        "ociVersion": "1.0.0",
        "process": {"args": ["x"], "cwd": "/", "capabilities": None, "apparmorProfile": "p"},
        "root": {"path": "r"},
        "mounts": None,
        "hooks": {"prestart": []},
        "linux": {"resources": {}},
    }
    spec = Spec.from_json(least)
    assert spec.mounts == ()
    assert spec.process.capabilities is None
    assert spec.process.oom_score_adj is None
    assert "hooks" not in spec.to_json()


def test_no_capabilities_differ_from_none_named() -> None:
    process = {"args": ["x"], "cwd": "/", "capabilities": {"bounding": []}}
    spec = Spec.from_json({"process": process, "root": {"path": "r"}})
    assert spec.process.capabilities is not None
    assert Spec.from_json(spec.to_json()) == spec


def test_a_mount_without_type_is_a_bind_by_its_options() -> None:
    mounts = [{"destination": "/a", "source": "/b", "options": ["rbind"]}]
    spec = Spec.from_json(
        {"process": {"args": ["x"], "cwd": "/"}, "root": {"path": "r"}, "mounts": mounts}
    )
    assert spec.mounts[0].type == "bind"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": None}, "process must be an object"),
        ({"process": {"cwd": "/"}}, "args"),
        ({"process": {"args": ["x"]}}, "cwd"),
        ({"process": {"args": ["x\0y"], "cwd": "/"}}, "NUL"),
        ({"process": {"args": [1], "cwd": "/"}}, "args"),
        ({"root": {}}, "path"),
        ({"mounts": {}}, "mounts must be a list"),
        ({"mounts": [{"destination": ""}]}, "destination"),
        ({"linux": {"namespaces": [{"type": 3}]}}, "type"),
        ({"linux": {"sysctl": {"a": 1}}}, "sysctl"),
        ({"process": {"args": ["x"], "cwd": "/", "user": {"uid": True}}}, "uid"),
        ({"process": {"args": ["x"], "cwd": "/", "terminal": "yes"}}, "terminal"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        Spec.from_json({**WHOLE, **change})
    with pytest.raises(InvalidParameter):
        Spec.from_json([])
