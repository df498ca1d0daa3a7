"""Go's text/template grammar: tokens to nodes, with Go's words for what is wrong
(text/template/parse/parse.go). Pure.
"""

from __future__ import annotations

from dockpy.client.template_lexer import Lexer, Token, quoted
from dockpy.client.template_nodes import (
    Action,
    Call,
    Chain,
    Command,
    Control,
    Field,
    Literal,
    Mark,
    Node,
    Pipe,
    Text,
    Variable,
    Word,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import NoReturn

# Go 1.24 has one for parentheses; ours also keeps Python's own stack from being the limit.
MAX_DEPTH = 100
_OPERANDS = frozenset(
    ("bool", "char", "dot", "field", "word", "number", "nil", "raw", "string", "variable", "(")
)


class TemplateError(Exception):
    """The template cannot be parsed, or not carried out."""


class Parser:
    """`trees` holds the main template under "", and what is defined under its name."""

    def __init__(self, text: str, functions: Collection[str]) -> None:
        self._stream = Lexer(text).tokens()
        self._ahead: list[Token] = []
        self._functions = functions
        self._variables = ["$"]
        self._ranges = 0
        self._depth = 0
        self._line = 1
        self._action_line = 0
        self.trees: dict[str, list[Node]] = {}

    def parse(self) -> None:
        nodes: list[Node] = []
        while self._peek().kind != "eof":
            if self._peek().kind == "left":
                left = self._next()
                word = self._next_word()
                if word.kind == "define":
                    self._definition()
                    continue
                self._back(word)
                self._back(left)
            node = self._text_or_action()
            if isinstance(node, Mark) and node.kind in ("end", "else"):
                self._fail(f"unexpected {node}")
            nodes.append(node)
        self._add("", nodes)

    def _add(self, name: str, nodes: list[Node]) -> None:
        # An empty definition does not replace one that says something, as in Go.
        if name not in self.trees or any(not isinstance(n, Text) or n.text.strip() for n in nodes):
            self.trees[name] = nodes

    # ------------------------------------------------------------------------------ tokens

    def _next(self) -> Token:
        token = self._ahead.pop() if self._ahead else next(self._stream)
        self._line = token.line
        return token

    def _back(self, token: Token) -> None:
        self._ahead.append(token)

    def _peek(self) -> Token:
        if not self._ahead:
            self._ahead.append(next(self._stream))
            self._line = self._ahead[-1].line
        return self._ahead[-1]

    def _next_word(self) -> Token:
        while True:
            token = self._next()
            if token.kind != "space":
                return token

    def _peek_word(self) -> Token:
        token = self._next_word()
        self._back(token)
        return token

    def _expect(self, kind: str, context: str) -> Token:
        token = self._next_word()
        if token.kind != kind:
            self._unexpected(token, context)
        return token

    def _fail(self, message: str) -> NoReturn:
        raise TemplateError(f"template: :{self._line}: {message}")

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind == "error":
            extra = ""
            if self._action_line and self._action_line != token.line:
                extra = f" in action started at :{self._action_line}"
                if token.value.endswith(" action"):
                    extra = extra[len(" in action") :]
            self._fail(f"{token}{extra}")
        self._fail(f"unexpected {token} in {context}")

    # ----------------------------------------------------------------------------- actions

    def _list(self) -> tuple[list[Node], Mark]:
        """Nodes up to {{end}} or {{else}}, which is returned."""
        nodes: list[Node] = []
        while self._peek_word().kind != "eof":
            node = self._text_or_action()
            if isinstance(node, Mark) and node.kind in ("end", "else"):
                return nodes, node
            nodes.append(node)
        self._next_word()
        self._fail("unexpected EOF")

    def _text_or_action(self) -> Node:
        token = self._next_word()
        if token.kind == "text":
            return Text(token.at, token.value)
        if token.kind != "left":
            self._unexpected(token, "input")
        self._action_line = token.line
        node = self._action()
        self._action_line = 0
        return node

    def _action(self) -> Node:
        token = self._next_word()
        kinds: dict[str, Callable[[Token], Node]] = {
            "if": self._control,
            "with": self._control,
            "range": self._control,
            "template": self._template,
            "block": self._block,
            "else": self._else,
            "end": lambda token: Mark(self._expect("right", "end").at, "end"),
            "break": self._loop_mark,
            "continue": self._loop_mark,
        }
        if token.kind in kinds:
            return kinds[token.kind](token)
        self._back(token)
        at = self._peek().at
        return Action(at, self._pipeline("command", "right"))

    def _loop_mark(self, token: Token) -> Node:
        follows = self._next_word()
        if follows.kind != "right":
            self._unexpected(follows, f"{{{{{token.kind}}}}}")
        if not self._ranges:
            self._fail(f"{{{{{token.kind}}}}} outside {{{{range}}}}")
        return Mark(token.at, token.kind)

    def _else(self, token: Token) -> Node:
        follows = self._peek_word()
        if follows.kind in ("if", "with"):
            return Mark(follows.at, "else")
        return Mark(self._expect("right", "else").at, "else")

    def _control(self, token: Token) -> Node:
        kind, mark = token.kind, len(self._variables)
        self._deeper()
        pipe = self._pipeline(kind, "right")
        self._ranges += kind == "range"
        body, end = self._list()
        self._ranges -= kind == "range"
        otherwise: list[Node] = []
        if end.kind == "else":
            if kind in ("if", "with") and self._peek().kind == kind:
                otherwise = [self._control(self._next())]
            else:
                otherwise, end = self._list()
                if end.kind != "end":
                    self._fail(f"expected end; found {end}")
        self._depth -= 1
        del self._variables[mark:]
        return Control(pipe.at, kind, pipe, body, otherwise)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("max expression depth exceeded")

    def _name(self, token: Token, context: str) -> str:
        if token.kind not in ("string", "raw"):
            self._unexpected(token, context)
        return self._unquoted(token)

    def _template(self, token: Token) -> Node:
        context = "template clause"
        word = self._next_word()
        name = self._name(word, context)
        pipe = None
        follows = self._next_word()
        if follows.kind != "right":
            self._back(follows)
            pipe = self._pipeline(context, "right")
        return Call(word.at, name, pipe)

    def _block(self, token: Token) -> Node:
        context = "block clause"
        word = self._next_word()
        name = self._name(word, context)
        pipe = self._pipeline(context, "right")
        self._body(name, context)
        return Call(word.at, name, pipe)

    def _definition(self) -> None:
        context = "define clause"
        name = self._name(self._next_word(), context)
        self._expect("right", context)
        self._body(name, context)

    def _body(self, name: str, context: str) -> None:
        outer, self._variables = self._variables, ["$"]
        ranges, self._ranges = self._ranges, 0
        self._deeper()
        nodes, end = self._list()
        self._depth -= 1
        self._variables, self._ranges = outer, ranges
        if end.kind != "end":
            self._fail(f"unexpected {end} in {context}")
        self._add(name, nodes)

    # --------------------------------------------------------------------------- pipelines

    def _pipeline(self, context: str, end: str) -> Pipe:
        at = self._peek_word().at
        names, assigns = self._declarations(context)
        commands: list[Command] = []
        while True:
            token = self._next_word()
            if token.kind == end:
                break
            if token.kind not in _OPERANDS:
                self._unexpected(token, context)
            self._back(token)
            commands.append(self._command())
        if not commands:
            self._fail(f"missing value for {context}")
        for number, command in enumerate(commands[1:], 2):
            if isinstance(command.operands[0], Literal):
                self._fail(f"non executable command in pipeline stage {number}")
        return Pipe(at, names, assigns, commands)

    def _declarations(self, context: str) -> tuple[list[str], bool]:
        names: list[str] = []
        while self._peek_word().kind == "variable":
            variable = self._next_word()
            beside = self._peek()
            follows = self._peek_word()
            if follows.kind in ("=", ":="):
                self._next_word()
                names.append(variable.value)
                self._variables.append(variable.value)
                return names, follows.kind == "="
            if follows.kind == "sign" and follows.value == ",":
                self._next_word()
                names.append(variable.value)
                self._variables.append(variable.value)
                if context == "range" and len(names) < 2:
                    if self._peek_word().kind in ("variable", "right", ")"):
                        continue
                    self._fail("range can only initialize variables")
                self._fail(f"too many declarations in {context}")
            if beside.kind == "space":
                self._back(beside)
            self._back(variable)
            break
        return names, False

    def _command(self) -> Command:
        at = self._peek_word().at
        operands: list[Node] = []
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                operands.append(operand)
            token = self._next()
            if token.kind == "space":
                continue
            if token.kind in ("right", ")"):
                self._back(token)
            elif token.kind != "|":
                self._unexpected(token, "operand")
            break
        if not operands:
            self._fail("empty command")
        return Command(at, operands)

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind != "field":
            return node
        at = self._peek().at
        names = []
        while self._peek().kind == "field":
            names.append(self._next().value[1:])
        if isinstance(node, Field):
            return Field(at, [*node.names, *names])
        if isinstance(node, Variable):
            return Variable(at, [*node.names, *names])
        if isinstance(node, Literal):
            self._fail(f"unexpected . after term {quoted(str(node))}")
        return Chain(at, node, names)

    def _term(self) -> Node | None:
        token = self._next_word()
        kind, value = token.kind, token.value
        if kind == "word":
            if value not in self._functions:
                self._fail(f"function {quoted(value)} not defined")
            return Word(token.at, value)
        if kind == "variable":
            if value not in self._variables:
                self._fail(f"undefined variable {quoted(value)}")
            return Variable(token.at, [value])
        if kind == "field":
            return Field(token.at, [value[1:]])
        if kind == "(":
            self._deeper()
            pipe = self._pipeline("parenthesized pipeline", ")")
            self._depth -= 1
            return pipe
        if kind in ("string", "raw"):
            return Literal(token.at, "string", value, self._unquoted(token))
        if kind in ("dot", "nil"):
            return Literal(token.at, kind, value)
        if kind == "bool":
            return Literal(token.at, kind, value, value == "true")
        if kind in ("number", "char"):
            return Literal(token.at, "number", value, self._number(token))
        self._back(token)
        return None

    def _number(self, token: Token) -> int | float:
        text = token.value
        if token.kind == "char":
            inside = _unescape(text[1:-1], "'")
            if inside is None or len(inside) != 1:
                self._fail(f"malformed character constant: {text}")
            return ord(inside)
        if text.endswith("i"):
            self._fail(f"complex numbers are not served: {quoted(text)}")
        digits = text.lstrip("+-")
        try:
            # 017 is an octal number in Go, and a mistake in Python.
            octal = digits[:1] == "0" and digits.replace("_", "").isdecimal() and len(digits) > 1
            whole = int(text, 8) if octal else int(text, 0)
        except ValueError:
            pass
        else:
            if not -(1 << 63) <= whole < 1 << 64:
                self._fail(f"integer overflow: {quoted(text)}")
            return whole
        try:
            return float.fromhex(text) if "x" in text.lower() else float(text)
        except (ValueError, OverflowError):
            self._fail(f"illegal number syntax: {quoted(text)}")

    def _unquoted(self, token: Token) -> str:
        if token.kind == "raw":
            return token.value[1:-1].replace("\r", "")
        inside = _unescape(token.value[1:-1], '"')
        if inside is None:
            self._fail("invalid syntax")
        return inside


_ESCAPES = {
    "a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92,
}  # fmt: skip


def _unescape(body: str, quote: str) -> str | None:
    """Go's strconv.Unquote of what stands between the quotes; None when it is wrong."""
    result = bytearray()
    at = 0
    while at < len(body):
        letter = body[at]
        at += 1
        if letter != "\\":
            result += letter.encode("utf-8", "surrogateescape")
            continue
        code = body[at : at + 1]
        at += 1
        if code in _ESCAPES or code == quote:
            result.append(_ESCAPES.get(code, ord(quote)))
            continue
        width, base = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}.get(code, (3, 8))
        if base == 8:
            at -= 1
        digits = body[at : at + width]
        at += width
        try:
            number = int(digits, base) if len(digits) == width and digits.isalnum() else -1
            encoded = bytes([number]) if code not in ("u", "U") else chr(number).encode()
        except (ValueError, OverflowError, UnicodeEncodeError):
            return None
        result += encoded
    return result.decode("utf-8", "surrogateescape")
