"""Which create requests are served, refused by name, or served with a warning."""

from __future__ import annotations

import pytest

from dockpy.api.container import ContainerCreate
from dockpy.errors import DockpyError, InvalidParameter, NotServed
from dockpy.supervisor import served
from dockpy.supervisor.signals import signal_number


def check(host: dict[str, object] | None = None, **config: object) -> list[str]:
    return served.check(ContainerCreate.from_json({"Image": "x", "HostConfig": host, **config}))


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ({"Binds": ["data:/data"]}, "-v data:/data"),
        ({"Mounts": [{"Type": "volume", "Target": "/data"}]}, "type volume"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}, "-p"),
        ({"PublishAllPorts": True}, "-P"),
        ({"VolumesFrom": ["x"]}, "--volumes-from"),
        ({"DeviceRequests": [{"Count": -1}]}, "--gpus"),
        ({"Links": ["a:b"]}, "--link"),
        ({"SecurityOpt": ["apparmor=mine"]}, "apparmor=mine"),
        ({"StorageOpt": {"size": "1g"}}, "--storage-opt"),
        ({"ExtraHosts": ["h:host-gateway"]}, "host-gateway"),
    ],
)
def test_what_is_not_served_is_refused_by_name(host: dict[str, object], named: str) -> None:
    with pytest.raises(NotServed, match=named):
        check(host)


def test_an_anonymous_volume_is_a_folder_of_the_container_and_said_so() -> None:
    assert any("-v /host/path:/data" in warning for warning in check(Volumes={"/data": {}}))


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ({"NetworkMode": "mine"}, InvalidParameter),
        ({"Binds": ["/a"]}, InvalidParameter),
        ({"Binds": ["/a:b"]}, InvalidParameter),
        ({"Binds": ["/a:/b:loud"]}, InvalidParameter),
        ({"Binds": ["/a:/b", "/c:/b/"]}, InvalidParameter),
        ({"Binds": ["/a:/"]}, InvalidParameter),
        ({"CapAdd": ["FLY"]}, InvalidParameter),
        ({"PidMode": "mine"}, InvalidParameter),
        ({"Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": 8}]}, InvalidParameter),
        ({"Sysctls": {"kernel.panic": "1"}}, InvalidParameter),
        ({"Sysctls": {"net.core.somaxconn": "1"}, "NetworkMode": "host"}, InvalidParameter),
        ({"LogConfig": {"Type": "syslog"}}, InvalidParameter),
        ({"LogConfig": {"Type": "local", "Config": {"max-sizes": "1m"}}}, InvalidParameter),
        ({"AutoRemove": True, "RestartPolicy": {"Name": "always"}}, InvalidParameter),
        ({"Runtime": "kata"}, InvalidParameter),
        ({"SecurityOpt": ["nonsense"]}, InvalidParameter),
        ({"DockpyLease": True, "RestartPolicy": {"Name": "always"}}, InvalidParameter),
        ({"DockpyTimeout": 1, "RestartPolicy": {"Name": "on-failure"}}, InvalidParameter),
        ({"DockpyTimeout": -1}, InvalidParameter),
    ],
)
def test_what_docker_refuses_is_refused(host: dict[str, object], error: type[DockpyError]) -> None:
    with pytest.raises(error):
        check(host)


def test_a_limit_of_the_address_space_is_served_though_no_client_of_dockers_asks_for_it() -> None:
    limits = [{"Name": "as", "Soft": 1 << 30, "Hard": 1 << 30}]
    assert check({"Ulimits": limits, "NetworkMode": "host"}) == []


def test_bridge_says_in_one_line_what_it_is() -> None:
    (warning,) = check({})
    assert "loopback only" in warning
    assert check({"NetworkMode": "host"}) == []


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("TERM", 15), ("sigint", 2), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
)
def test_signals_by_any_spelling(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["0", "65", "NOPE", "", "RTMIN+99"])
def test_other_signals_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid signal"):
        signal_number(text)
