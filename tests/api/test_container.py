"""Bodies of create: what parses, what comes back, what is refused."""

from __future__ import annotations

import pytest

from dockpy.api.container import Config, ContainerCreate, HostConfig
from dockpy.errors import InvalidParameter


def test_null_and_absent_are_the_zero_value() -> None:
    request = ContainerCreate.from_json({"Image": "x", "Env": None, "HostConfig": None})
    assert request.config == Config(image="x")
    assert request.host_config == HostConfig()


def test_no_command_differs_from_an_empty_one() -> None:
    assert ContainerCreate.from_json({"Cmd": None}).config.cmd is None
    assert ContainerCreate.from_json({"Cmd": []}).config.cmd == ()
    assert ContainerCreate.from_json({"Cmd": "ls"}).config.cmd == ("ls",)


def test_what_was_sent_comes_back_in_inspect() -> None:
    host = {
        "Binds": ["/a:/b:ro"],
        "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 5}}],
        "Ulimits": [{"Name": "nofile", "Hard": 9, "Soft": 8}],
        "CapAdd": ["NET_ADMIN"],
        "Tmpfs": {"/x": "rw"},
        "Init": True,
        "ConsoleSize": [24, 80],
        "PidsLimit": 7,
    }
    back = ContainerCreate.from_json({"HostConfig": host}).host_config.to_json()
    for name in set(host) - {"Mounts"}:
        assert back[name] == host[name]
    assert back["Mounts"] == [
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 5, "Mode": 0}}
    ]


def test_lists_that_nobody_gave_are_null_as_in_go() -> None:
    back = HostConfig().to_json()
    assert back["Binds"] is None
    assert back["Dns"] == []
    assert "Mounts" not in back


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "the body must be an object"),
        ({"Image": 3}, "Image must be a string, not a number"),
        ({"Env": "A=1"}, "Env must be an array of strings"),
        ({"Env": [1]}, "Env must be a string"),
        ({"HostConfig": {"Memory": "1g"}}, "HostConfig.Memory must be a whole number"),
        ({"HostConfig": {"Memory": 1 << 70}}, "HostConfig.Memory is out of range"),
        ({"HostConfig": {"Privileged": 1}}, "HostConfig.Privileged must be a boolean"),
        ({"Labels": {"a": 1}}, "Labels.a must be a string"),
        ({"Cmd": ["a\0b"]}, "null byte"),
        ({"HostConfig": {"Mounts": [[]]}}, "HostConfig.Mounts must be an object"),
    ],
)
def test_a_wrong_type_is_named(body: object, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said.replace(".", r"\.")):
        ContainerCreate.from_json(body)
