"""How Go sees our plain values: types by name, truth, fields, and %v. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Missing:
    """Go's invalid reflect.Value: a map's missing key, nothing at all; printed as <no value>."""

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


class Struct(dict):  # type: ignore[type-arg]  # dict[str, object], which is no base class before 3.9
    """An object whose fields Go knows: another name is an error, and %v tells the values alone.
    `raw` is what `json` says of it.
    """

    go_type = "struct"
    raw: object = None


class Map(dict):  # type: ignore[type-arg]  # dict[str, object], which is no base class before 3.9
    """A Go map that is not strict: a missing key is no value, not an error."""

    go_type = "map[string]string"
    raw: object = None


class NilSlice(list):  # type: ignore[type-arg]  # list[object], which is no base class before 3.9
    """A nil slice: empty, and null in JSON."""

    raw: object = None


def truth(value: Any) -> bool:
    """Go's isTrue: a struct is always true, everything else unless it is zero or empty."""
    return True if isinstance(value, Struct) else bool(value)


def go_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (list, tuple)):
        return "[]interface {}"
    named = getattr(value, "go_type", "")
    if named:
        return str(named)
    return "map[string]interface {}" if isinstance(value, dict) else "<nil>"


def text_of(value: Any) -> str:
    """Go's %v."""
    if value is MISSING:
        return "<no value>"
    if value is None:
        return "<nil>"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return go_float(value)
    if isinstance(value, Struct):
        return "{" + " ".join(text_of(item) for item in value.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{text_of(k)}:{text_of(v)}" for k, v in ordered(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(text_of(item) for item in value) + "]"
    return str(value)


def ordered(value: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """A map's pairs as Go prints and ranges over them: by key."""
    return iter(sorted(value.items(), key=lambda pair: str(pair[0])))


def go_float(value: float) -> str:
    """strconv's shortest form ('g', with an exponent below -4 and from 21 on)."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" not in text and "E" not in text:
        whole = text[:-2] if text.endswith(".0") else text
        if len(whole.lstrip("-").partition(".")[0]) <= 21 and (value == 0 or abs(value) >= 1e-4):
            return whole
    mantissa, _, exponent = f"{value:e}".partition("e")
    digits = repr(value).partition("e")[0] if "e" in repr(value) else mantissa.rstrip("0")
    if digits.endswith(".0"):
        digits = digits[:-2]
    if 0 <= int(exponent) < 21:
        return f"{value:.0f}"
    return f"{digits.rstrip('.')}e{exponent}"


def field(value: Any, name: str) -> Any:
    """What .name is; LookupError with Go's words where it is nothing. A plain dict is a map under
    missingkey=error, as docker sets it for what it does not know.
    """
    if isinstance(value, dict):
        if name in value:
            return value[name]
        if isinstance(value, Map):
            return MISSING
        kind = getattr(value, "go_type", "")
        if kind:
            raise LookupError(f"can't evaluate field {name} in type {kind}")
        raise LookupError(f'map has no entry for key "{name}"')
    if value is MISSING:
        return MISSING
    if value is None:
        raise LookupError(f"nil pointer evaluating interface {{}}.{name}")
    raise LookupError(f"can't evaluate field {name} in type interface {{}}")
