"""Habits that a machine can judge without harm (the style guide): each rule with its reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.sources import TOP, Source, read

SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "stuff", "manager"}
# Put together so that this file does not find itself.
MOCKS = re.compile(
    "|".join(
        ["unittest" + r"\.mock", "Magic" + "Mock", "monkeypatch" + r"\.setattr", "mocker" + r"\."]
    )
)

PRODUCT = list(read("dockpy"))
EVERYTHING = [*PRODUCT, *read("tests"), *read("build"), *read("scripts")]


def every(source: Source, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(source.tree) if isinstance(node, kinds))


def test_names_of_files_say_something() -> None:
    wrong = [
        str(s.path.relative_to(TOP))
        for s in EVERYTHING
        if s.path.stem in SAY_NOTHING or s.path.parent.name in SAY_NOTHING
    ]
    assert not wrong, wrong


def test_nothing_is_mocked() -> None:
    """The kernel, files and HTTP are real in every test: a double proves that the code calls what it calls."""
    wrong = [
        str(s.path.relative_to(TOP))
        for s in EVERYTHING
        if MOCKS.search(s.path.read_text(encoding="utf-8"))
    ]
    assert not wrong, wrong


def test_every_shield_has_a_deadline() -> None:
    """A cleanup that waits for a disk or a process that hangs would hold up the daemon's end for ever."""
    wrong = [
        s.place(node.lineno)
        for s in PRODUCT
        for node in every(s, ast.Call)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("CancelScope")
        and any(word.arg == "shield" for word in node.keywords)
        and not any(word.arg == "deadline" for word in node.keywords)
    ]
    assert not wrong, f"move_on_after(…, shield=True) instead: {wrong}"


def test_no_global_state() -> None:
    wrong = [
        s.place(node.lineno)
        for s in PRODUCT
        for node in every(s, ast.Global)
        if isinstance(node, ast.Global)
    ]
    assert not wrong, f"`global` is used: {wrong}"


# Questions to which "there is none" is the answer that was asked for, with one call in their try.
PREDICATES = {
    ("dockpy.client.create_network", "is_address"),
    ("dockpy.client.listing", "uses"),
    ("dockpy.client.terminal", "is_terminal"),
    ("dockpy.files", "__enter__"),  # try_locked: the answer is whether
    ("dockpy.ids", "alive"),
    ("dockpy.keeper.main", "_take_requests"),  # "goes on": the daemon's end is closed
    ("dockpy.runtime.bpf", "_ours"),
    ("dockpy.shim.log", "_enter"),
    ("dockpy.shim.logwriter", "_put"),
    ("dockpy.storage.lender", "lends_to"),
    ("dockpy.supervisor.logoptions", "compressed"),
    ("dockpy.shim.stdin", "_canonical"),
}


def test_no_error_becomes_false() -> None:
    """`return False` in an except turns every bug under it into an answer."""
    wrong = []
    for source in PRODUCT:
        for function in every(source, ast.FunctionDef, ast.AsyncFunctionDef):
            if (source.module, getattr(function, "name", "")) in PREDICATES:
                continue
            for handler in (
                node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)
            ):
                for node in ast.walk(handler):
                    if (
                        isinstance(node, ast.Return)
                        and isinstance(node.value, ast.Constant)
                        and node.value.value is False
                    ):
                        wrong.append(source.place(node.lineno))
    assert not wrong, wrong


def test_no_bare_except() -> None:
    wrong = [
        source.place(node.lineno)
        for source in EVERYTHING
        for node in every(source, ast.ExceptHandler)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not wrong, wrong


def test_no_star_imports() -> None:
    wrong = [
        source.place(node.lineno)
        for source in EVERYTHING
        for node in every(source, ast.ImportFrom)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert not wrong, wrong


def test_modules_say_what_they_are_for() -> None:
    wrong = [
        str(s.path.relative_to(TOP))
        for s in PRODUCT
        if s.tree.body and ast.get_docstring(s.tree) is None
    ]
    assert not wrong, f"no docstring: {wrong}"


@pytest.mark.parametrize("source", PRODUCT, ids=lambda s: s.module)
def test_written_for_python_3_9(source: Source) -> None:
    """Annotations are not evaluated (X | Y is 3.10's), and no statement is newer than 3.9."""
    if source.tree.body and not (len(source.tree.body) == 1 and ast.get_docstring(source.tree)):
        names = {
            alias.name
            for node in source.tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        uses_types = any(
            isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.AnnAssign))
            for n in ast.walk(source.tree)
        )
        assert "annotations" in names or not uses_types, source.module
    ast.parse(source.path.read_text(encoding="utf-8"), feature_version=(3, 9))
