"""-v, --mount, --tmpfs and --device: from docker's spellings to Engine API values. Pure but for the
current folder.
"""

from __future__ import annotations

import os

from dockpy.client import units
from dockpy.client.flags import check_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BOOLEAN = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive")


def volumes(words: Iterable[str]) -> tuple[list[str], dict[str, object]]:
    """`-v`: (HostConfig.Binds, anonymous Volumes). Relative host paths become absolute."""
    binds: list[str] = []
    anonymous: dict[str, object] = {}
    for word in words:
        source, colon, rest = word.partition(":")
        if not colon:
            if not word:
                raise ValueError("invalid empty volume spec")
            anonymous[word] = {}
            continue
        if not source:
            raise ValueError("invalid volume specification: empty section between colons")
        if source[0] == ".":
            source = os.path.abspath(source)
        binds.append(f"{source}:{rest}")
    return binds, anonymous


def tmpfs(words: Iterable[str]) -> dict[str, str]:
    mounts = {}
    for word in words:
        path, _, options = word.partition(":")
        mounts[path] = options
    return mounts


def devices(words: Iterable[str]) -> tuple[list[dict[str, str]], list[str]]:
    """`--device`: (Devices, CDI device names)."""
    found, cdi = [], []
    for word in words:
        if "=" in word and "/" in word.partition("=")[0] and word[0] != "/":
            cdi.append(word)
            continue
        parts = word.split(":")
        if not 1 <= len(parts) <= 3 or not parts[0]:
            raise ValueError(f"invalid device specification: {word}")
        path, inside, mode = parts[0], parts[0], "rwm"
        if len(parts) == 2 and _device_mode(parts[1]):
            mode = parts[1]
        elif len(parts) >= 2 and parts[1]:
            inside = parts[1]
        if len(parts) == 3:
            mode = parts[2]
            if not _device_mode(mode):
                raise ValueError(f"invalid device mode: {mode}")
        if inside[0] != "/":
            raise ValueError(f"{inside} is not an absolute path")
        found.append({"PathOnHost": path, "PathInContainer": inside, "CgroupPermissions": mode})
    return found, cdi


def _device_mode(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and set(text) <= set("rwm")


def csv_fields(text: str) -> list[str]:
    """One line of CSV with double quotes, as Go's reader takes it."""
    fields, at = [], 0
    while True:
        if text[at : at + 1] == '"':
            value, at = "", at + 1
            while True:
                end = text.find('"', at)
                if end < 0:
                    raise ValueError(
                        'parse error on line 1: extraneous or missing " in quoted-field'
                    )
                value += text[at:end]
                if text[end + 1 : end + 2] != '"':
                    break
                value, at = value + '"', end + 2
            at = end + 1
            if at < len(text) and text[at] != ",":
                raise ValueError('parse error on line 1: extraneous or missing " in quoted-field')
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            value = text[at:end]
            if '"' in value:
                raise ValueError('parse error on line 1: bare " in non-quoted-field')
            at = end
        fields.append(value)
        if at >= len(text):
            return fields
        at += 1


def _boolean(key: str, value: str) -> bool:
    try:
        check_value("bool", value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None
    return value in ("1", "t", "T", "true", "TRUE", "True")


def mount(text: str) -> dict[str, object]:
    """`--mount type=bind,src=/a,dst=/b,readonly` as one element of HostConfig.Mounts."""
    result: dict[str, object] = {"Type": "volume"}
    groups: dict[str, dict[str, object]] = {
        "BindOptions": {},
        "VolumeOptions": {},
        "ImageOptions": {},
        "TmpfsOptions": {},
    }
    if not text:
        raise ValueError("value is empty")
    for field in csv_fields(text):
        key, value = _key_value(field)
        set_one, options = {
            "bind": (_set_bind, groups["BindOptions"]),
            "volume": (_set_volume, groups["VolumeOptions"]),
            "image": (_set_image, groups["ImageOptions"]),
            "tmpfs": (_set_tmpfs, groups["TmpfsOptions"]),
        }.get(key.partition("-")[0], (_set_any, result))
        if not set_one(options, key, value):
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    return _checked(result, groups)


def _key_value(field: str) -> tuple[str, str]:
    key, equals, value = field.partition("=")
    key = key.lower()
    if not equals:
        if key not in (*_BOOLEAN, "bind-create-src"):
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        return key, "true"
    if key in _BOOLEAN and not value:
        raise ValueError(f"invalid value for '{key}': value is empty")
    return key, value


# Each sets one option, and answers whether there is one of that name.


def _set_any(result: dict[str, object], key: str, value: str) -> bool:
    if key == "type":
        result["Type"] = value.lower()
    elif key in ("source", "src"):
        relative = value == "." or value.startswith("./")
        result["Source"] = os.path.abspath(value) if relative else value
    elif key in ("target", "dst", "destination"):
        result["Target"] = value
    elif key in ("readonly", "ro"):
        result["ReadOnly"] = _boolean(key, value)
    elif key == "consistency":
        result["Consistency"] = value.lower()
    else:
        return False
    return True


def _set_bind(options: dict[str, object], key: str, value: str) -> bool:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options["NonRecursive"] = _boolean(key, value)
    elif key == "bind-recursive":
        _recursive(value, options)
    elif key == "bind-create-src":
        options["CreateMountpoint"] = _boolean(key, value)
    else:
        return False
    return True


def _set_volume(options: dict[str, object], key: str, value: str) -> bool:
    name, _, rest = value.partition("=")
    if key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-nocopy":
        options["NoCopy"] = _boolean(key, value)
    elif key == "volume-label":
        _table(options, "Labels")[name] = rest
    elif key == "volume-opt":
        _table(_table(options, "DriverConfig"), "Options")[name] = rest
    elif key == "volume-driver":
        _table(options, "DriverConfig")["Name"] = value
    else:
        return False
    return True


def _set_image(options: dict[str, object], key: str, value: str) -> bool:
    if key != "image-subpath":
        return False
    options["Subpath"] = value
    return True


def _set_tmpfs(options: dict[str, object], key: str, value: str) -> bool:
    if key == "tmpfs-size":
        try:
            options["SizeBytes"] = units.ram_bytes(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        if not value.isdigit() or set(value) & set("89"):
            raise ValueError(f"invalid value for {key}: {value}")
        options["Mode"] = int(value, 8)
    else:
        return False
    return True


def _table(options: dict[str, object], name: str) -> dict[str, object]:
    table = options.setdefault(name, {})
    assert isinstance(table, dict)
    return table


def _recursive(value: str, bind: dict[str, object]) -> None:
    if value == "disabled":
        bind["NonRecursive"] = True
    elif value == "writable":
        bind["ReadOnlyNonRecursive"] = True
    elif value == "readonly":
        bind["ReadOnlyForceRecursive"] = True
    elif value != "enabled":
        raise ValueError(
            f'invalid value for bind-recursive: {value}: must be one of "enabled", "disabled", "writable", or "readonly"'
        )


def _checked(result: dict[str, object], groups: dict[str, dict[str, object]]) -> dict[str, object]:
    kind = result["Type"]
    if not kind:
        raise ValueError("type is required")
    if not result.get("Target"):
        raise ValueError("target is required")
    bind = groups["BindOptions"]
    for name, owner in (
        ("VolumeOptions", "volume"),
        ("BindOptions", "bind"),
        ("TmpfsOptions", "tmpfs"),
        ("ImageOptions", "image"),
    ):
        if groups[name] and kind != owner:
            raise ValueError(f"cannot mix '{owner}-*' options with mount type '{kind}'")
        if groups[name]:
            result[name] = groups[name]
    if bind.get("ReadOnlyNonRecursive") and not result.get("ReadOnly"):
        raise ValueError(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
        )
    if bind.get("ReadOnlyForceRecursive"):
        if not result.get("ReadOnly"):
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
            )
        if bind.get("Propagation") != "rprivate":
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
            )
    return result
