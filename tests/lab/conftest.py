"""One machine for all tests that only look; those that cut its power make their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import (  # the same file and the same image as everywhere
    built_file as built_file,
)
from tests.e2e.conftest import (
    busybox_archive as busybox_archive,
)
from tests.e2e.conftest import (
    place as place,
)
from tests.lab.image import Image, image
from tests.lab.machine import Machine, lacks


@pytest.fixture(scope="session")
def lab_image() -> Image:
    if not os.environ.get("DOCKPY_TEST_LONG"):
        pytest.skip("the lab runs in ./scripts/test --long only")
    lacking = lacks()
    if lacking is not None:
        pytest.skip(f"the lab needs {lacking}")
    if os.getuid() != 0:
        pytest.skip("the lab needs root, to make its disk")
    return image()


@pytest.fixture(scope="session")
def new_machine(
    lab_image: Image, built_file: Path, busybox_archive: Path
) -> Iterator[Callable[..., Machine]]:
    """Makes machines that run, with the built file at /usr/local/bin/dockpy and the image at /lab."""
    made: list[tuple[Machine, Path]] = []

    def make(*, journal: bool = False) -> Machine:
        folder = Path(tempfile.mkdtemp(prefix="dockpy-lab-"))
        machine = Machine(lab_image, folder)
        made.append((machine, folder))
        machine.boot(journal=journal)
        machine.put("/usr/local/bin/dockpy", built_file.read_bytes())
        machine.put("/lab/busybox.tar", busybox_archive.read_bytes(), 0o644)
        return machine

    yield make
    for machine, folder in made:
        machine.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def machine(new_machine: Callable[..., Machine]) -> Machine:
    """Shared: with linger for both users."""
    shared = new_machine()
    for user in ("single", "ranged"):
        assert shared.run("loginctl", "enable-linger", user).code == 0
    return shared
