"""Command line flags as docker's (pflag) reads them, from a line of text per flag. Pure, no
imports.

A line is `long[/s] type description`; the types are pflag's names (`bool string list int uint
uint16 decimal bytes duration map …`). Whatever is not bool takes a value; list-like ones repeat.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REPEATED = frozenset(("list", "map", "filter", "mount", "network", "ulimit", "gpu-request"))
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


class FlagError(Exception):
    """The command line cannot be read; the text is docker's."""


class HelpWanted(Exception):
    """--help stood among the flags."""


class Flag:
    __slots__ = ("kind", "long", "short", "text")

    def __init__(self, line: str) -> None:
        names, self.kind, self.text = line.split(" ", 2)
        self.long, _, self.short = names.partition("/")

    def __str__(self) -> str:
        return f"-{self.short}, --{self.long}" if self.short else f"--{self.long}"


class Options:
    """The values of the flags of one command line; what was not given reads as empty."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        self._values.setdefault(name, []).append(value)

    def given(self, name: str) -> bool:
        return name in self._values

    def names(self) -> list[str]:
        return list(self._values)

    def on(self, name: str, default: bool = False) -> bool:
        values = self._values.get(name)
        return default if values is None else values[-1] in _TRUE

    def text(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return default if values is None else values[-1]

    def many(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def number(self, name: str, default: int = 0) -> int:
        values = self._values.get(name)
        return default if values is None else go_int(values[-1])


def table(text: str) -> list[Flag]:
    return [Flag(line) for line in text.strip().split("\n")] if text.strip() else []


def parse(
    flags: Sequence[Flag],
    words: Sequence[str],
    *,
    interspersed: bool = True,
    checks: Mapping[str, Callable[[str], object]] | None = None,
) -> tuple[Options, list[str]]:
    """The options and the positional words. With `interspersed` off, flags end at the first
    positional.
    """
    by_long = {flag.long: flag for flag in flags}
    by_short = {flag.short: flag for flag in flags if flag.short}
    options = Options()
    positional: list[str] = []
    at, end = 0, len(words)

    def keep(flag: Flag, value: str) -> None:
        try:
            check_value(flag.kind, value)
            if checks is not None and flag.long in checks:
                checks[flag.long](value)
        except ValueError as error:
            raise FlagError(f'invalid argument "{value}" for "{flag}" flag: {error}') from None
        options.add(flag.long, value)

    while at < end:
        word = words[at]
        at += 1
        if word == "--":
            positional += words[at:]
            break
        if len(word) < 2 or word[0] != "-":
            positional.append(word)
            if not interspersed:
                positional += words[at:]
                break
            continue
        if word[1] == "-":
            name, equals, value = word[2:].partition("=")
            if not name or name[0] == "-":
                raise FlagError(f"bad flag syntax: {word}")
            flag = by_long.get(name)
            if flag is None:
                if name == "help":
                    raise HelpWanted
                raise FlagError(f"unknown flag: --{name}")
            if not equals:
                if flag.kind == "bool":
                    value = "true"
                elif at < end:
                    value = words[at]
                    at += 1
                else:
                    raise FlagError(f"flag needs an argument: --{name}")
            keep(flag, value)
            continue
        cluster = word[1:]
        while cluster:
            letter, rest = cluster[0], cluster[1:]
            flag = by_short.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpWanted
                raise FlagError(f"unknown shorthand flag: '{letter}' in -{cluster}")
            if rest[:1] == "=":
                value, cluster = rest[1:], ""
            elif flag.kind == "bool":
                value, cluster = "true", rest
            elif rest:
                value, cluster = rest, ""
            elif at < end:
                value, cluster = words[at], ""
                at += 1
            else:
                raise FlagError(f"flag needs an argument: '{letter}' in -{cluster}")
            keep(flag, value)
    return options, positional


def go_int(text: str) -> int:
    """Go's base 0: 0x, 0o and 0b, and a leading zero is octal."""
    digits = text.lstrip("+-")
    return int(text, 8 if len(digits) > 1 and digits[0] == "0" and digits.isdigit() else 0)


def check_value(kind: str, value: str) -> None:
    """ValueError with Go's text where `value` is not of `kind`."""
    if kind == "bool":
        if value not in _TRUE and value not in _FALSE:
            raise ValueError(f'strconv.ParseBool: parsing "{value}": invalid syntax')
    elif kind in ("int", "uint", "uint16"):
        _check_int(kind, value)
    elif kind == "bytes":
        from dockpy.client import units

        units.ram_bytes(value)
    elif kind == "decimal":
        from dockpy.client import units

        units.nano_cpus(value)
    elif kind == "duration":
        from dockpy.client import units

        units.duration(value)


def _check_int(kind: str, value: str) -> None:
    function = "ParseInt" if kind == "int" else "ParseUint"
    digits = value[1:] if kind == "int" and value[:1] in ("-", "+") else value
    try:
        if not digits or digits[0] in "+-_ " or digits.strip() != digits:
            raise ValueError
        number = go_int(value)
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{value}": invalid syntax') from None
    low, high = {
        "int": (-(1 << 63), (1 << 63) - 1),
        "uint": (0, (1 << 64) - 1),
        "uint16": (0, 65535),
    }[kind]
    if not low <= number <= high:
        raise ValueError(f'strconv.{function}: parsing "{value}": value out of range')
