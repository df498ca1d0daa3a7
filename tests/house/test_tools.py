"""Linters are tests: nothing is checked only in CI, nothing only by hand."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.house.sources import TOP


def check(*command: str) -> None:
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_check() -> None:
    check(sys.executable, "-m", "ruff", "check", "--no-cache", "--quiet", ".")


def test_ruff_format() -> None:
    check(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "--quiet", "--diff", ".")


def test_mypy_strict() -> None:
    check(sys.executable, "-m", "mypy")


def test_shell_scripts_parse() -> None:
    for script in ("build/preamble.sh", "scripts/dockpy", "scripts/test"):
        check("sh", "-n", script)


def test_shellcheck() -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    check(
        program,
        "-s",
        "sh",
        "-e",
        "SC3045,SC3067",
        "build/preamble.sh",
        "scripts/dockpy",
        "scripts/test",
    )
