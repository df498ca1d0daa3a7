"""The functions that templates may call: Go's built-ins and docker's additions. A table and its
pure parts.
"""

from __future__ import annotations

from dockpy import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Missing:
    """What a field that does not exist evaluates to: printed as <no value>, false, not an error
    (docker's maps).
    """

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


def truth(value: Any) -> bool:
    return bool(value)


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
    if isinstance(value, dict):
        return "map[string]interface {}"
    return getattr(value, "go_type", "interface {}")


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
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
        return "map[" + " ".join(f"{text_of(key)}:{text_of(item)}" for key, item in pairs) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(text_of(item) for item in value) + "]"
    return str(value)


def go_float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def to_json(value: Any) -> str:
    """Compact JSON as Go prints it: UTF-8 as it is; docker switches HTML escapes off."""
    text = fastjson.dumps(
        None if value is MISSING else getattr(value, "as_dict", lambda: value)()
    ).decode()
    if "\\u" not in text:
        return text
    import json

    return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))


def index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, (list, tuple, str)):
            if not isinstance(key, int) or isinstance(key, bool):
                raise ValueError(f"cannot index slice/array with type {go_type(key)}")
            if not 0 <= key < len(value):
                raise ValueError(f"index out of range: {key}")
            value = value[key]
        elif value is None or value is MISSING:
            raise ValueError("index of untyped nil")
        else:
            raise ValueError(f"can't index item of type {go_type(value)}")
    return value


def slice_of(value: Any, *bounds: int) -> Any:
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= low <= high <= len(value):
        raise ValueError(f"index out of range: {high}")
    return value[low:high]


def length(value: Any) -> int:
    if not isinstance(value, (str, list, tuple, dict)):
        raise ValueError(
            f"len of type {go_type(value)}" if value is not None else "len of nil pointer"
        )
    return len(value.encode()) if isinstance(value, str) else len(value)


def printf(form: str, *arguments: Any) -> str:
    """The verbs %v %s %d %q %t %x %f %g %T %c %o %b %e %U and %%, with flags, width and precision."""
    out: list[str] = []
    rest = list(arguments)
    at = 0
    while at < len(form):
        sign = form.find("%", at)
        if sign < 0:
            out.append(form[at:])
            break
        out.append(form[at:sign])
        at = sign + 1
        flags, at = _take(form, at, "+-# 0")
        width, at = _take(form, at, "0123456789*")
        if width == "*" and rest:
            width = str(rest.pop(0))
        precision = ""
        if form[at : at + 1] == ".":
            precision, at = _take(form, at + 1, "0123456789")
            precision = "." + (precision or "0")
        verb = form[at : at + 1]
        at += 1
        if verb == "%":
            out.append("%")
        elif not verb:
            out.append("%!(NOVERB)")
        elif not rest:
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_pad(_formatted(verb, flags, precision, rest.pop(0)), flags, width))
    if rest:
        extra = ", ".join(f"{go_type(item)}={text_of(item)}" for item in rest)
        out.append(f"%!(EXTRA {extra})")
    return "".join(out)


def _take(text: str, at: int, letters: str) -> tuple[str, int]:
    end = at
    while end < len(text) and text[end] in letters:
        end += 1
    return text[at:end], end


def _pad(text: str, flags: str, width: str) -> str:
    columns = int(width or "0")
    if "-" in flags:
        return f"{text:<{columns}}"
    if "0" in flags and text.lstrip("+-").replace(".", "", 1).isdigit():
        return text.zfill(columns)
    return f"{text:>{columns}}"


def _formatted(verb: str, flags: str, precision: str, value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    plus = "+" if "+" in flags and number and value >= 0 else ""
    if verb in "vs":
        if verb == "s" and not isinstance(value, (str, list, tuple, dict)):
            return f"%!s({go_type(value)}={text_of(value)})"
        text = (
            quoted(value)
            if verb == "v" and "#" in flags and isinstance(value, str)
            else text_of(value)
        )
        return text[: int(precision[1:])] if precision else plus + text
    if verb == "q" and isinstance(value, str):
        return quoted(value)
    if verb == "T":
        return go_type(value)
    if verb == "t" and isinstance(value, bool):
        return text_of(value)
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if verb in "dxXobcU" and isinstance(value, int) and not isinstance(value, bool):
        if verb == "c":
            return chr(value)
        if verb == "U":
            return f"U+{value:04X}"
        return plus + format(value, ("#" if "#" in flags and verb != "d" else "") + verb)
    if verb in "feEgG" and number:
        if verb == "g" and not precision:
            return plus + text_of(float(value))
        return plus + format(float(value), f"{precision}{verb}")
    return f"%!{verb}({go_type(value)}={text_of(value)})"


def quoted(value: str) -> str:
    return (
        fastjson.dumps(value).decode()
        if value.isascii()
        else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


def joined(values: Any, separator: str = "") -> str:
    if isinstance(values, str) or not isinstance(values, (list, tuple)):
        if values is None or values is MISSING:
            return ""
        raise ValueError(f"expected []string; got {go_type(values)}")
    return separator.join(text_of(value) for value in values)


def equal(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    return any(_same(first, other) for other in others)


def _same(one: Any, other: Any) -> bool:
    if (one is MISSING or one is None) and (other is MISSING or other is None):
        return True
    if one is MISSING or other is MISSING or one is None or other is None:
        return not truth(one) and not truth(other) and one == other
    kinds = [
        ("number" if go_type(item) in ("int", "float64") else go_type(item))
        for item in (one, other)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError("incompatible types for comparison")
    return bool(one == other)


def _ordered(one: Any, other: Any) -> None:
    strings = isinstance(one, str) and isinstance(other, str)
    numbers = all(
        isinstance(item, (int, float)) and not isinstance(item, bool) for item in (one, other)
    )
    if not strings and not numbers:
        raise ValueError("incompatible types for comparison")


def less(one: Any, other: Any) -> bool:
    _ordered(one, other)
    return bool(one < other)


def less_or_equal(one: Any, other: Any) -> bool:
    _ordered(one, other)
    return bool(one <= other)


def println(*values: Any) -> str:
    return " ".join(text_of(value) for value in values) + "\n"


def printed(*values: Any) -> str:
    """fmt.Sprint: a space between operands when neither is a string."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += text_of(value)
    return out


def pad(text: Any, before: int, after: int) -> str:
    return " " * before + text_of(text) + " " * after if text_of(text) else ""


def title(text: str) -> str:
    return "".join(
        letter.upper()
        if at == 0 or not (text[at - 1].isalnum() or text[at - 1] in "_'")
        else letter
        for at, letter in enumerate(text)
    )


def escaped_html(*values: Any) -> str:
    text = printed(*values)
    for letter, name in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ('"', "&#34;"),
        ("'", "&#39;"),
    ):
        text = text.replace(letter, name)
    return text


def url_escaped(*values: Any) -> str:
    from dockpy.client.connection import quote

    return quote(printed(*values)).replace("%20", "+")


TABLE: dict[str, Callable[..., Any]] = {
    "eq": equal,
    "ge": lambda one, other: not less(one, other),
    "gt": lambda one, other: not less_or_equal(one, other),
    "html": escaped_html,
    "index": index,
    "join": joined,
    "json": to_json,
    "le": less_or_equal,
    "len": length,
    "lower": lambda text: text_of(text).lower(),
    "lt": less,
    "ne": lambda one, other: not _same(one, other),
    "not": lambda value: not truth(value),
    "pad": pad,
    "print": printed,
    "printf": printf,
    "println": println,
    "slice": slice_of,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "title": title,
    "truncate": lambda text, size: text[:size],
    "upper": lambda text: text_of(text).upper(),
    "urlquery": url_escaped,
}
