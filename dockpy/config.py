"""The daemon's settings: `<store>/config.toml`, all of it optional.

    [daemon]
    idle-exit = "10m"     # with nothing running and nobody connected; "0" is never

A mistake in the file is told in one sentence and in the daemon's log; what is not set has its default.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from dockpy import files
from dockpy.errors import InvalidParameter

IDLE_EXIT = 600.0


@dataclass(frozen=True)
class Config:
    idle_exit: float = IDLE_EXIT  # seconds; 0 is never


def load(path: str) -> Config:
    """The settings in `path`; the defaults when there is no such file."""
    try:
        data = files.read_bytes(path, 1 << 20)
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"{path} cannot be read: {error}") from None
    return from_mapping(_parse(data, path), path)


def _parse(data: bytes, path: str) -> Mapping[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(data.decode())
    except ValueError as error:  # both decode and parse errors
        raise InvalidParameter(f"{path}: {error}") from None


def from_mapping(raw: Mapping[str, object], path: str) -> Config:
    daemon = raw.get("daemon", {})
    unknown = set(raw) - {"daemon"}
    if unknown or not isinstance(daemon, dict):
        raise InvalidParameter(
            f"{path}: only the table [daemon] is known, not {', '.join(sorted(unknown)) or 'this'}"
        )
    unknown = set(daemon) - {"idle-exit"}
    if unknown:
        raise InvalidParameter(f"{path}: unknown setting {', '.join(sorted(unknown))} in [daemon]")
    return Config(idle_exit=_seconds(daemon.get("idle-exit", IDLE_EXIT), path))


def _seconds(value: object, path: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    if isinstance(value, str):
        number, unit = value.rstrip("smh"), value[len(value.rstrip("smh")) :]
        scale = {"": 1, "s": 1, "m": 60, "h": 3600}.get(unit)
        if scale is not None and number.replace(".", "", 1).isdigit():
            return float(number) * scale
    raise InvalidParameter(f'{path}: idle-exit must be a time such as "10m" or a number of seconds')
