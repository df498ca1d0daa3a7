"""The filters of `ps`: what each may be, and which containers it lets through. No effects."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from dockpy.errors import InvalidParameter
from dockpy.supervisor.container import Container
from dockpy.supervisor.inspect import mounts, network_name, reachable_ports, seconds_of

FILTERS = frozenset(
    [
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    ]
)


HEALTHS = frozenset(("healthy", "none", "starting", "unhealthy"))
STATUSES = frozenset(("created", "dead", "exited", "paused", "removing", "restarting", "running"))


def check(filters: Mapping[str, tuple[str, ...]]) -> None:
    """InvalidParameter for values that docker refuses, in its words."""
    for status in filters.get("status", ()):
        if status not in STATUSES:
            raise InvalidParameter(f"invalid filter 'status={status}'")
    for health in filters.get("health", ()):
        if health not in HEALTHS:
            raise InvalidParameter(f"Unrecognised filter value for health: {health}")
    for code in filters.get("exited", ()):
        if not re.fullmatch("[+-]?[0-9]+", code):
            raise InvalidParameter(f'strconv.Atoi: parsing "{code}": invalid syntax')
    task = filters.get("is-task", ())
    if not {word.lower() for word in task} <= {"true", "false", "1", "0"} or len(task) > 1:
        raise InvalidParameter(f"invalid filter 'is-task=[{' '.join(task)}]'")
    for key in ("expose", "publish"):
        for value in filters.get(key, ()):
            ports(key, value)


def ports(key: str, value: str) -> frozenset[str]:
    """`80`, `80/udp`, `80-90/tcp` as port names."""
    if ":" in value:
        raise InvalidParameter(f"filter for '{key}' should not contain ':': {value}")
    numbers, _, protocol = value.partition("/")
    first, dash, last = numbers.partition("-")
    ends = []
    for word in (first, last) if dash else (first,):
        trouble = (
            "invalid syntax"
            if not re.fullmatch("[0-9]+", word)
            else ("value out of range" if len(word) > 5 or int(word) > 65535 else "")
        )
        if trouble:
            raise InvalidParameter(
                f'error while looking up for {key} {value}: strconv.ParseUint: parsing "{word}": {trouble}'
            )
        ends.append(int(word))
    if ends[-1] < ends[0]:
        raise InvalidParameter(
            f"error while looking up for {key} {value}: invalid range specified for port: {numbers}"
        )
    return frozenset(f"{port}/{protocol or 'tcp'}" for port in range(ends[0], ends[-1] + 1))


def matches(
    container: Container,
    filters: Mapping[str, tuple[str, ...]],
    ancestors: frozenset[str],
    before: float,
    since: float,
) -> bool:
    """`ancestors`: image ids named by the ancestor filter; before and since: times of the containers named there."""
    record, state = container.record, container.state
    created = seconds_of(record.created)
    if created >= before or (since and created <= since):
        return False
    checks: Mapping[str, Callable[[tuple[str, ...]], bool]] = {
        "id": lambda wanted: any(record.id.startswith(value) for value in wanted),
        "name": lambda wanted: any(_name_matches(value, record.name) for value in wanted),
        "label": lambda wanted: _labels_match(wanted, record.config.labels),
        "status": lambda wanted: state.word in wanted,
        "exited": lambda wanted: state.status == "exited" and state.exit_code in map(int, wanted),
        "ancestor": lambda wanted: record.image_id in ancestors or record.config.image in wanted,
        "network": lambda wanted: network_name(record) in wanted,
        "health": lambda wanted: (
            (container.health.status if container.health is not None else "none") in wanted
        ),
        "expose": lambda wanted: _any_port("expose", wanted, reachable_ports(record, state)),
        "publish": lambda wanted: False,
        "volume": lambda wanted: any(
            value in (mount["Source"], mount["Destination"])
            for value in wanted
            for mount in mounts(record)
        ),
        "is-task": lambda wanted: wanted[0].lower() in ("false", "0"),
        "isolation": lambda wanted: True,
        "before": lambda wanted: True,
        "since": lambda wanted: True,
    }
    return all(checks[key](wanted) for key, wanted in filters.items())


def _name_matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, f"/{name}") is not None or re.search(pattern, name) is not None
    except re.error:
        return pattern in name


def _labels_match(wanted: tuple[str, ...], labels: Mapping[str, str]) -> bool:
    for entry in wanted:
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _any_port(key: str, wanted: tuple[str, ...], there: Collection[str]) -> bool:
    return any(not ports(key, value).isdisjoint(there) for value in wanted)
