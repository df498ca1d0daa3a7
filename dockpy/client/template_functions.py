"""The functions that templates may call: Go's built-ins and docker's additions. A table and its
pure parts. What a function cannot do is a ValueError with Go's words.
"""

from __future__ import annotations

from dockpy import fastjson
from dockpy.client.template_printf import printf
from dockpy.client.template_values import MISSING, Map, NilSlice, Struct, go_type, text_of, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Arity:
    """A function, the kinds of what it must get ("any", "string", "int") and of any more ("":
    none).
    """

    __slots__ = ("call", "more", "takes")

    def __init__(self, call: Callable[..., Any], *takes: str, more: str = "") -> None:
        self.call, self.takes, self.more = call, takes, more


def to_json(value: Any) -> str:
    """Compact JSON as Go prints it: UTF-8 as it is; docker switches HTML escapes off."""
    text = fastjson.dumps(plain(value)).decode()
    if "\\u" not in text:
        return text
    import json

    text = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def plain(value: Any) -> Any:
    """Without methods; a listing's row in the order of its names, as Go marshals a map."""
    if value is MISSING:
        return None
    if isinstance(value, (Struct, Map, NilSlice)):
        return value.raw
    if isinstance(value, dict):
        names = sorted(value) if getattr(value, "by_name", False) else value
        return {name: plain(value[name]) for name in names if not callable(value[name])}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def index(value: Any, *keys: Any) -> Any:
    for number, key in enumerate(keys):
        if value is None or value is MISSING:
            raise ValueError("index of nil pointer" if number else "index of untyped nil")
        if isinstance(value, dict) and not isinstance(value, Struct):
            if not isinstance(key, str):
                raise ValueError(f"value has type {go_type(key)}; should be string")
            value = value.get(key, "")
        elif isinstance(value, (list, tuple, str)):
            if key is None or key is MISSING:
                raise ValueError("cannot index slice/array with nil")
            if go_type(key) != "int":
                raise ValueError(f"cannot index slice/array with type {go_type(key)}")
            items = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            if not 0 <= key < len(items):
                raise ValueError(f"index out of range: {key}")
            value = items[key]
        else:
            raise ValueError(f"can't index item of type {go_type(value)}")
    return value


def slice_of(value: Any, *bounds: Any) -> Any:
    if value is None or value is MISSING:
        raise ValueError("slice of untyped nil")
    if len(bounds) > 3:
        raise ValueError(f"too many slice indexes: {len(bounds)}")
    if not isinstance(value, (str, list, tuple)):
        raise ValueError(f"can't slice item of type {go_type(value)}")
    if isinstance(value, str) and len(bounds) == 3:
        raise ValueError("cannot 3-index slice a string")
    items = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    ends = [0, len(items), len(items)]
    for at, bound in enumerate(bounds):
        if go_type(bound) != "int":
            raise ValueError(f"cannot index slice/array with type {go_type(bound)}")
        if not 0 <= bound <= len(items):
            raise ValueError(f"index out of range: {bound}")
        ends[at] = bound
    for low, high in ((ends[0], ends[1]), (ends[1], ends[2])):
        if low > high:
            raise ValueError(f"invalid slice index: {low} > {high}")
    part = items[ends[0] : ends[1]]
    return part.decode("utf-8", "surrogateescape") if isinstance(part, bytes) else part


def length(value: Any) -> int:
    if value is None or value is MISSING:
        raise ValueError("reflect: call of reflect.Value.Type on zero Value")
    if isinstance(value, Struct) or not isinstance(value, (str, list, tuple, dict)):
        raise ValueError(f"len of type {go_type(value)}")
    return len(value.encode("utf-8", "surrogateescape")) if isinstance(value, str) else len(value)


def joined(values: Any, separator: str) -> str:
    if values is None or values is MISSING:
        return ""
    if isinstance(values, dict) and not isinstance(values, Struct):
        return separator.join(sorted(text_of(value) for value in values.values()))
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"expected slice, got {go_type(values)}")
    return separator.join(text_of(value) for value in values)


def equal(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    return any(_same(first, other) for other in others)


def _same(one: Any, other: Any) -> bool:
    nothing = (None, MISSING)
    if one in nothing or other in nothing:
        return one in nothing and other in nothing
    kinds = [go_type(item) for item in (one, other)]
    if all(isinstance(item, (list, tuple, dict)) for item in (one, other)):
        raise ValueError(f"non-comparable type {text_of(one)}: {kinds[0]}")
    if kinds[0] != kinds[1]:
        raise ValueError("incompatible types for comparison")
    return bool(one == other)


def less(one: Any, other: Any) -> bool:
    kinds = [go_type(item) for item in (one, other)]
    for kind in kinds:
        if kind not in ("int", "float64", "string", "bool"):
            raise ValueError("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise ValueError("incompatible types for comparison")
    if kinds[0] == "bool":
        raise ValueError("invalid type for comparison")
    return bool(one < other)


def println(*values: Any) -> str:
    return " ".join(_spoken(value) for value in values) + "\n"


def printed(*values: Any) -> str:
    """fmt.Sprint: a space between operands when neither is a string."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += _spoken(value)
    return out


def _spoken(value: Any) -> str:
    return "<nil>" if value is MISSING else text_of(value)


def _bytes(text: str, size: int) -> str:
    """The first `size` bytes, which may cut a letter."""
    data = text.encode("utf-8", "surrogateescape")
    if size < 0:
        raise ValueError(f"runtime error: slice bounds out of range [:{size}]")
    return data[:size].decode("utf-8", "surrogateescape")


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _padded(text: str, before: int, after: int) -> str:
    for count in (before, after):
        if count < 0 and text:
            raise ValueError("strings: negative Repeat count")
        if count > 1 << 20:
            raise ValueError("strings: Repeat output length overflow")
    return " " * before + text + " " * after if text else ""


def title(text: str) -> str:
    return "".join(
        letter.upper()
        if at == 0 or not (text[at - 1].isalnum() or text[at - 1] in "_'")
        else letter
        for at, letter in enumerate(text)
    )


_HTML = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;"))


def escaped_html(*values: Any) -> str:
    text = printed(*values).replace("\0", "\ufffd")
    for letter, name in _HTML:
        text = text.replace(letter, name)
    return text


_JS = {
    "\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E",
    "&": "\\u0026", "=": "\\u003D",
}  # fmt: skip


def escaped_js(*values: Any) -> str:
    return "".join(
        _JS.get(letter) or (letter if letter.isprintable() else f"\\u{ord(letter):04X}")
        for letter in printed(*values)
    )


def url_escaped(*values: Any) -> str:
    from dockpy.client.connection import quote

    return quote(printed(*values)).replace("%20", "+")


def _called(function: Any, *arguments: Any) -> Any:
    if function is None or function is MISSING:
        raise ValueError("call of nil")
    raise ValueError(f"non-function of type {go_type(function)}")


def _always(value: str, *_: Any) -> str:
    return value


# What a table's header goes through: it must stay the name of the column.
HEADER: dict[str, Arity] = {
    "join": Arity(_always, "string", "string"),
    "json": Arity(_always, "string"),
    "lower": Arity(_always, "string"),
    "split": Arity(_always, "string", "string"),
    "title": Arity(_always, "string"),
    "truncate": Arity(_always, "string", "int"),
    "upper": Arity(_always, "string"),
}

TABLE: dict[str, Arity] = {
    "and": Arity(printed, "any", more="any"),  # Template knows how: it may not look at them all
    "call": Arity(_called, "any", more="any"),
    "eq": Arity(equal, "any", more="any"),
    "ge": Arity(lambda one, other: not less(one, other), "any", "any"),
    "gt": Arity(lambda one, other: less(other, one), "any", "any"),
    "html": Arity(escaped_html, more="any"),
    "index": Arity(index, "any", more="any"),
    "join": Arity(joined, "any", "string"),
    "js": Arity(escaped_js, more="any"),
    "json": Arity(to_json, "any"),
    "le": Arity(lambda one, other: less(one, other) or _same(one, other), "any", "any"),
    "len": Arity(length, "any"),
    "lower": Arity(lambda text: text.lower(), "string"),
    "lt": Arity(less, "any", "any"),
    "ne": Arity(lambda one, other: not _same(one, other), "any", "any"),
    "not": Arity(lambda value: not truth(value), "any"),
    "or": Arity(printed, "any", more="any"),
    "pad": Arity(_padded, "string", "int", "int"),
    "print": Arity(printed, more="any"),
    "printf": Arity(printf, "string", more="any"),
    "println": Arity(println, more="any"),
    "slice": Arity(slice_of, "any", more="any"),
    "split": Arity(_split, "string", "string"),
    "title": Arity(title, "string"),
    "truncate": Arity(_bytes, "string", "int"),
    "upper": Arity(lambda text: text.upper(), "string"),
    "urlquery": Arity(url_escaped, more="any"),
}
