"""The daemon's settings: `<store>/config.toml`, all of it optional.

    [daemon]
    idle-exit = "10m"     # with nothing running and nobody connected; "0" is never

    [storage]
    stores = ["/shared/dockpy"]   # other stores, whose images are used from there and never changed
    keep-blobs = false            # drop layers' compressed archives once unpacked; save and push make them again

    [registry]
    mirrors = ["https://mirror.example"]            # asked first for what is on docker.io
    insecure = ["registry.lan:5000", "10.0.0.0/8"]  # http, and https without a good certificate
    http-proxy = "http://proxy.lan:3128"            # as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say it
    https-proxy = "http://proxy.lan:3128"
    no-proxy = "*.lan,10.0.0.0/8"

A mistake in the file is told in one sentence and in the daemon's log; what is not set has its default.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from dockpy import files
from dockpy.errors import InvalidParameter

IDLE_EXIT = 600.0


# host, host:port, [v6], [v6]:port
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?")


@dataclass(frozen=True)
class RegistrySettings:
    mirrors: tuple[str, ...] = ()  # http or https URLs
    insecure: tuple[str, ...] = ()  # host, host:port or a range of addresses
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""


SETTINGS = RegistrySettings()


@dataclass(frozen=True)
class Config:
    idle_exit: float = IDLE_EXIT  # seconds; 0 is never
    registry: RegistrySettings = SETTINGS
    stores: tuple[str, ...] = ()  # absolute paths
    keep_blobs: bool = True


def load(path: str) -> Config:
    """The settings in `path`; the defaults when there is no such file."""
    try:
        data = files.read_bytes(path, 1 << 20)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidParameter(f"{path} cannot be read: {reason}") from None
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
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
    unknown = set(raw) - {"daemon", "storage", "registry"}
    if unknown:
        raise InvalidParameter(
            f"{path}: only the tables [daemon], [storage] and [registry] are known, not"
            f" {', '.join(sorted(unknown))}"
        )
    daemon = _table(raw, "daemon", ("idle-exit",), path)
    storage = _table(raw, "storage", ("stores", "keep-blobs"), path)
    keep_blobs = storage.get("keep-blobs", True)
    if not isinstance(keep_blobs, bool):
        raise InvalidParameter(f"{path}: keep-blobs in [storage] must be true or false")
    return Config(
        idle_exit=_seconds(daemon.get("idle-exit", IDLE_EXIT), path),
        registry=_registry(raw, path),
        stores=_stores(storage, path),
        keep_blobs=keep_blobs,
    )


def _stores(storage: Mapping[str, object], path: str) -> tuple[str, ...]:
    stores = _texts(storage, "stores", path)
    for text in stores:
        if not text.startswith("/"):
            raise InvalidParameter(f"{path}: the store {text!r} must be an absolute path")
    return stores


def _registry(raw: Mapping[str, object], path: str) -> RegistrySettings:
    proxies = ("http-proxy", "https-proxy", "no-proxy")
    table = _table(raw, "registry", ("mirrors", "insecure", *proxies), path)
    texts = {name: table.get(name, "") for name in proxies}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise InvalidParameter(f"{path}: {name} in [registry] must be a text")
    mirrors = _texts(table, "mirrors", path)
    for text in mirrors:
        if not text.startswith(("https://", "http://")):
            raise InvalidParameter(f"{path}: the mirror {text!r} must be an http or https URL")
    insecure = _texts(table, "insecure", path)
    for text in insecure:
        _check_host(text, path)
    return RegistrySettings(mirrors, insecure, *(str(texts[name]) for name in proxies))


def _table(
    raw: Mapping[str, object], name: str, known: tuple[str, ...], path: str
) -> Mapping[str, object]:
    table = raw.get(name, {})
    if not isinstance(table, dict):
        raise InvalidParameter(f"{path}: {name} must be a table, [{name}]")
    unknown = set(table) - set(known)
    if unknown:
        raise InvalidParameter(f"{path}: unknown setting {', '.join(sorted(unknown))} in [{name}]")
    return table


def _texts(table: Mapping[str, object], name: str, path: str) -> tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidParameter(f"{path}: {name} must be a list of texts")
    return tuple(value)


def _check_host(text: str, path: str) -> None:
    if "/" in text:
        import ipaddress  # not at every birth of a daemon

        try:
            ipaddress.ip_network(text, strict=False)
            return
        except ValueError:
            pass
    elif _HOST.fullmatch(text):
        return
    raise InvalidParameter(
        f"{path}: {text!r} in insecure must be a host, host:port or a range of addresses"
    )


def _seconds(value: object, path: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    if isinstance(value, str):
        number, unit = value.rstrip("smh"), value[len(value.rstrip("smh")) :]
        scale = {"": 1, "s": 1, "m": 60, "h": 3600}.get(unit)
        if scale is not None and number.replace(".", "", 1).isdigit():
            return float(number) * scale
    raise InvalidParameter(f'{path}: idle-exit must be a time such as "10m" or a number of seconds')
