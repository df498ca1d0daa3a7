"""`--log-driver` and `--log-opt`: docker's checks in docker's words, and what the shim is told.

docker looks at the names of options at create, and at their values when the container starts: so do
we, that a script meets the same error at the same command. Pure.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

from dockpy.api.container import HostConfig
from dockpy.errors import InvalidParameter
from dockpy.shim.protocol import LogConfig
from dockpy.supervisor.records import Record

_ATTRIBUTES = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
_FILES = frozenset(("max-size", "max-file", "compress"))
# Of every driver; blocking is what there is: the shim reads no faster than the log takes it.
_GENERAL = frozenset(("mode", "max-buffer-size"))
DRIVERS: Mapping[str, frozenset[str]] = {
    "local": _FILES | _ATTRIBUTES,
    "json-file": _FILES | _ATTRIBUTES,
    "none": frozenset(),
}
LOCAL_SIZE, LOCAL_FILES = 20_000_000, 5


def check(host: HostConfig) -> None:
    """At create: the driver, and the names of its options."""
    driver = host.log_config.type or "local"
    options = host.log_config.config
    if driver == "none":
        return
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        try:
            size(options["max-buffer-size"])
        except InvalidParameter as error:
            raise InvalidParameter(f"error parsing option max-buffer-size: {error}") from None
    if driver not in DRIVERS:
        raise InvalidParameter(f"logger: no log driver named '{driver}' is registered")
    for key in sorted(options):
        if key not in DRIVERS[driver] | _GENERAL:
            where = "json-file log driver" if driver == "json-file" else f"log driver {driver}"
            raise InvalidParameter(f"unknown log opt '{key}' for {where}")


def settings(record: Record, bundle: str) -> LogConfig:
    """At start: what the shim shall write. InvalidParameter for a value that means nothing."""
    log = record.host_config.log_config
    if log.type == "none":
        return LogConfig("none")
    local = log.type != "json-file"
    max_size, max_file, _ = _local_files(log.config) if local else _json_files(log.config)
    extra = "" if local else _go_json(attributes(record))
    return LogConfig("local" if local else "json-file", f"{bundle}/log", max_size, max_file, extra)


def compressed(record: Record) -> bool:
    """Whether what was rotated away is to be compressed; no for values that cannot be."""
    log = record.host_config.log_config
    try:
        if log.type == "json-file":
            return _json_files(log.config)[2]
        return log.type == "local" and _local_files(log.config)[2]
    except InvalidParameter:
        return False


def _local_files(options: Mapping[str, str]) -> tuple[int, int, bool]:
    max_size, max_file = LOCAL_SIZE, LOCAL_FILES
    if "max-size" in options:
        try:
            max_size = size(options["max-size"])
        except InvalidParameter as error:
            text = options["max-size"]
            raise InvalidParameter(f"invalid value for max-size: {text}: {error}") from None
    if "max-file" in options:
        try:
            max_file = _number(options["max-file"])
        except InvalidParameter as error:
            text = options["max-file"]
            raise InvalidParameter(f"invalid value for max-file: {text}: {error}") from None
    compress = True
    if "compress" in options:
        try:
            compress = _boolean(options["compress"])
        except InvalidParameter as error:
            raise InvalidParameter(f"error reading compress log option: {error}") from None
    if max_file < 0:
        raise InvalidParameter("max file count cannot be less than 0")
    if compress and max_file <= 1:
        raise InvalidParameter("compression cannot be enabled when max file count is 1")
    return max_size, max(max_file, 1), compress


def _json_files(options: Mapping[str, str]) -> tuple[int, int, bool]:
    """Bytes of a file (0: no bound), how many files, and whether the old ones are compressed."""
    max_size, max_file, compress = 0, 1, False
    if "max-size" in options:
        max_size = size(options["max-size"])
        if max_size <= 0:
            raise InvalidParameter("max-size must be a positive number")
    if "max-file" in options:
        max_file = _number(options["max-file"])
        if max_file < 1:
            raise InvalidParameter("max-file cannot be less than 1")
    if "compress" in options:
        compress = _boolean(options["compress"])
        if compress and (max_file == 1 or not max_size):
            raise InvalidParameter(
                "compress cannot be true when max-file is less than 2 or max-size is not set"
            )
    return max_size, max_file, compress


def size(text: str) -> int:
    """Bytes of docker's size words for logs, where k is 1000: 10m, 512k, 1.5GB, 1GiB (the same)."""
    at = max((text.rfind(char) for char in "0123456789. "), default=-1)
    if at < 0:
        raise InvalidParameter(f"invalid size: '{text}'")
    number = text[:at] if text[at] == " " else text[: at + 1]
    suffix = text[at + 1 :].lower()
    if number.startswith("-"):
        raise InvalidParameter(f"invalid size: '{text}'")
    if re.fullmatch(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)", number) is None:
        raise InvalidParameter(f'strconv.ParseFloat: parsing "{number}": invalid syntax')
    match = re.fullmatch("b?|([kmgtp])(i?b)?", suffix)
    if match is None:
        raise InvalidParameter(f"invalid suffix: '{suffix}'")
    exponent = "kmgtp".index(match[1]) + 1 if match[1] else 0
    return min(int(float(number) * 1000**exponent), (1 << 63) - 1)


def _number(text: str) -> int:
    if re.fullmatch("[+-]?[0-9]+", text) is None:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return min(int(text), 1 << 31)


def _boolean(text: str) -> bool:
    """As Go's strconv.ParseBool."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise InvalidParameter(f'strconv.ParseBool: parsing "{text}": invalid syntax')


# ------------------------------------------------------------------------------------ attributes


def attributes(record: Record) -> dict[str, str]:
    """What every line of this container's log bears besides itself: labels, variables, the tag."""
    options = record.host_config.log_config.config
    labels = record.config.labels
    variables = dict(entry.split("=", 1) for entry in record.config.env if "=" in entry)
    found: dict[str, str] = {}
    for key, source in (("labels", labels), ("env", variables)):
        names = options.get(key, "").split(",") if options.get(key) else []
        found.update({name: source[name] for name in names if name in source})
        pattern = options.get(f"{key}-regex")
        if pattern:
            matching = _pattern(pattern)
            found.update({name: source[name] for name in source if matching.search(name)})
    if options.get("tag"):
        tag = _tag(options["tag"], record)
        if tag:
            found["tag"] = tag
    return found


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidParameter(f"error parsing regexp: {error.msg}: `{text}`") from None


def _tag(template: str, record: Record) -> str:
    """docker's tag, where it is text with fields; no other action of Go's templates."""
    argv = record.argv
    fields = {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "Command": " ".join(argv),
        "ImageID": record.image_id.rpartition(":")[2][:12],
        "ImageFullID": record.image_id,
        "ImageName": record.config.image,
        "Hostname": os.uname().nodename,
        "ContainerID": record.id,
        "ContainerName": f"/{record.name}",
        "ContainerEntrypoint": argv[0],
        "ContainerImageID": record.image_id,
        "ContainerImageName": record.config.image,
        "DaemonName": "docker",
    }

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in fields:
            raise InvalidParameter(
                f'template: log-tag:1:{match.start() + 2}: executing "log-tag" at <.{name}>: '
                f"can't evaluate field {name} in type *logger.Info"
            )
        return fields[name]

    rest = re.sub(r"\{\{\s*\.\w+\s*\}\}", "", template)
    if "{{" in rest:
        if "}}" not in rest:
            raise InvalidParameter("template: log-tag:1: unclosed action")
        raise InvalidParameter(
            f"the log tag {template!r} is more than text with fields such as {{{{.Name}}}}"
        )
    return re.sub(r"\{\{\s*\.(\w+)\s*\}\}", value, template)


def _go_json(values: Mapping[str, str]) -> str:
    """As Go's encoder writes a map, which is how it stands in docker's file; "" for none."""
    if not values:
        return ""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
