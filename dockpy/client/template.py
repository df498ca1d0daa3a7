"""A subset of Go's text/template, as --format knows it: pure, and imported only when a template was
given.

Fields, maps, pipelines, `if/else if/else`, `range/else`, `with/else`, variables, the built-in
functions and docker's own (`json split join title lower upper pad truncate println table`). Parsing
gives a list of nodes; `Template.render` walks them over plain values (dict, list, str, int, float,
bool, None). Errors carry Go's words, since scripts meet them.
"""

from __future__ import annotations

from dockpy.client.template_functions import MISSING, TABLE, go_type, text_of, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

    Node = tuple[Any, ...]

MAX_DEPTH = 100


class TemplateError(Exception):
    """The template cannot be parsed, or not carried out."""


# --- words ---------------------------------------------------------------------------------------


def _fail(message: str) -> NoReturn:
    raise TemplateError(f"template: :1: {message}")


def _segments(text: str) -> Iterator[tuple[str, str, int]]:
    """("text", …) and ("action", …) with their offsets, white space trimmed where {{- or -}} say
    so.
    """
    at, trim = 0, False
    while True:
        start = text.find("{{", at)
        piece = text[at:] if start < 0 else text[at:start]
        if trim:
            piece = piece.lstrip()
        if start < 0:
            if piece:
                yield "text", piece, at
            return
        body = start + 2
        if text[body : body + 1] == "-" and text[body + 1 : body + 2].isspace():
            piece = piece.rstrip()
            body += 1
        if piece:
            yield "text", piece, at
        end = _action_end(text, body)
        inner = text[body:end]
        trim = inner.endswith("-") and inner[:-1][-1:].isspace()
        if trim:
            inner = inner[:-1]
        if not (inner.strip().startswith("/*") and inner.strip().endswith("*/")):
            yield "action", inner, body
        at = end + 2


def _action_end(text: str, at: int) -> int:
    """Where the }} is that no string holds."""
    if text[at:].lstrip().startswith("/*"):
        end = text.find("*/", at)
        if end < 0:
            _fail("unclosed comment")
        at = end + 2
    while at < len(text):
        letter = text[at]
        if text.startswith("}}", at):
            return at
        if letter in '"`':
            close = at + 1
            while close < len(text) and text[close] != letter:
                close += 2 if letter == '"' and text[close] == "\\" else 1
            if close >= len(text):
                _fail(
                    "unterminated quoted string"
                    if letter == '"'
                    else "unterminated raw quoted string"
                )
            at = close
        at += 1
    _fail("unclosed action")


_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}


def _unquote(body: str) -> str:
    result, at = [], 0
    while at < len(body):
        letter = body[at]
        at += 1
        if letter != "\\":
            result.append(letter)
            continue
        code = body[at : at + 1]
        at += 1
        if code in _ESCAPES:
            result.append(_ESCAPES[code])
        elif code in ("x", "u", "U"):
            width = {"x": 2, "u": 4, "U": 8}[code]
            digits = body[at : at + width]
            try:
                result.append(chr(int(digits, 16)))
            except (ValueError, OverflowError):
                _fail(f'invalid syntax: "{body}"')
            at += width
        else:
            _fail(f'invalid syntax: "{body}"')
    return "".join(result)


def _tokens(text: str) -> list[tuple[str, Any, int]]:
    """(kind, value, offset): field .a · var $x · word · string · number · and the signs | ( ) , =
    := .
    """
    found: list[tuple[str, Any, int]] = []
    at = 0
    while at < len(text):
        begin = at
        letter = text[at]
        if letter.isspace():
            found.append(("space", " ", begin))
            while at < len(text) and text[at].isspace():
                at += 1
        elif letter in "\"`'":
            end = at + 1
            while text[end : end + 1] != letter:
                if end >= len(text):
                    _fail("unterminated character constant")
                end += 2 if letter != "`" and text[end] == "\\" else 1
            body = text[at + 1 : end]
            if letter == "'":
                found.append(("number", ord(_unquote(body)[:1] or "\0"), begin))
            else:
                found.append(("string", _unquote(body) if letter == '"' else body, begin))
            at = end + 1
        elif text.startswith(":=", at):
            found.append((":=", ":=", begin))
            at += 2
        elif letter in "|(),=":
            found.append((letter, letter, begin))
            at += 1
        elif letter == "." and not text[at + 1 : at + 2].isdigit():
            name, at = _name(text, at + 1)
            found.append(("field", name, begin))
        elif letter == "$":
            name, at = _name(text, at + 1)
            found.append(("var", name, begin))
        elif letter.isdigit() or (letter in "+-." and text[at + 1 : at + 2].isdigit()):
            end = at + 1
            while end < len(text) and (text[end].isalnum() or text[end] in "._"):
                end += 1
            found.append(("number", _number(text[at:end]), begin))
            at = end
        elif letter.isalpha() or letter == "_":
            name, at = _name(text, at)
            found.append(("word", name, begin))
        else:
            _fail(
                f'unexpected "{letter}" in operand'
                if letter.isprintable()
                else f"unrecognized character in action: U+{ord(letter):04X}"
            )
    return found


def _name(text: str, at: int) -> tuple[str, int]:
    end = at
    while end < len(text) and (text[end].isalnum() or text[end] == "_"):
        end += 1
    if end < len(text) and not text[end].isspace() and text[end] not in ".|(),=:}\"`'":
        _fail(f"bad character U+{ord(text[end]):04X} '{text[end]}'")
    return text[at:end], end


def _number(text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        _fail(f'bad number syntax: "{text}"')


# --- grammar -------------------------------------------------------------------------------------

_CONSTANTS = {"true": True, "false": False, "nil": None}


class _Parser:
    def __init__(self, text: str, functions: frozenset[str]) -> None:
        self._segments = list(_segments(text))
        self._at = 0
        self._functions = functions
        self._variables = [""]

    def parse(self) -> list[Node]:
        nodes, end = self._list(0)
        if end:
            _fail(f"unexpected {{{{{end}}}}}")
        return nodes

    def _list(self, depth: int) -> tuple[list[Node], str]:
        """Nodes up to `end` or `else …`, which is returned."""
        if depth > MAX_DEPTH:
            _fail("max expression depth exceeded")
        nodes: list[Node] = []
        while self._at < len(self._segments):
            kind, body, begin = self._segments[self._at]
            self._at += 1
            if kind == "text":
                nodes.append(("text", body))
                continue
            words = body.split(None, 1)
            head = words[0] if words else ""
            rest = words[1] if len(words) > 1 else ""
            start = begin + len(body) - len(rest)
            if head == "end" or head == "else":
                if head == "end" and rest:
                    _fail(f"unexpected <{rest}> in end")
                return nodes, " ".join(body.split())
            if head in ("if", "with", "range"):
                nodes.append(self._block(head, rest, start, depth))
            elif head in ("break", "continue") and not rest:
                nodes.append((head,))
            elif head in ("define", "template", "block"):
                _fail(f"{head} is not served by this build")
            else:
                nodes.append(("print", self._pipeline(body, begin, "command")))
        return nodes, ""

    def _block(self, head: str, rest: str, begin: int, depth: int) -> Node:
        mark = len(self._variables)
        pipeline = self._pipeline(rest, begin, head)
        body, end = self._list(depth + 1)
        otherwise: list[Node] = []
        if end.startswith("else"):
            follow = end[4:].strip()
            if follow.startswith(("if ", "with ")):
                inner, _, condition = follow.partition(" ")
                otherwise = [self._block(inner, condition, begin, depth + 1)]
                del self._variables[mark:]
                return (head, pipeline, body, otherwise)
            if follow:
                _fail(f"unexpected <{follow}> in else")
            otherwise, end = self._list(depth + 1)
            if end != "end" and end:
                _fail("expected end; found {{else}}")
        if not end:
            _fail("unexpected EOF")
        del self._variables[mark:]
        return (head, pipeline, body, otherwise)

    def _pipeline(self, text: str, begin: int, context: str) -> Node:
        """("pipe", names, declare, commands)"""
        tokens = _tokens(text)
        names: list[str] = []
        declare = False
        bare = [token for token in tokens if token[0] != "space"]
        if bare and bare[0][0] == "var":
            count = next(
                (number for number, token in enumerate(bare) if token[0] in ("=", ":=")), 0
            )
            if count and all(token[0] in ("var", ",") for token in bare[:count]):
                names = [token[1] for token in bare[:count] if token[0] == "var"]
                declare = bare[count][0] == ":="
                position = next(
                    number for number, token in enumerate(tokens) if token[0] in ("=", ":=")
                )
                tokens = tokens[position + 1 :]
        reader = _Operands(text, begin, tokens, self._functions, self._variables)
        commands = reader.commands(context)
        if declare:
            self._variables += names
        for name in names:
            if name not in self._variables:
                _fail(f"undefined variable: ${name}")
        return ("pipe", names, declare, commands)


class _Operands:
    def __init__(
        self,
        text: str,
        begin: int,
        tokens: list[tuple[str, Any, int]],
        functions: frozenset[str],
        variables: list[str],
    ) -> None:
        self._text = text
        self._begin = begin
        self._tokens = tokens
        self._at = 0
        self._functions = functions
        self._variables = variables

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _offset(self) -> int:
        return int(self._tokens[self._at][2]) if self._at < len(self._tokens) else len(self._text)

    def _skip(self) -> None:
        while self._peek() == "space":
            self._at += 1

    def commands(self, context: str, depth: int = 0) -> list[list[Node]]:
        if depth > MAX_DEPTH:
            _fail("max expression depth exceeded")
        found: list[list[Node]] = []
        while True:
            operands: list[Node] = []
            self._skip()
            first = self._offset()
            while True:
                self._skip()
                if self._peek() in ("", "|", ")"):
                    break
                operands.append(self._operand(depth))
                if self._peek() not in ("", "|", ")", "space"):
                    _fail(f"unexpected {self._tokens[self._at][1]!r} in operand")
            if not operands:
                _fail(f"missing value for {context}")
            if found and operands[0][0] == "constant":
                _fail(f"non executable command in pipeline stage {len(found) + 1}")
            if operands[0][0] == "function":
                said = self._text[first : self._offset()].strip()
                operands[0] = ("function", operands[0][1], self._begin + first, said)
            found.append(operands)
            if self._peek() == "|":
                self._at += 1
                continue
            if self._peek() == ")" and not depth:
                _fail("unexpected right paren")
            return found

    def _operand(self, depth: int) -> Node:
        kind, value, begin = self._tokens[self._at]
        self._at += 1
        second = -1
        node: Node
        if kind == "field":
            node = ("chain", ("dot",), [value] if value else [], self._begin + begin, f".{value}")
        elif kind == "var":
            if value not in self._variables:
                _fail(f"undefined variable: ${value}")
            node = ("var", value)
        elif kind in ("string", "number"):
            node = ("constant", value)
        elif kind == "word":
            if value in _CONSTANTS:
                node = ("constant", _CONSTANTS[value])
            elif value in self._functions:
                node = ("function", value, self._begin + begin, value)
            else:
                _fail(f'function "{value}" not defined')
        elif kind == "(":
            inner = self.commands("parenthesized pipeline", depth + 1)
            if self._peek() != ")":
                _fail("unclosed left paren")
            self._at += 1
            node = ("pipe", [], False, inner)
        else:
            _fail(f"unexpected {value!r} in command")
        while self._peek() == "field":
            name = self._tokens[self._at][1]
            second = self._offset() if second < 0 else second
            self._at += 1
            longer = node[0] == "chain"
            names: list[Any] = [*node[2], name] if longer else [name]  # type: ignore[misc]
            base = node[1] if longer else node
            node = (
                "chain",
                base,
                names,
                self._begin + second,
                self._text[begin : self._offset()].strip(),
            )
        return node


# --- execution -----------------------------------------------------------------------------------


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    """A parsed template. `functions` adds to Go's and docker's."""

    def __init__(self, text: str, functions: dict[str, Callable[..., Any]] | None = None) -> None:
        self._functions = {**TABLE, **(functions or {})}
        self.source = text
        try:
            self._nodes = _Parser(text, frozenset((*self._functions, "and", "or"))).parse()
        except RecursionError:
            raise TemplateError("template: :1: max expression depth exceeded") from None

    def render(self, data: Any) -> str:
        out: list[str] = []
        run = _Run(self.source, self._functions, data, out)
        try:
            run.nodes(self._nodes, data)
        except RecursionError:
            raise TemplateError("exceeded maximum template depth") from None
        return "".join(out)

    def fields(self) -> set[str]:
        """Every name after a dot: what `ps` looks through for .Size."""
        found: set[str] = set()

        def walk(node: Any) -> None:
            if isinstance(node, (list, tuple)):
                if len(node) == 5 and node[0] == "chain":
                    found.update(node[2])
                for part in node:
                    walk(part)

        walk(self._nodes)
        return found


class _Run:
    def __init__(
        self, source: str, functions: dict[str, Callable[..., Any]], root: Any, out: list[str]
    ) -> None:
        self._source = source
        self._functions = functions
        self._variables: list[tuple[str, Any]] = [("", root)]
        self._out = out

    def nodes(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            kind = node[0]
            if kind == "text":
                self._out.append(node[1])
            elif kind == "print":
                value = self.pipeline(node[1], dot)
                if not node[1][1]:
                    self._out.append("<no value>" if value is None else text_of(value))
            elif kind == "break":
                raise _Break
            elif kind == "continue":
                raise _Continue
            else:
                mark = len(self._variables)
                getattr(self, f"_{kind}")(node, dot)
                del self._variables[mark:]

    def _if(self, node: Node, dot: Any) -> None:
        self.nodes(node[2] if truth(self.pipeline(node[1], dot)) else node[3], dot)

    def _with(self, node: Node, dot: Any) -> None:
        value = self.pipeline(node[1], dot)
        if truth(value):
            self.nodes(node[2], value)
        else:
            self.nodes(node[3], dot)

    def _range(self, node: Node, dot: Any) -> None:
        _, names, _, commands = node[1]
        value = self.pipeline(("pipe", [], False, commands), dot)
        pairs: list[tuple[Any, Any]]
        if isinstance(value, dict):
            pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
        elif isinstance(value, (list, tuple)):
            pairs = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(number, number) for number in range(value)]
        elif value is None or value is MISSING:
            pairs = []
        else:
            raise TemplateError(
                f'template: :1: executing "": range can\'t iterate over {text_of(value)}'
            )
        if not pairs:
            self.nodes(node[3], dot)
            return
        for key, element in pairs:
            mark = len(self._variables)
            if len(names) == 1:
                self._variables.append((names[0], element))
            elif len(names) == 2:
                self._variables += [(names[0], key), (names[1], element)]
            try:
                self.nodes(node[2], element)
            except _Break:
                break
            except _Continue:
                pass
            finally:
                del self._variables[mark:]

    def pipeline(self, node: Node, dot: Any) -> Any:
        _, names, declare, commands = node
        value: Any = None
        for at, operands in enumerate(commands):
            value = self._command(operands, dot, [value] if at else [])
        for name in names:
            if declare:
                self._variables.append((name, value))
            else:
                self._assign(name, value)
        return value

    def _assign(self, name: str, value: Any) -> None:
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return

    def _command(self, operands: list[Node], dot: Any, piped: list[Any]) -> Any:
        first, rest = operands[0], operands[1:]
        if first[0] == "function":
            return self._call(first, rest, dot, piped)
        value = self._value(first, dot)
        if callable(value):  # a method of the listing, such as .Label
            return value(*[self._value(node, dot) for node in rest], *piped)
        if rest or piped:
            said = first[4] if first[0] == "chain" else text_of(value)
            self._stop(
                first[3] if first[0] == "chain" else 0,
                said,
                f"can't give argument to non-function {said}",
            )
        return value

    def _stop(self, at: int, said: str, message: str) -> NoReturn:
        """Go tells line, column and what it was about."""
        before = self._source[:at]
        line, column = before.count("\n") + 1, at - before.rfind("\n") - 1
        raise TemplateError(f'template: :{line}:{column}: executing "" at <{said}>: {message}')

    def _call(self, function: Node, operands: list[Node], dot: Any, piped: list[Any]) -> Any:
        name = function[1]
        if name in ("and", "or"):
            value: Any = None
            for node in operands:
                value = self._value(node, dot)
                if truth(value) == (name == "or"):
                    return value
            return piped[0] if piped else value
        arguments = [self._value(node, dot) for node in operands] + piped
        try:
            return self._functions[name](*arguments)
        except (TypeError, ValueError, IndexError, KeyError) as error:
            text = str(error)
            if isinstance(error, TypeError) and "argument" in text:
                text = f"wrong number of args for {name}: got {len(arguments)}"
            self._stop(
                function[2],
                function[3],
                text if text.startswith("wrong") else f"error calling {name}: {text}",
            )

    def _value(self, node: Node, dot: Any) -> Any:
        kind = node[0]
        if kind == "constant":
            return node[1]
        if kind == "dot":
            return dot
        if kind == "var":
            return next(value for name, value in reversed(self._variables) if name == node[1])
        if kind == "chain":
            value = self._value(node[1], dot)
            for name in node[2]:
                try:
                    value = field(value, name)
                except LookupError as error:
                    self._stop(node[3], node[4], str(error.args[0]))
            return value
        if kind == "function":
            return self._call(node, [], dot, [])
        return self.pipeline(node, dot)


def field(value: Any, name: str) -> Any:
    """LookupError with Go's words where there is none. A plain dict is Go's map under
    missingkey=error, as docker sets it.
    """
    if isinstance(value, dict):
        if name in value:
            return value[name]
        kind = getattr(value, "go_type", "")
        if kind:
            raise LookupError(f"can't evaluate field {name} in type {kind}")
        raise LookupError(f'map has no entry for key "{name}"')
    if value is MISSING or value is None:
        raise LookupError(f'nil data; no entry for key "{name}"')
    raise LookupError(f"can't evaluate field {name} in type {go_type(value)}")
