from __future__ import annotations

import pytest

from dockpy.api.routes import RouteTable, split_version
from dockpy.errors import InvalidParameter, NotFound


@pytest.mark.parametrize(
    ("method", "path", "name", "values"),
    [
        ("GET", "/_ping", "ping", {}),
        ("GET", "/images/a.b/c/d:e/json", "image_inspect", {"name": "a.b/c/d:e"}),
        ("DELETE", "/images/json", "image_remove", {"name": "json"}),
        ("GET", "/images/json", "image_list", {}),
        ("POST", "/containers/a%2Fb/start", "container_start", {"id": "a/b"}),
        ("GET", "/containers/x/attach/ws", "attach_websocket", {"id": "x"}),
        ("POST", "/nodes/a/update", "swarm", {"id": "a/update"}),
    ],
)
def test_a_path_finds_its_handler(
    method: str, path: str, name: str, values: dict[str, str]
) -> None:
    assert RouteTable().find(method, path) == (name, values)


@pytest.mark.parametrize(
    "path", ["/", "*", "http://x/_ping", "/containers", "/containers//json", "/nope", "/_pingg"]
)
def test_other_paths_are_not_found(path: str) -> None:
    with pytest.raises(NotFound, match="page not found"):
        RouteTable().find("GET", path)


def test_versions() -> None:
    assert split_version("/v1.43/info") == ((1, 43), "/info")
    assert split_version("/info") == ((1, 50), "/info")
    with pytest.raises(InvalidParameter, match=r"too new.*1\.50"):
        split_version("/v1.51/info")
    with pytest.raises(InvalidParameter, match=r"too old.*1\.40"):
        split_version("/v1.24/info")
    with pytest.raises(InvalidParameter):
        split_version("/v1.4x/info")
