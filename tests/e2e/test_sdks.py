"""docker-py and aiodocker in ordinary use on the engine's socket, as the engine's user: see sdks/.

The programs run in processes of their own with the packages that tests/data/clients names, got by pip once a
checkout (build/dist/sdks): what runs the tests has none of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockpy.files import locked
from tests.e2e.conftest import ROOT, missing
from tests.e2e.engines import Engine
from tests.e2e.registries import docker_registry, program

REQUIREMENTS = ROOT / "tests" / "data" / "clients" / "requirements.txt"
PROGRAMS = Path(__file__).parent / "sdks"


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that every user may run."""
    for path in (Path(os.path.realpath(sys.executable)), Path("/usr/bin/python3")):
        if path.exists() and all(parent.stat().st_mode & 0o001 for parent in path.parents):
            return str(path)
    missing("a Python outside the folders that only root may enter")
    raise AssertionError


@pytest.fixture(scope="session")
def packages(place: Path, python: str) -> Path:
    """A folder of the SDKs, and of the programs that use them, which every user can read."""
    kept = ROOT / "build" / "dist" / "sdks"
    stamp = kept / "stamp"
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.check_output([python, "-I", "-c", tell], text=True).strip()
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()
    kept.parent.mkdir(exist_ok=True)
    with locked(str(kept) + ".lock"):  # other workers want them too
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(kept, ignore_errors=True)
            got = subprocess.run(
                [sys.executable, "-I", "-m", "pip", "install", "-q", "--no-deps", "--no-compile",
                 "--only-binary=:all:", "--disable-pip-version-check", "--target", str(kept),
                 "--python-version", version, "-r", str(REQUIREMENTS)],
                capture_output=True, text=True, timeout=180,
            )  # fmt: skip
            if got.returncode:
                missing(f"docker-py and aiodocker, or an index that has them: {got.stderr[-400:]}")
            stamp.write_text(wanted)
    folder = place / "sdks"
    shutil.copytree(kept, folder)
    for source in PROGRAMS.glob("use_*.py"):
        shutil.copy(source, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="module")
def registry(place: Path) -> Iterator[str]:
    if program() is None:
        missing("a registry (Debian: docker-registry)")
    folder = place / "docker-registry-sdks"
    folder.mkdir(exist_ok=True)  # once for each engine
    with docker_registry(folder) as host:
        yield host


@pytest.mark.parametrize("sdk", ["docker_py", "aiodocker"])
def test_ordinary_use(
    engine: Engine, python: str, packages: Path, registry: str, folder: Path, sdk: str
) -> None:
    if engine.label not in ("plain", "docker"):
        pytest.skip("one of ours is enough: users differ in nothing that an SDK can see")
    socket = engine.extra.get("socket")
    assert engine.cli("version").code == 0  # starts the daemon
    settings = {"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]}
    if socket is not None:
        settings["DOCKER_HOST"] = f"unix://{socket}"
    done = subprocess.run(
        [python, "-B", "-s", str(packages / f"use_{sdk}.py"), engine.image, str(folder), registry],
        capture_output=True, text=True, timeout=90, **engine.popen_as(settings),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
