"""What a parsed template is made of, and how Go writes it again in its messages. Values only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Node:
    """`at`: where it began in the text, for messages."""

    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at


class Text(Node):
    __slots__ = ("text",)

    def __init__(self, at: int, text: str) -> None:
        self.at, self.text = at, text

    def __str__(self) -> str:
        return self.text


class Literal(Node):
    """A constant: `kind` is bool, number, string, nil or dot."""

    __slots__ = ("kind", "text", "value")

    def __init__(self, at: int, kind: str, text: str, value: Any = None) -> None:
        self.at, self.kind, self.text, self.value = at, kind, text, value

    def __str__(self) -> str:
        return self.text


class Word(Node):
    """A function's name."""

    __slots__ = ("name",)

    def __init__(self, at: int, name: str) -> None:
        self.at, self.name = at, name

    def __str__(self) -> str:
        return self.name


class Field(Node):
    """.a.b"""

    __slots__ = ("names",)

    def __init__(self, at: int, names: Sequence[str]) -> None:
        self.at, self.names = at, list(names)

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


class Variable(Node):
    """$x.a.b: the first name holds the $."""

    __slots__ = ("names",)

    def __init__(self, at: int, names: Sequence[str]) -> None:
        self.at, self.names = at, list(names)

    def __str__(self) -> str:
        return ".".join(self.names)


class Chain(Node):
    """(…).a.b"""

    __slots__ = ("names", "node")

    def __init__(self, at: int, node: Node, names: Sequence[str]) -> None:
        self.at, self.node, self.names = at, node, list(names)

    def __str__(self) -> str:
        base = f"({self.node})" if isinstance(self.node, Pipe) else str(self.node)
        return base + "".join(f".{name}" for name in self.names)


class Command(Node):
    __slots__ = ("operands",)

    def __init__(self, at: int, operands: list[Node]) -> None:
        self.at, self.operands = at, operands

    def __str__(self) -> str:
        return " ".join(
            f"({node})" if isinstance(node, Pipe) else str(node) for node in self.operands
        )


class Pipe(Node):
    """`names` are declared, or assigned to; an empty list: neither."""

    __slots__ = ("assigns", "commands", "names")

    def __init__(self, at: int, names: list[str], assigns: bool, commands: list[Command]) -> None:
        self.at, self.names, self.assigns, self.commands = at, names, assigns, commands

    def __str__(self) -> str:
        head = f"{', '.join(self.names)} {'=' if self.assigns else ':='} " if self.names else ""
        return head + " | ".join(str(command) for command in self.commands)


class Action(Node):
    __slots__ = ("pipe",)

    def __init__(self, at: int, pipe: Pipe) -> None:
        self.at, self.pipe = at, pipe

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


class Control(Node):
    """if, with or range."""

    __slots__ = ("body", "kind", "otherwise", "pipe")

    def __init__(
        self, at: int, kind: str, pipe: Pipe, body: list[Node], otherwise: list[Node]
    ) -> None:
        self.at, self.kind, self.pipe = at, kind, pipe
        self.body, self.otherwise = body, otherwise

    def __str__(self) -> str:
        text = f"{{{{{self.kind} {self.pipe}}}}}" + "".join(str(node) for node in self.body)
        if self.otherwise:
            text += "{{else}}" + "".join(str(node) for node in self.otherwise)
        return text + "{{end}}"


class Call(Node):
    """{{template "name" pipe}}"""

    __slots__ = ("name", "pipe")

    def __init__(self, at: int, name: str, pipe: Pipe | None) -> None:
        self.at, self.name, self.pipe = at, name, pipe

    def __str__(self) -> str:
        from dockpy.client.template_lexer import quoted

        return f"{{{{template {quoted(self.name)}{f' {self.pipe}' if self.pipe else ''}}}}}"


class Mark(Node):
    """end, else, break or continue."""

    __slots__ = ("kind",)

    def __init__(self, at: int, kind: str) -> None:
        self.at, self.kind = at, kind

    def __str__(self) -> str:
        return f"{{{{{self.kind}}}}}"
