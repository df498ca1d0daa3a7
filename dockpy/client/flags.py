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
    reader = _Reader(flags, words, checks)
    positional: list[str] = []
    for word in reader.words:
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            positional.append(word)
            if not interspersed:
                break
        elif word[1] == "-":
            reader.long(word)
        else:
            reader.shorts(word[1:])
    return reader.options, [*positional, *reader.words]


class _Reader:
    """What the flags among `words` say; a flag that takes a value takes it from there."""

    __slots__ = ("_checks", "_flags", "options", "words")

    def __init__(
        self,
        flags: Sequence[Flag],
        words: Sequence[str],
        checks: Mapping[str, Callable[[str], object]] | None,
    ) -> None:
        self._flags = flags
        self._checks = checks or {}
        self.words = iter(words)
        self.options = Options()

    def long(self, word: str) -> None:
        name, equals, value = word[2:].partition("=")
        if not name or name[0] == "-":
            raise FlagError(f"bad flag syntax: {word}")
        flag = next((flag for flag in self._flags if flag.long == name), None)
        if flag is None:
            if name == "help":
                raise HelpWanted
            raise FlagError(f"unknown flag: --{name}")
        if not equals:
            value = "true" if flag.kind == "bool" else self._next(f"--{name}")
        self._keep(flag, value)

    def shorts(self, cluster: str) -> None:
        """`-it`, `-eNAME=value`, `-e=NAME=value`."""
        while cluster:
            letter, rest = cluster[0], cluster[1:]
            flag = next((flag for flag in self._flags if flag.short == letter), None)
            if flag is None:
                if letter == "h":
                    raise HelpWanted
                raise FlagError(f"unknown shorthand flag: '{letter}' in -{cluster}")
            if rest[:1] == "=":
                value, rest = rest[1:], ""
            elif flag.kind == "bool":
                value = "true"
            elif rest:
                value, rest = rest, ""
            else:
                value = self._next(f"'{letter}' in -{cluster}")
            self._keep(flag, value)
            cluster = rest

    def _next(self, shown: str) -> str:
        value = next(self.words, None)
        if value is None:
            raise FlagError(f"flag needs an argument: {shown}")
        return value

    def _keep(self, flag: Flag, value: str) -> None:
        try:
            check_value(flag.kind, value)
            if flag.long in self._checks:
                self._checks[flag.long](value)
        except ValueError as error:
            raise FlagError(f'invalid argument "{value}" for "{flag}" flag: {error}') from None
        self.options.add(flag.long, value)


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
