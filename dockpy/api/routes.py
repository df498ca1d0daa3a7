"""Which handler serves which request: one table, and its matching. `{name…}` may contain slashes.

Handlers are named, not referenced: the daemon wires them, the client reads the paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dockpy import API_VERSION, MIN_API_VERSION
from dockpy.errors import InvalidParameter, NotFound
from dockpy.http.messages import decode_segment

ROUTES: tuple[tuple[str, str, str], ...] = (
    ("GET", "/_ping", "ping"),
    ("HEAD", "/_ping", "ping"),
    ("GET", "/version", "version"),
    ("GET", "/info", "info"),
    ("GET", "/events", "events"),
    ("GET", "/system/df", "disk_usage"),
    ("POST", "/auth", "auth"),
    ("GET", "/containers/json", "container_list"),
    ("POST", "/containers/create", "container_create"),
    ("POST", "/containers/prune", "container_prune"),
    ("GET", "/containers/{id}/json", "container_inspect"),
    ("GET", "/containers/{id}/top", "container_top"),
    ("GET", "/containers/{id}/logs", "container_logs"),
    ("GET", "/containers/{id}/attach/ws", "attach_websocket"),
    ("GET", "/containers/{id}/stats", "container_stats"),
    ("GET", "/containers/{id}/changes", "container_changes"),
    ("GET", "/containers/{id}/export", "container_export"),
    ("HEAD", "/containers/{id}/archive", "container_archive"),
    ("GET", "/containers/{id}/archive", "container_archive"),
    ("PUT", "/containers/{id}/archive", "container_archive"),
    ("POST", "/containers/{id}/resize", "container_resize"),
    ("POST", "/containers/{id}/start", "container_start"),
    ("POST", "/containers/{id}/stop", "container_stop"),
    ("POST", "/containers/{id}/restart", "container_restart"),
    ("POST", "/containers/{id}/kill", "container_kill"),
    ("POST", "/containers/{id}/attach", "container_attach"),
    ("POST", "/containers/{id}/wait", "container_wait"),
    ("POST", "/containers/{id}/rename", "container_rename"),
    ("POST", "/containers/{id}/update", "container_update"),
    ("POST", "/containers/{id}/pause", "container_pause"),
    ("POST", "/containers/{id}/unpause", "container_unpause"),
    ("POST", "/containers/{id}/exec", "exec_create"),
    ("DELETE", "/containers/{id}", "container_remove"),
    ("POST", "/exec/{id}/start", "exec_start"),
    ("POST", "/exec/{id}/resize", "exec_resize"),
    ("GET", "/exec/{id}/json", "exec_inspect"),
    ("GET", "/images/json", "image_list"),
    ("POST", "/images/create", "image_create"),
    ("POST", "/images/load", "image_load"),
    ("GET", "/images/get", "image_save"),
    ("GET", "/images/search", "image_search"),
    ("POST", "/images/prune", "image_prune"),
    ("GET", "/images/{name…}/get", "image_save"),
    ("GET", "/images/{name…}/json", "image_inspect"),
    ("GET", "/images/{name…}/history", "image_history"),
    ("POST", "/images/{name…}/push", "image_push"),
    ("POST", "/images/{name…}/tag", "image_tag"),
    ("DELETE", "/images/{name…}", "image_remove"),
    ("GET", "/distribution/{name…}/json", "distribution"),
    ("POST", "/commit", "commit"),
    ("POST", "/build", "build"),
    ("POST", "/build/prune", "build_prune"),
    ("POST", "/session", "session"),
    ("GET", "/volumes", "volume_list"),
    ("POST", "/volumes/create", "volume_create"),
    ("POST", "/volumes/prune", "volume_prune"),
    ("GET", "/volumes/{name}", "volume_inspect"),
    ("PUT", "/volumes/{name}", "swarm"),
    ("DELETE", "/volumes/{name}", "volume_remove"),
    ("GET", "/networks", "network_list"),
    ("POST", "/networks/create", "network_create"),
    ("POST", "/networks/prune", "network_prune"),
    ("GET", "/networks/{id}", "network_inspect"),
    ("DELETE", "/networks/{id}", "network_remove"),
    ("POST", "/networks/{id}/connect", "network_connect"),
    ("POST", "/networks/{id}/disconnect", "network_disconnect"),
    ("GET", "/plugins", "plugin_list"),
    ("GET", "/plugins/privileges", "plugins"),
    ("POST", "/plugins/{name…}", "plugins"),
    ("GET", "/plugins/{name…}/json", "plugin_inspect"),
    ("DELETE", "/plugins/{name…}", "plugins"),
    *((method, f"/{noun}{rest}", "swarm")
      for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
      for rest in ("", "/{id…}")
      for method in ("GET", "POST", "DELETE")),
    ("GET", "/dockpy/status", "dockpy_status"),
    ("POST", "/dockpy/stop", "dockpy_stop"),
    ("GET", "/dockpy/logs", "dockpy_logs"),
    ("POST", "/dockpy/check", "dockpy_check"),
    ("GET", "/dockpy/limit", "dockpy_limit"),
    ("POST", "/dockpy/limit", "dockpy_limit_set"),
    ("POST", "/dockpy/image-from-host", "dockpy_image_from_host"),
    ("POST", "/dockpy/verify", "dockpy_verify"),
)  # fmt: skip


def version_number(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", text)
    if match is None:
        raise InvalidParameter(f"invalid API version {text!r}: it should look like {API_VERSION}")
    return int(match[1]), int(match[2])


_NEWEST = version_number(API_VERSION)
_OLDEST = version_number(MIN_API_VERSION)


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """The API version a path asks for (none: the newest) and the path without it."""
    match = re.match(r"/v([0-9][^/]*)(/.*|)$", path)
    if match is None:
        return _NEWEST, path
    number = version_number(match[1])
    if number > _NEWEST:
        raise InvalidParameter(
            f"client version {match[1]} is too new. Maximum supported API version is {API_VERSION}"
        )
    if number < _OLDEST:
        raise InvalidParameter(
            f"client version {match[1]} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version"
        )
    return number, match[2] or "/"


class RouteTable:
    """The table, indexed by the first word of a path."""

    def __init__(self, routes: tuple[tuple[str, str, str], ...] = ROUTES) -> None:
        self._by_word: dict[str, list[tuple[str, re.Pattern[str], str]]] = {}
        self._fixed: dict[tuple[str, str], str] = {}
        for method, pattern, name in routes:
            if "{" not in pattern:
                self._fixed[method, pattern] = name
                continue
            expression = re.sub(
                r"\\?\{(\w+)(…?)\\?\}", _group, re.escape(pattern).replace("\\…", "…")
            )
            entry = (method, re.compile(expression), name)
            self._by_word.setdefault(pattern.split("/")[1], []).append(entry)

    def find(self, method: str, path: str) -> tuple[str, Mapping[str, str]]:
        """Name of the handler and what the braces stand for; NotFound as docker says it."""
        path = path.rstrip("/") or "/"
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed, {}
        for candidate, expression, name in self._by_word.get(
            path.split("/", 2)[1] if path.startswith("/") else "", ()
        ):
            if candidate != method:
                continue
            match: re.Match[str] | None = expression.fullmatch(path)
            if match is not None:
                return name, {
                    key: decode_segment(value) for key, value in match.groupdict().items()
                }
        raise NotFound("page not found")


def _group(match: re.Match[str]) -> str:
    return f"(?P<{match[1]}>.+)" if match[2] else f"(?P<{match[1]}>[^/]+)"
