"""The flags of `run` and `create` that are about networks and hosts' names. Imported when one is given."""

from __future__ import annotations

from dockpy.client.create_mounts import csv_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options

    Body = dict[str, object]


def networks(options: Options) -> tuple[str, Body]:
    """(NetworkMode, EndpointsConfig). The flags of old (--ip, --network-alias …) belong to the
    first network.
    """
    endpoints: dict[str, dict[str, object]] = {}
    mode = "default"
    for at, word in enumerate(options.many("network") or ["default"]):
        name, settings = network(word)
        if at == 0:
            mode = name
            _first_network(options, name, settings)
        if name in endpoints:
            raise ValueError(f'network "{name}" is specified multiple times')
        endpoints[name] = settings
    return mode, {
        name: settings for name, settings in endpoints.items() if settings or len(endpoints) > 1
    }


def _first_network(options: Options, name: str, settings: dict[str, object]) -> None:
    user_defined = name not in ("default", "bridge", "host", "none") and not name.startswith(
        "container:"
    )
    if options.many("network-alias"):
        if not user_defined:
            raise ValueError("network-scoped aliases are only supported for user-defined networks")
        settings["Aliases"] = [*options.many("network-alias")]
    if options.many("link") and user_defined:
        settings["Links"] = options.many("link")
    address: Body = {}
    for flag, field in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if options.text(flag):
            address[field] = options.text(flag)
    if options.many("link-local-ip"):
        address["LinkLocalIPs"] = options.many("link-local-ip")
    if address:
        settings["IPAMConfig"] = address
    if options.text("mac-address"):
        settings["MacAddress"] = options.text("mac-address")


def network(text: str) -> tuple[str, dict[str, object]]:
    """`--network name` or `--network name=…,alias=…,driver-opt=…` as (name, EndpointSettings)."""
    if "=" not in text:
        return text, {}
    name, settings = "", dict[str, object]()
    aliases: list[str] = []
    driver_options: dict[str, str] = {}
    addresses: dict[str, object] = {}
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals:
            raise ValueError(f"invalid field {field}")
        if key == "name":
            name = value
        elif key == "alias":
            aliases.append(value)
        elif key == "driver-opt":
            option, has_value, setting = value.partition("=")
            if not has_value:
                raise ValueError("invalid key/value pair format in driver options")
            driver_options[option.strip().lower()] = setting.strip()
        elif key == "ip":
            addresses["IPv4Address"] = value
        elif key == "ip6":
            addresses["IPv6Address"] = value
        elif key == "link-local-ip":
            addresses.setdefault("LinkLocalIPs", []).append(value)  # type: ignore[attr-defined]  # a list
        elif key == "mac-address":
            settings["MacAddress"] = value
        elif key == "gw-priority":
            settings["GwPriority"] = int(value)
        else:
            raise ValueError(f"invalid field key {key}")
    if not name:
        raise ValueError("network name/id is not specified")
    if aliases:
        settings["Aliases"] = aliases
    if driver_options:
        settings["DriverOpts"] = driver_options
    if addresses:
        settings["IPAMConfig"] = addresses
    return name, settings


def extra_host(text: str) -> str:
    """`name:ip` and `name=ip` (also with brackets) to the wire's `name:ip`."""
    at = text.find("=")
    at = text.find(":") if at < 0 else at
    name, value = text[:at], text[at + 1 :]
    if at < 0 or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if len(value) > 2 and value[0] == "[" and value[-1] == "]":
        value = value[1:-1]
    if value != "host-gateway" and not is_address(value):
        raise ValueError(f'invalid IP address in add-host: "{value}"')
    return f"{name}:{value}"


def is_address(text: str) -> bool:
    import _socket

    try:
        _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True
