"""The words of Go's text/template: text and, between {{ and }}, tokens. Pure; errors are tokens too,
because Go tells them where the parser meets them (text/template/parse/lex.go).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

KEYWORDS = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with")
)  # fmt: skip
_DIGITS = "0123456789"
_ENDS_WORD = ".,|:)("
_SPACES = " \t\r\n"


class Token:
    """`kind` is text, left, right, space, error, eof, dot, field, variable, word, bool, number, char
    (a character constant), string, raw, =, :=, |, (, ), sign (any other printable) or a keyword.
    """

    __slots__ = ("at", "kind", "line", "value")

    def __init__(self, kind: str, value: str, at: int, line: int) -> None:
        self.kind, self.value, self.at, self.line = kind, value, at, line

    def __str__(self) -> str:
        if self.kind == "eof":
            return "EOF"
        if self.kind == "error":
            return self.value
        if self.kind in KEYWORDS or self.kind == "dot":
            return f"<{self.value}>"
        return quoted(self.value[:10]) + "..." if len(self.value) > 10 else quoted(self.value)


def quoted(text: str) -> str:
    """Go's %q."""
    return '"' + "".join(_ESCAPED.get(letter) or _printable(letter) for letter in text) + '"'


_ESCAPED = {
    "\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r",
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v",
}  # fmt: skip


def _printable(letter: str) -> str:
    if letter.isprintable():
        return letter
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class _Stop(Exception):
    """The token that ends everything: an error."""


class Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._start = 0
        self._line = 1
        self._parens = 0

    def tokens(self) -> Iterator[Token]:
        """Endless: the last one, an error or eof, is repeated."""
        try:
            yield from self._all()
            last = self._token("eof")
        except _Stop as error:
            last = Token("error", str(error), self._start, self._line)
        while True:
            yield last

    def _token(self, kind: str) -> Token:
        token = Token(kind, self._text[self._start : self._at], self._start, self._line)
        self._line += token.value.count("\n")
        self._start = self._at
        return token

    def _all(self) -> Iterator[Token]:
        text = self._text
        trim = False
        while True:
            left = text.find("{{", self._at)
            end = len(text) if left < 0 else left
            if trim:
                while self._at < end and text[self._at] in _SPACES:
                    self._at += 1
                self._token("space")
            trimmed = end
            mark = left >= 0 and text[left + 2 : left + 3] == "-" and text[left + 3 : left + 4] in (
                *_SPACES,
            )  # fmt: skip
            if mark:
                while trimmed > self._at and text[trimmed - 1] in _SPACES:
                    trimmed -= 1
            if trimmed > self._at:
                self._at = trimmed
                yield self._token("text")
            self._at = end
            self._token("space")
            if left < 0:
                return
            self._at = left + 2
            begin = self._at + (2 if mark else 0)
            if text.startswith("/*", begin):
                trim = self._comment(begin)
                continue
            yield self._token("left")
            if mark:
                self._at = begin
                self._token("space")
            self._parens = 0
            trim = yield from self._action()

    def _comment(self, begin: int) -> bool:
        """Passes over it; whether white space after it goes too."""
        end = self._text.find("*/", begin)
        if end < 0:
            raise _Stop("unclosed comment")
        self._at = end + 2
        width, trim = self._right()
        if not width:
            raise _Stop("comment ends before closing delimiter")
        self._at += width
        self._token("comment")
        return trim

    def _right(self) -> tuple[int, bool]:
        """Length of a right delimiter here (0: none), and whether it trims."""
        text, at = self._text, self._at
        if text[at : at + 1] and text[at] in _SPACES and text.startswith("-}}", at + 1):
            return 4, True
        return (2, False) if text.startswith("}}", at) else (0, False)

    def _action(self) -> Generator[Token, None, bool]:
        text = self._text
        while True:
            width, trim = self._right()
            if width:
                if self._parens:
                    raise _Stop("unclosed left paren")
                if trim:
                    self._at += 2
                    self._token("space")
                self._at += 2
                yield self._token("right")
                return trim
            letter = text[self._at : self._at + 1]
            self._at += 1
            if not letter:
                self._at -= 1
                raise _Stop("unclosed action")
            if letter in _SPACES:
                while text[self._at : self._at + 1] and text[self._at] in _SPACES:
                    self._at += 1
                # The last of several spaces may belong to a trim marker.
                if text.startswith("-}}", self._at):
                    self._at -= 1
                    if self._at == self._start:
                        continue
                yield self._token("space")
            else:
                yield self._word(letter)

    def _word(self, letter: str) -> Token:
        text = self._text
        if letter == "=":
            return self._token("=")
        if letter == ":":
            self._at += 1
            if text[self._at - 1 : self._at] != "=":
                raise _Stop("expected :=")
            return self._token(":=")
        if letter in "\"'`":
            return self._quoted(letter)
        if letter == "$":
            return self._name("variable")
        if letter == "." and text[self._at : self._at + 1] not in (*_DIGITS,):
            return self._token("dot") if self._terminator() else self._name("field")
        if letter in "+-." or letter in _DIGITS:
            return self._number()
        if _alphanumeric(letter):
            return self._name("word")
        if letter == "(":
            self._parens += 1
        elif letter == ")":
            self._parens -= 1
            if self._parens < 0:
                raise _Stop("unexpected right paren")
        elif letter != "|":
            if not (letter.isascii() and letter.isprintable()):
                raise _Stop(f"unrecognized character in action: {_unicode(letter)}")
            return self._token("sign")
        return self._token(letter)

    def _terminator(self) -> bool:
        letter = self._text[self._at : self._at + 1]
        return (
            not letter
            or letter in _SPACES
            or letter in _ENDS_WORD
            or self._text.startswith("}}", self._at)
        )

    def _name(self, kind: str) -> Token:
        text = self._text
        while _alphanumeric(text[self._at : self._at + 1]):
            self._at += 1
        if not self._terminator():
            raise _Stop(f"bad character {_unicode(text[self._at])}")
        if kind == "word":
            word = text[self._start : self._at]
            kind = word if word in KEYWORDS else "bool" if word in ("true", "false") else "word"
        return self._token(kind)

    def _quoted(self, quote: str) -> Token:
        what = {'"': "quoted string", "'": "character constant", "`": "raw quoted string"}[quote]
        while True:
            letter = self._text[self._at : self._at + 1]
            self._at += 1
            if letter == "\\" and quote != "`":
                letter = self._text[self._at : self._at + 1]
                self._at += 1
                if letter and letter != "\n":
                    continue
            if not letter or (letter == "\n" and quote != "`"):
                raise _Stop(f"unterminated {what}")
            if letter == quote:
                return self._token({'"': "string", "'": "char", "`": "raw"}[quote])

    def _number(self) -> Token:
        self._at = self._start
        self._accept("+-")
        digits = _DIGITS + "_"
        if self._accept("0"):
            if self._accept("xX"):
                digits = "0123456789abcdefABCDEF_"
            elif self._accept("oO"):
                digits = "01234567_"
            elif self._accept("bB"):
                digits = "01_"
        self._run(digits)
        if self._accept("."):
            self._run(digits)
        if (digits == _DIGITS + "_" and self._accept("eE")) or (
            len(digits) > 20 and self._accept("pP")
        ):
            self._accept("+-")
            self._run(_DIGITS + "_")
        self._accept("i")
        if _alphanumeric(self._text[self._at : self._at + 1]):
            self._at += 1
            raise _Stop(f"bad number syntax: {quoted(self._text[self._start : self._at])}")
        return self._token("number")

    def _accept(self, letters: str) -> bool:
        letter = self._text[self._at : self._at + 1]
        if letter and letter in letters:
            self._at += 1
            return True
        return False

    def _run(self, letters: str) -> None:
        while self._accept(letters):
            pass


def _alphanumeric(letter: str) -> bool:
    return letter == "_" or letter.isalpha() or letter.isdecimal()


def _unicode(letter: str) -> str:
    """Go's %#U."""
    code = f"U+{ord(letter):04X}"
    return f"{code} '{letter}'" if letter.isprintable() else code
