"""Start-up time is a feature: what a room must not load, asked of a fresh interpreter."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.house.sources import TOP

THIRD_PARTY = "trio h11 attr sortedcontainers elftools pyroute2 idna outcome sniffio exceptiongroup tomli typing_extensions"
# Milliseconds over a bare interpreter, measured: json 7, re 5, enum 4, dataclasses 14, typing 9, socket 6.
SLOW = "json re enum dataclasses typing socket signal argparse subprocess array logging tempfile shutil inspect ssl"


def loaded(module: str) -> set[str]:
    code = (
        f"import sys; sys.path.append({str(TOP)!r}); import {module}; print(*sorted(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-ISc", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in result.stdout.split()}


def there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


ROOMS = ["client", "keeper", "shim", "runtime"]
MODULES = [f"dockpy.{room}.main" for room in ROOMS] + ["dockpy.__main__"]


@pytest.mark.parametrize("module", [module for module in MODULES if there(module)])
def test_blocking_rooms_load_nothing_of_third_parties(module: str) -> None:
    assert not loaded(module) & set(THIRD_PARTY.split())


@pytest.mark.parametrize(
    "module", [m for m in ("dockpy.client.main", "dockpy.__main__", "dockpy.paths") if there(m)]
)
def test_the_client_loads_nothing_slow(module: str) -> None:
    assert not loaded(module) & set(SLOW.split())
