"""The Dockerfile instructions that `import --change` and `commit --change` take, applied to a
container config.

Pure. One instruction a line, as docker parses them: `\\` continues a line, JSON lists where an
instruction has an exec form, shell words with quotes elsewhere. Errors have docker's words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dockpy.errors import InvalidParameter
from dockpy.oci.image import ContainerConfig, Healthcheck

_SHELL = ("/bin/sh", "-c")
_VARIABLE = re.compile(
    r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(?:(:[-+])([^}]*))?\}|([A-Za-z_][A-Za-z0-9_]*))"
)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


def apply(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """`config` after all `changes`; InvalidParameter for what is no such instruction."""
    has_command = False
    for change in changes:
        for line in _lines(change):
            word, _, rest = line.partition(" ") if " " in line else line.partition("\t")
            instruction = _INSTRUCTIONS.get(word.upper())
            if instruction is None:
                raise InvalidParameter(f"{word} is not a valid change command")
            rest = rest.strip()
            if not rest:
                raise InvalidParameter(f"{word.upper()} requires at least one argument")
            config = instruction(config, rest)
            has_command = has_command or word.upper() == "CMD"
            if word.upper() == "ENTRYPOINT" and not has_command:
                # As in a Dockerfile: a command that was meant for another entrypoint goes with it.
                config = replace(config, cmd=None)
    return config


def _lines(change: str) -> list[str]:
    joined: list[str] = []
    open_line = ""
    for line in change.splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        # A continuation keeps its indentation: it separates words.
        open_line += line.rstrip() if open_line else text
        if open_line.endswith("\\"):
            open_line = open_line[:-1]
            continue
        joined.append(open_line)
        open_line = ""
    return [*joined, open_line] if open_line.strip() else joined


def _exec_form(text: str) -> tuple[str, ...] | None:
    """The list of a JSON form; None for the shell form, which is also what broken JSON is."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


def _command(config: ContainerConfig, text: str) -> tuple[str, ...]:
    words = _exec_form(text)
    return words if words is not None else (config.shell or _SHELL) + (text,)


def _cmd(config: ContainerConfig, text: str) -> ContainerConfig:
    return replace(config, cmd=_command(config, text))


def _entrypoint(config: ContainerConfig, text: str) -> ContainerConfig:
    words = _command(config, text)
    return replace(config, entrypoint=words or None)


def _shell(config: ContainerConfig, text: str) -> ContainerConfig:
    words = _exec_form(text)
    if not words:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")
    return replace(config, shell=words)


def _words(text: str, environment: Mapping[str, str]) -> list[str]:
    """Shell words: quotes and backslashes removed, variables of `environment` put in (not in
    single quotes).
    """
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        variable = _VARIABLE.match(text, position) if character == "$" and quote != "'" else None
        if variable is not None:
            word = [*(word or []), _value_of(variable, environment)]
            position = variable.end()
            continue
        position += 1
        if quote and character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote, word = character, word or []
        elif character == "\\" and quote != "'" and position < len(text):
            follower = text[position]
            position += 1
            keep = quote == '"' and follower not in '"$\\'
            word = [*(word or []), ("\\" if keep else "") + follower]
        elif not quote and character.isspace():
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word if word is not None else []
            word.append(character)
    if quote:
        raise InvalidParameter(f"unexpected end of statement while looking for matching {quote}")
    if word is not None:
        words.append("".join(word))
    return words


def _value_of(variable: re.Match[str], environment: Mapping[str, str]) -> str:
    name, operator, alternative = (
        variable.group(1) or variable.group(4),
        variable.group(2),
        variable.group(3),
    )
    value = environment.get(name, "")
    if operator == ":-":
        return value or alternative
    if operator == ":+":
        return alternative if value else ""
    return value


def _environment(config: ContainerConfig) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in config.env)


def _pairs(config: ContainerConfig, text: str, what: str) -> list[tuple[str, str]]:
    """`k=v k2="v 2"`, or the old `k the rest`."""
    first = re.split(r"[\s=]", text, maxsplit=1)[0]
    if not text[len(first) :].startswith("="):
        value = text[len(first) :].strip()
        if not value:
            raise InvalidParameter(f"{what} must have two arguments")
        return [(first, "".join(_words(_quoted(value), _environment(config))))]
    pairs = []
    for word in _words(text, _environment(config)):
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        if not key:
            raise InvalidParameter(f"{what} names can not be blank")
        pairs.append((key, value))
    return pairs


def _quoted(value: str) -> str:
    """The value of the old form is one word, spaces and all; its own quotes still count."""
    return "".join("\\" + character if character.isspace() else character for character in value)


def _env(config: ContainerConfig, text: str) -> ContainerConfig:
    env = list(config.env)
    for key, value in _pairs(config, text, "ENV"):
        entry = f"{key}={value}"
        for position, old in enumerate(env):
            if old.partition("=")[0] == key:
                env[position] = entry
                break
        else:
            env.append(entry)
    return replace(config, env=tuple(env))


def _label(config: ContainerConfig, text: str) -> ContainerConfig:
    return replace(config, labels={**config.labels, **dict(_pairs(config, text, "LABEL"))})


def _expose(config: ContainerConfig, text: str) -> ContainerConfig:
    ports = list(config.exposed_ports)
    for word in _words(text, _environment(config)):
        match = _PORT.fullmatch(word)
        if match is None:
            raise InvalidParameter(f"invalid containerPort: {word}")
        low, high = int(match.group(1)), int(match.group(2) or match.group(1))
        if not 0 < low <= high <= 65535:
            raise InvalidParameter(f"invalid containerPort: {word}")
        kind = (match.group(3) or "tcp").lower()
        ports.extend(f"{port}/{kind}" for port in range(low, high + 1))
    return replace(config, exposed_ports=tuple(dict.fromkeys(ports)))


def _volume(config: ContainerConfig, text: str) -> ContainerConfig:
    words = _exec_form(text)
    named = _words(text, _environment(config)) if words is None else list(words)
    if any(not name.strip() for name in named):
        raise InvalidParameter("VOLUME specified can not be an empty string")
    return replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *named))))


def _one(config: ContainerConfig, text: str, what: str) -> str:
    words = _words(text, _environment(config))
    if len(words) != 1:
        raise InvalidParameter(f"{what} requires exactly one argument")
    return words[0]


def _user(config: ContainerConfig, text: str) -> ContainerConfig:
    return replace(config, user=_one(config, text, "USER"))


def _workdir(config: ContainerConfig, text: str) -> ContainerConfig:
    path = " ".join(_words(text, _environment(config)))
    if not path.startswith("/"):
        path = f"{config.working_dir or ''}/{path}"
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return replace(config, working_dir="/" + "/".join(parts))


def _stop_signal(config: ContainerConfig, text: str) -> ContainerConfig:
    import signal

    value = _one(config, text, "STOPSIGNAL")
    name = value.upper() if value.upper().startswith("SIG") else "SIG" + value.upper()
    known = name in signal.Signals.__members__ or re.fullmatch(
        r"SIGRTM(IN(\+\d+)?|AX(-\d+)?)", name
    )
    if not known and not (value.isdigit() and 0 < int(value) <= 64):
        raise InvalidParameter(f"invalid signal: {value}")
    return replace(config, stop_signal=value)


def _on_build(config: ContainerConfig, text: str) -> ContainerConfig:
    word = text.split(None, 1)[0].upper()
    if word == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise InvalidParameter(f"{word} isn't allowed as an ONBUILD trigger")
    return replace(config, on_build=(*config.on_build, text))


def _healthcheck(config: ContainerConfig, text: str) -> ContainerConfig:
    options: dict[str, str] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, value = option[2:].partition("=")
        if name not in ("interval", "timeout", "start-period", "start-interval", "retries"):
            raise InvalidParameter(f"unknown flag: {name}")
        options[name] = value
        text = text.strip()
    kind, _, rest = text.partition(" ")
    rest = rest.strip()
    if kind.upper() == "NONE":
        if rest:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        return replace(config, healthcheck=Healthcheck(("NONE",)))
    if kind.upper() != "CMD":
        raise InvalidParameter(
            f"Unknown type {kind.upper()!r} in HEALTHCHECK (try CMD)".replace("'", '"')
        )
    if not rest:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    words = _exec_form(rest)
    retries = options.get("retries", "0")
    if not retries.isdigit():
        raise InvalidParameter(f"--retries: {retries!r} is not a number")
    check = Healthcheck(
        ("CMD", *words) if words is not None else ("CMD-SHELL", rest),
        _duration(options, "interval"),
        _duration(options, "timeout"),
        _duration(options, "start-period"),
        _duration(options, "start-interval"),
        int(retries),
    )
    return replace(config, healthcheck=check)


def _duration(options: Mapping[str, str], name: str) -> int:
    """Nanoseconds of Go's notation (1m30s); docker takes none or one millisecond and more."""
    text = options.get(name, "0")
    if text == "0":
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidParameter(f'time: invalid duration "{text}"')
    total = int(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if total < 10**6:
        raise InvalidParameter(f"Interval {name!r} cannot be less than 1ms")
    return total


_INSTRUCTIONS: Mapping[str, Callable[[ContainerConfig, str], ContainerConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
