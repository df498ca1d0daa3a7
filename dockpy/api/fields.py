"""JSON objects ⇄ frozen dataclasses, with Go's manners: null is the zero value, unknown keys are
ignored, a wrong type is refused with the name of the field. `Any` ends here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from dockpy.errors import InvalidParameter

T = TypeVar("T")
Parse = Callable[[object, str], Any]


@dataclass(frozen=True)
class Kind:
    """How one JSON value becomes a Python value, and back where that is not the identity."""

    parse: Parse
    encode: Callable[[Any], object] | None = None


def wrong(raw: object, where: str, wanted: str) -> InvalidParameter:
    return InvalidParameter(f"{where} must be {wanted}, not {_json_name(raw)}")


def _json_name(raw: object) -> str:
    names = {
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(raw), "null")


def parse_text(raw: object, where: str) -> str:
    if raw is None:
        return ""
    if not isinstance(raw, str):
        raise wrong(raw, where, "a string")
    if "\0" in raw:
        raise InvalidParameter(f"{where} must not contain a null byte")
    return raw


def parse_flag(raw: object, where: str) -> bool:
    if raw is None:
        return False
    if not isinstance(raw, bool):
        raise wrong(raw, where, "a boolean")
    return raw


def parse_integer(raw: object, where: str) -> int:
    if raw is None:
        return 0
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise wrong(raw, where, "a whole number")
    if not -(1 << 63) <= raw < 1 << 63:
        raise InvalidParameter(f"{where} is out of range")
    return raw


def parse_texts(raw: object, where: str) -> tuple[str, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise wrong(raw, where, "an array of strings")
    return tuple(parse_text(item, where) for item in raw)


def parse_optional_texts(raw: object, where: str) -> tuple[str, ...] | None:
    """Null stays None, which differs from []: a string alone is what the oldest clients send."""
    if raw is None:
        return None
    if isinstance(raw, str):
        return (parse_text(raw, where),)
    return parse_texts(raw, where)


def parse_mapping(raw: object, where: str) -> Mapping[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise wrong(raw, where, "an object")
    return {
        parse_text(key, where): parse_text(value, f"{where}.{key}") for key, value in raw.items()
    }


def parse_object(raw: object, where: str) -> Mapping[str, object]:
    """An object whose inside is looked at elsewhere."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise wrong(raw, where, "an object")
    return raw


def parse_objects(raw: object, where: str) -> tuple[Mapping[str, object], ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise wrong(raw, where, "an array of objects")
    return tuple(parse_object(item, where) for item in raw)


def optional(parse: Parse) -> Parse:
    """Null stays None."""
    return lambda raw, where: None if raw is None else parse(raw, where)


def _or_null(values: Any) -> object:
    """Go prints a nil slice or map as null."""
    return list(values) if values else None


def _list(values: Any) -> object:
    return list(values)


def _optional_list(values: Any) -> object:
    return None if values is None else list(values)


def _field(name: str, kind: Kind, default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"json": name, "kind": kind})


def text(name: str, default: str = "") -> Any:
    return _field(name, Kind(parse_text), default)


def flag(name: str, default: bool = False) -> Any:
    return _field(name, Kind(parse_flag), default)


def optional_flag(name: str) -> Any:
    return _field(name, Kind(optional(parse_flag)), None)


def integer(name: str, default: int = 0) -> Any:
    return _field(name, Kind(parse_integer), default)


def integers(name: str) -> Any:
    """A pair of numbers, zeros where none was given."""

    def parse(raw: object, where: str) -> tuple[int, ...]:
        if not isinstance(raw, list):
            raise wrong(raw, where, "an array of numbers")
        return tuple(parse_integer(item, where) for item in raw)

    return _field(name, Kind(parse, _list), (0, 0))


def optional_integer(name: str) -> Any:
    return _field(name, Kind(optional(parse_integer)), None)


def texts(name: str, null: bool = True) -> Any:
    """Strings; an empty list is printed as null unless `null` is false."""
    return _field(name, Kind(parse_texts, _or_null if null else _list), ())


def optional_texts(name: str) -> Any:
    return _field(name, Kind(parse_optional_texts, _optional_list), None)


def mapping(name: str, null: bool = False) -> Any:
    empty: Mapping[str, str] = {}
    encode = (lambda value: dict(value) or None) if null else dict
    return dataclasses.field(
        default_factory=lambda: empty, metadata={"json": name, "kind": Kind(parse_mapping, encode)}
    )


def raw_object(name: str, null: bool = False) -> Any:
    empty: Mapping[str, object] = {}
    encode = (lambda value: dict(value) or None) if null else dict
    return dataclasses.field(
        default_factory=lambda: empty, metadata={"json": name, "kind": Kind(parse_object, encode)}
    )


def raw_objects(name: str) -> Any:
    return _field(name, Kind(parse_objects, _or_null), ())


def nested(name: str, cls: Any) -> Any:
    return dataclasses.field(
        default_factory=cls,
        metadata={"json": name, "kind": Kind(lambda raw, where: decode(cls, raw, where), encode)},
    )


def optional_nested(name: str, cls: Any) -> Any:
    kind = Kind(
        lambda raw, where: None if raw is None else decode(cls, raw, where),
        lambda value: None if value is None else encode(value),
    )
    return _field(name, kind, None)


def nested_list(name: str, cls: Any) -> Any:
    def parse(raw: object, where: str) -> Any:
        return tuple(decode(cls, item, where) for item in parse_objects(raw, where))

    return _field(name, Kind(parse, lambda values: [encode(value) for value in values] or None), ())


def decode(cls: Callable[..., T], raw: object, where: str) -> T:
    """An instance of the dataclass `cls` from a JSON object; InvalidParameter names what is wrong."""
    fields = parse_object(raw, where)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # a dataclass, as the docstring asks
        name = field.metadata["json"]
        if name in fields:
            value = fields[name]
            if value is not None:
                values[field.name] = field.metadata["kind"].parse(
                    value, f"{where}.{name}" if where else name
                )
    return cls(**values)


def encode(value: Any) -> dict[str, Any]:
    """The JSON object of a dataclass instance made of these fields."""
    result = {}
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        encoder = field.metadata["kind"].encode
        result[field.metadata["json"]] = inner if encoder is None else encoder(inner)
    return result
