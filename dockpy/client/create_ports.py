"""-p and --expose: from docker's spellings to ExposedPorts and PortBindings. Pure."""

from __future__ import annotations

from dockpy.client.create_mounts import csv_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PROTOCOLS = ("tcp", "udp", "sctp")


def port_range(text: str) -> tuple[int, int]:
    if not text:
        raise ValueError("empty string specified for ports")
    low, dash, high = text.partition("-")
    try:
        first, last = _number(low), _number(high if dash else low)
    except ValueError:
        raise ValueError(f"invalid port range: {text}") from None
    if last < first:
        raise ValueError(f"invalid range specified for port: {text}")
    return first, last


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def published(words: Iterable[str]) -> tuple[dict[str, object], dict[str, list[dict[str, str]]]]:
    exposed: dict[str, object] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for word in words:
        for port, binding in _specification(_short(word)):
            exposed[port] = {}
            bindings.setdefault(port, []).append(binding)
    return exposed, bindings


def _short(word: str) -> str:
    """The short spelling of `target=80,published=8080,protocol=tcp`."""
    if "=" not in word:
        return word
    parts = {"protocol": "tcp", "published": "", "target": ""}
    for field in csv_fields(word):
        key, equals, value = field.partition("=")
        if not equals or not value:
            raise ValueError(f"invalid field: {field}")
        if key == "mode":
            continue
        if key not in parts:
            raise ValueError(f"invalid field key {key}")
        parts[key] = value
    if not parts["target"]:
        raise ValueError("no target port specified")
    host = f"{parts['published']}:" if parts["published"] else ""
    return f"{host}{parts['target']}/{parts['protocol']}"


def _specification(word: str) -> list[tuple[str, dict[str, str]]]:
    body, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    rest, colon, inside = body.rpartition(":")
    host, address = rest, ""
    if colon and ":" in rest:
        address, _, host = rest.rpartition(":")
        address = address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address
        if not _is_ip(address):
            raise ValueError(f"invalid IP address: {address}")
    if not inside:
        raise ValueError(f"no port specified: {word}<empty>")
    try:
        first, last = port_range(inside)
    except ValueError:
        raise ValueError(f"invalid containerPort: {inside}") from None
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    try:
        low, high = port_range(host) if host else (0, 0)
    except ValueError:
        raise ValueError(f"invalid hostPort: {host}") from None
    if host and high - low != last - first and first != last:
        raise ValueError(
            f"invalid ranges specified for container and host Ports: {inside} and {host}"
        )
    pairs = []
    for step in range(last - first + 1):
        port = ""
        if host:
            # One container port and a range of host ports: the daemon picks one of the range.
            port = f"{low}-{high}" if first == last and high != low else str(low + step)
        pairs.append((f"{first + step}/{protocol}", {"HostIp": address, "HostPort": port}))
    return pairs


def _is_ip(text: str) -> bool:
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
            return True
        except (OSError, ValueError):
            continue
    return not text


def exposed(words: Iterable[str]) -> dict[str, object]:
    ports: dict[str, object] = {}
    for word in words:
        if ":" in word:
            raise ValueError(f"invalid port format for --expose: {word}")
        numbers, _, protocol = word.partition("/")
        protocol = protocol.lower() or "tcp"
        try:
            first, last = port_range(numbers)
        except ValueError as error:
            raise ValueError(f"invalid range format for --expose: {word}, error: {error}") from None
        if protocol not in _PROTOCOLS:
            raise ValueError(f"invalid proto: {protocol}")
        for port in range(first, last + 1):
            ports[f"{port}/{protocol}"] = {}
    return ports
