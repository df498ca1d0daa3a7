"""Writes the locks: each .in file's newest allowed releases with their hashes. Run by hand, with the tools' python.

    build/.venv/bin/python build/lock.py

Asks the index that pip's settings name, through pip. What goes into the file must exist as a pure wheel for every
Python from 3.9; of a checking tool with compiled parts the wheels of the platforms we work on are taken.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PURE = ["--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", "3.9"]
NATIVE = [
    ["--platform", f"{kind}_{machine}", "--python-version", version]
    for machine in ("x86_64", "aarch64")
    for kind in ("manylinux_2_17", "manylinux2014", "manylinux_2_28", "musllinux_1_2")
    for version in ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
]
COMPILED = ("mypy", "ruff")
HEAD = "# Made by build/lock.py from {name}; every file that pip may take is named by its hash.\n"


def wanted(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def wheels(requirement: str, options: list[str], folder: Path, *, must: bool) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "-q",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(folder),
    ]
    subprocess.run(
        [*command, *options, requirement], check=must, stderr=None if must else subprocess.DEVNULL
    )


def locked(requirement: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if requirement.startswith(COMPILED):
            wheels(requirement, [], folder, must=True)
            release = next(folder.iterdir()).name.split("-")[1]
            exact = f"{requirement.partition('<')[0]}=={release}"
            for options in NATIVE:
                wheels(exact, options, folder, must=False)
        else:
            wheels(requirement, PURE, folder, must=True)
        files = sorted(folder.iterdir())
        project, release = files[0].name.split("-")[:2]
        hashes = sorted({hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    return (
        " \\\n    ".join([f"{project}=={release}", *(f"--hash=sha256:{value}" for value in hashes)])
        + "\n"
    )


def main() -> None:
    for source in sorted(HERE.glob("*.in")):
        text = HEAD.format(name=source.name) + "".join(
            locked(requirement) for requirement in wanted(source)
        )
        source.with_suffix(".txt").write_text(text)
        print(source.with_suffix(".txt").name)


if __name__ == "__main__":
    main()
