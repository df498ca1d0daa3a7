"""What the house tests look at: every source file of the project, parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """One imported module by its full name; `typing` when only type checkers see it, `lazy` inside a function."""

    name: str
    line: int
    typing: bool
    lazy: bool


@dataclass(frozen=True)
class Source:
    path: Path
    module: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder under dockpy/, or the single file's own name."""
        return self.module.split(".")[1] if "." in self.module else "__init__"

    def place(self, line: int) -> str:
        return f"{self.path.relative_to(TOP)}:{line}"


def read(folder: str) -> Iterator[Source]:
    for path in sorted((TOP / folder).rglob("*.py")):
        parts = path.relative_to(TOP).with_suffix("").parts
        if {"dist", ".venv"} & set(parts):
            continue
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Source(path, module, ast.parse(path.read_text(encoding="utf-8")))


def modules() -> dict[str, Source]:
    return {source.module: source for source in read("dockpy")}


def imports(source: Source, known: frozenset[str]) -> list[Import]:
    """Everything that `source` imports; `from dockpy import ids` is an import of dockpy.ids where that is a module."""
    found: list[Import] = []

    def visit(node: ast.AST, typing: bool, lazy: bool) -> None:
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for inner in node.body:
                visit(inner, True, lazy)
            for inner in node.orelse:
                visit(inner, typing, lazy)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, typing, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"{source.place(node.lineno)}: imports are absolute here"
            for alias in node.names:
                inner_name = f"{base}.{alias.name}"
                found.append(
                    Import(inner_name if inner_name in known else base, node.lineno, typing, lazy)
                )
        lazy = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, typing, lazy)

    visit(source.tree, False, False)
    return found


def is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
