"""Go's fmt verbs over plain values, as `printf` in a template knows them. Pure."""

from __future__ import annotations

from dockpy.client.template_lexer import quoted
from dockpy.client.template_values import MISSING, Struct, go_float, go_type, ordered, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# A width beyond this is a mistake, to Go as well (fmt's tooLarge is 1e6).
WIDEST = 1000000


class _Reader:
    """The format string and the arguments, each with its place."""

    def __init__(self, form: str, arguments: tuple[Any, ...]) -> None:
        self.form, self.at = form, 0
        self.arguments, self.number = arguments, 0
        self.reordered = False
        self.good_number = True

    def take(self, letters: str) -> str:
        begin = self.at
        while self.at < len(self.form) and self.form[self.at] in letters:
            self.at += 1
        return self.form[begin : self.at]

    def index(self) -> None:
        """[n]: the next argument is the nth."""
        if self.form[self.at : self.at + 1] != "[":
            return
        self.reordered = True
        end = self.form.find("]", self.at)
        text = self.form[self.at + 1 : end] if end > 0 else ""
        self.at = end + 1 if end > 0 else self.at + 1
        self.good_number = text.isdecimal() and 0 < int(text[:7]) <= len(self.arguments)
        if self.good_number:
            self.number = int(text) - 1

    def size(self) -> tuple[int, str]:
        """(a width or precision, -1 for none; what to complain about)"""
        self.index()
        if self.form[self.at : self.at + 1] == "*":
            self.at += 1
            value: Any = (*self.arguments, None)[min(self.number, len(self.arguments))]
            self.number += 1
            if go_type(value) != "int" or abs(value) > WIDEST:
                return -1, "bad"
            return int(value), ""
        digits = self.take("0123456789")
        if not digits:
            return -1, ""
        return (int(digits[:8]), "") if int(digits[:8]) <= WIDEST else (-1, "bad")


def printf(form: str, *arguments: Any) -> str:
    """Go's Sprintf."""
    out: list[str] = []
    reader = _Reader(form, arguments)
    while reader.at < len(form):
        sign = form.find("%", reader.at)
        if sign < 0:
            out.append(form[reader.at :])
            break
        out.append(form[reader.at : sign])
        reader.at = sign + 1
        reader.good_number = True
        out.append(_one(reader))
    if not reader.reordered and reader.number < len(arguments):
        extra = ", ".join(
            "<nil>" if item is None or item is MISSING else f"{go_type(item)}={text_of(item)}"
            for item in arguments[reader.number :]
        )
        out.append(f"%!(EXTRA {extra})")
    return "".join(out)


def _one(reader: _Reader) -> str:
    flags = reader.take("+-# 0")
    width, complaint = reader.size()
    said = "%!(BADWIDTH)" if complaint else ""
    if width < -1 or (width == -1 and complaint == "" and reader.form[reader.at - 1] == "*"):
        flags, width = flags + "-", -width
    precision = -1
    if reader.form[reader.at : reader.at + 1] == ".":
        reader.at += 1
        precision, complaint = reader.size()
        if complaint:
            said += "%!(BADPREC)"
        elif precision < 0:
            precision = 0
    reader.index()
    verb = reader.form[reader.at : reader.at + 1]
    reader.at += 1
    if not verb:
        return said + "%!(NOVERB)"
    if verb == "%":
        return said + "%"
    if not reader.good_number:
        return said + f"%!{verb}(BADINDEX)"
    if reader.number >= len(reader.arguments):
        return said + f"%!{verb}(MISSING)"
    value = reader.arguments[reader.number]
    reader.number += 1
    return said + _Verb(verb, flags, width, precision).of(value)


class _Verb:
    def __init__(self, verb: str, flags: str, width: int, precision: int) -> None:
        self.verb, self.flags = verb, flags
        self.width, self.precision = width, precision

    def of(self, value: Any) -> str:
        verb = self.verb
        if verb == "T":
            return self._padded("<nil>" if value in (None, MISSING) else go_type(value))
        if value is None or value is MISSING:
            return self._padded("<nil>") if verb == "v" else f"%!{verb}(<nil>)"
        if isinstance(value, (dict, list, tuple)):
            return self._many(value)
        if verb == "v" and "#" in self.flags and isinstance(value, str):
            return self._padded(quoted(value))
        text = self._scalar(value)
        if text is None:
            return f"%!{verb}({go_type(value)}={text_of(value)})"
        return text

    def _many(self, value: Any) -> str:
        """Go applies the verb to each element."""
        if isinstance(value, Struct):
            return "{" + " ".join(self.of(item) for item in value.values()) + "}"
        if isinstance(value, dict):
            return "map[" + " ".join(f"{self.of(k)}:{self.of(v)}" for k, v in ordered(value)) + "]"
        return "[" + " ".join(self.of(item) for item in value) + "]"

    def _scalar(self, value: Any) -> str | None:
        """None where the verb does not fit."""
        verb = self.verb
        if isinstance(value, bool):
            return self._padded(text_of(value)) if verb in "vt" else None
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, int):
            return self._integer(value)
        return self._float(value)

    def _string(self, value: str) -> str | None:
        if self.precision >= 0:
            value = value[: self.precision]
        if self.verb in "vs":
            return self._padded(value)
        if self.verb == "q":
            if "#" in self.flags and "`" not in value and value.isprintable():
                return self._padded(f"`{value}`")
            return self._padded(quoted(value))
        if self.verb in "xX":
            prefix = ("0" + self.verb) if "#" in self.flags else ""
            hexed = value.encode("utf-8", "surrogateescape").hex()
            hexed = hexed.upper() if self.verb == "X" else hexed
            if " " in self.flags:
                pairs = [hexed[at : at + 2] for at in range(0, len(hexed), 2)]
                return self._padded(" ".join(prefix + pair for pair in pairs))
            return self._padded(prefix + hexed if value else "")
        return None

    def _integer(self, value: int) -> str | None:
        verb = self.verb
        if verb in "cqU":
            letter = chr(value) if 0 <= value < 0x110000 else "\ufffd"
            if verb == "c":
                return self._padded(letter)
            if verb == "q":
                inner = quoted(letter)[1:-1].replace('\\"', '"')
                escaped = "\\'" if letter == "'" else inner
                return self._padded(f"'{escaped}'")
            shown = f" '{letter}'" if "#" in self.flags and letter.isprintable() else ""
            return self._padded(f"U+{value:04X}{shown}")
        bases: dict[str, tuple[str, str]] = {
            "v": ("d", ""), "d": ("d", ""), "b": ("b", "0b"), "o": ("o", "0"),
            "O": ("o", "0o"), "x": ("x", "0x"), "X": ("X", "0X"),
        }  # fmt: skip
        if verb not in bases:
            return None
        letter, prefix = bases[verb]
        digits = format(abs(value), letter)
        if self.precision >= 0:
            digits = "" if not value and not self.precision else digits.zfill(self.precision)
        if "#" not in self.flags and verb != "O":
            prefix = ""
        return self._number(value < 0, prefix + digits, zeros=self.precision < 0)

    def _float(self, value: float) -> str | None:
        verb = {"F": "f"}.get(self.verb, self.verb)
        if verb not in "vfeEgG":
            return None
        if verb in "vgG" and self.precision < 0:
            text = go_float(abs(value))
            text = text.upper() if verb == "G" else text
        else:
            shape = "g" if verb == "v" else verb
            precision = 6 if self.precision < 0 else self.precision
            text = format(abs(value), f".{precision}{shape}")
        return self._number(value < 0, text, zeros=True)

    def _number(self, negative: bool, digits: str, *, zeros: bool) -> str:
        sign = "-" if negative else "+" if "+" in self.flags else " " if " " in self.flags else ""
        if zeros and "0" in self.flags and "-" not in self.flags:
            return sign + digits.zfill(max(self.width - len(sign), 0))
        return self._padded(sign + digits)

    def _padded(self, text: str) -> str:
        fill: Callable[[int], str] = text.ljust if "-" in self.flags else text.rjust
        return fill(max(self.width, 0))
