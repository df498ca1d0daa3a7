"""Go's text/template, as --format knows it: pure, and imported only when a template was given.

Everything of the language but complex numbers. Parsing gives nodes (template_parser);
`Template.render` walks them over plain values (dict, list, str, int, float, bool, None; see
template_values for how Go would call them). Errors carry Go's words, since scripts meet them
(text/template/exec.go).
"""

from __future__ import annotations

from dockpy.client.template_functions import TABLE, Arity
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
from dockpy.client.template_parser import Parser, TemplateError
from dockpy.client.template_values import MISSING, Struct, field, go_type, ordered, text_of, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, NoReturn

__all__ = ["Template", "TemplateError"]

# Go's limit for templates that call themselves is 100,000; Python's stack ends before.
MAX_CALLS = 50


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    """A parsed template. TemplateError where it is none."""

    def __init__(self, text: str) -> None:
        self.source = text
        parser = Parser(text, TABLE)
        parser.parse()
        self._trees = parser.trees

    def render(self, data: Any, functions: Mapping[str, Arity] | None = None) -> str:
        """`functions` stand in for some of Go's and docker's (a table's header needs that)."""
        out: list[str] = []
        run = _Run(self.source, self._trees, {**TABLE, **(functions or {})}, data, out)
        try:
            run.nodes(self._trees[""], data)
        except RecursionError:
            raise TemplateError("exceeded maximum template depth") from None
        return "".join(out)

    def fields(self) -> set[str]:
        """Every name after a dot: what `ps` looks through for .Size."""
        found: set[str] = set()
        stack: list[Any] = list(self._trees.values())
        while stack:
            node = stack.pop()
            if isinstance(node, list):
                stack += node
            elif isinstance(node, (Field, Variable, Chain)):
                found.update(node.names)
            if isinstance(node, Node):
                stack += [getattr(node, name, None) for name in _PARTS]
        return found


_PARTS = ("pipe", "commands", "operands", "node", "body", "otherwise")


class _Run:
    def __init__(
        self,
        source: str,
        trees: Mapping[str, list[Node]],
        functions: Mapping[str, Arity],
        root: Any,
        out: list[str],
    ) -> None:
        self._source = source
        self._trees = trees
        self._functions = functions
        self._variables: list[tuple[str, Any]] = [("$", root)]
        self._out = out
        # A nil of a known type is a pointer, which prints itself.
        self._nothing = "<nil>" if isinstance(root, Struct) else "<no value>"
        self._at: Node | None = None
        self._name = ""
        self._calls = 0

    def _fail(self, message: str) -> NoReturn:
        """Go tells line, column and what it was about."""
        node = self._at
        at = node.at if node is not None else 0
        before = self._source[:at]
        line, column = before.count("\n") + 1, at - before.rfind("\n") - 1
        column = len(self._source[at - column : at].encode("utf-8", "surrogateescape"))
        raise TemplateError(
            f'template: :{line}:{column}: executing "{self._name}" at <{node}>: {message}'
        )

    # ------------------------------------------------------------------------------- nodes

    def nodes(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            self._at = node
            if isinstance(node, Text):
                self._out.append(node.text)
            elif isinstance(node, Action):
                value = self._pipe(node.pipe, dot)
                if not node.pipe.names:
                    self._out.append(self._nothing if value is None else text_of(value))
            elif isinstance(node, Control):
                mark = len(self._variables)
                if node.kind == "range":
                    self._range(node, dot)
                else:
                    self._choose(node, dot)
                del self._variables[mark:]
            elif isinstance(node, Call):
                self._call(node, dot)
            elif isinstance(node, Mark):
                raise _Break if node.kind == "break" else _Continue

    def _choose(self, node: Control, dot: Any) -> None:
        value = self._pipe(node.pipe, dot)
        if truth(value):
            self.nodes(node.body, value if node.kind == "with" else dot)
        else:
            self.nodes(node.otherwise, dot)

    def _range(self, node: Control, dot: Any) -> None:
        pipe = node.pipe
        value = self._pipe(Pipe(pipe.at, [], False, pipe.commands), dot)
        empty = True
        for key, element in self._pairs(value, len(pipe.names)):
            empty = False
            mark = len(self._variables)
            for name, item in zip(pipe.names, (key, element)[2 - len(pipe.names) :]):
                self._set(name, item, pipe.assigns)
            try:
                self.nodes(node.body, element)
            except _Break:
                break
            except _Continue:
                pass
            finally:
                del self._variables[mark:]
        if empty:
            self.nodes(node.otherwise, dot)

    def _pairs(self, value: Any, names: int) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, dict) and go_type(value).startswith("map"):
            return ordered(value)
        if isinstance(value, (list, tuple)):
            return iter(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            if names > 1:
                self._fail(f"can't use {value} to iterate over more than one variable")
            return ((number, number) for number in range(value))
        if value is None or value is MISSING:
            return iter(())
        self._fail(f"range can't iterate over {text_of(value)}")

    def _call(self, node: Call, dot: Any) -> None:
        if node.name not in self._trees:
            self._fail(f'template "{node.name}" not defined')
        if self._calls >= MAX_CALLS:
            self._fail(f"exceeded maximum template depth ({MAX_CALLS})")
        value = MISSING if node.pipe is None else self._pipe(node.pipe, dot)
        outer, name = self._variables, self._name
        self._variables, self._name = [("$", value)], node.name
        self._calls += 1
        self.nodes(self._trees[node.name], value)
        self._calls -= 1
        self._variables, self._name = outer, name

    # --------------------------------------------------------------------------- pipelines

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        self._at = pipe
        value: Any = None
        for number, command in enumerate(pipe.commands):
            value = self._command(command, dot, [value] if number else [])
        for name in pipe.names:
            self._set(name, value, pipe.assigns)
        return value

    def _set(self, name: str, value: Any, assigns: bool) -> None:
        if not assigns:
            self._variables.append((name, value))
            return
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return
        self._fail(f"undefined variable: {name}")

    def _variable(self, name: str) -> Any:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        self._fail(f"undefined variable: {name}")

    def _command(self, command: Command, dot: Any, piped: list[Any]) -> Any:
        first, rest = command.operands[0], command.operands[1:]
        if isinstance(first, Word):
            self._at = first
            return self._function(command, first.name, rest, dot, piped)
        if isinstance(first, (Field, Variable, Chain)):
            return self._path(first, rest, dot, piped)
        if not isinstance(first, Pipe):
            self._at = first
        if rest or piped:
            self._fail(f"can't give argument to non-function {first}")
        if isinstance(first, Literal) and first.kind == "nil":
            self._fail("nil is not a command")
        return self._value(first, dot)

    def _path(
        self, node: Field | Variable | Chain, rest: list[Node], dot: Any, piped: list[Any]
    ) -> Any:
        """.a.b, $x.a or (…).a; where the last one is a method (.Label), it gets the operands."""
        self._at = node
        names = node.names
        if isinstance(node, Variable):
            value, names = self._variable(names[0]), names[1:]
        elif isinstance(node, Chain):
            if isinstance(node.node, Literal):
                self._fail(f"indirection through explicit nil in {node}")
            value = self._value(node.node, dot)
            self._at = node
        else:
            value = dot
        for name in names:
            try:
                value = field(value, name)
            except LookupError as error:
                self._fail(str(error.args[0]))
        if callable(value):
            arguments = [self._value(operand, dot) for operand in rest] + piped
            if len(arguments) != 1:
                self._fail(f"wrong number of args for {names[-1]}: want 1 got {len(arguments)}")
            return value(*arguments)
        if rest or piped:
            if not names:
                self._fail(f"can't give argument to non-function {node}")
            self._fail(f"{names[-1]} is not a method but has arguments")
        return value

    def _value(self, node: Node, dot: Any) -> Any:
        if isinstance(node, Literal):
            return dot if node.kind == "dot" else node.value
        if isinstance(node, (Field, Variable, Chain)):
            return self._path(node, [], dot, [])
        if isinstance(node, Word):
            self._at = node
            return self._function(node, node.name, [], dot, [])
        if isinstance(node, Pipe):
            return self._pipe(node, dot)
        self._fail(f"can't handle {node}")

    def _function(
        self, whole: Node, name: str, operands: list[Node], dot: Any, piped: list[Any]
    ) -> Any:
        function = self._functions[name]
        count = len(operands) + len(piped)
        kinds, more = function.takes, function.more
        if more:
            if count < len(kinds):
                least = len(kinds)
                self._fail(
                    f"wrong number of args for {name}: want at least {least} got {len(operands)}"
                )
        elif count != len(kinds):
            self._fail(f"wrong number of args for {name}: want {len(kinds)} got {count}")
        if name in ("and", "or"):
            return self._short_circuit(name, operands, dot, piped)
        wanted = (*kinds, *[more] * (count - len(kinds)))
        arguments = [self._argument(node, kind, dot) for node, kind in zip(operands, wanted)]
        if piped:
            arguments.append(self._typed(piped[0], wanted[-1]))
        try:
            return function.call(*arguments)
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            self._at = whole
            self._fail(f"error calling {name}: {error}")

    def _short_circuit(self, name: str, operands: list[Node], dot: Any, piped: list[Any]) -> Any:
        value: Any = None
        for node in operands:
            value = self._argument(node, "any", dot)
            if truth(value) == (name == "or"):
                return value
        return piped[0] if piped else value

    def _argument(self, node: Node, kind: str, dot: Any) -> Any:
        self._at = node
        if isinstance(node, Literal) and node.kind != "dot":
            return self._literal(node, kind)
        return self._typed(self._value(node, dot), kind)

    def _literal(self, node: Literal, kind: str) -> Any:
        value = node.value
        if node.kind == "nil":
            if kind in ("string", "int"):
                self._fail(f"cannot assign nil to {kind}")
        elif kind == "string" and not isinstance(value, str):
            self._fail(f"expected string; found {node}")
        elif kind == "int" and go_type(value) != "int":
            self._fail(f"expected integer; found {node}")
        return value

    def _typed(self, value: Any, kind: str) -> Any:
        if kind in ("string", "int"):
            if value is MISSING or value is None:
                self._fail(f"invalid value; expected {kind}")
            if go_type(value) != kind:
                self._fail(f"wrong type for value; expected {kind}; got {go_type(value)}")
        return value
