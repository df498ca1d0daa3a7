"""Builds the file: build/dist/dockpy. Run by ./scripts/dockpy with the locked tools' python (build/.venv).

    build/.venv/bin/python build/build.py [--output FILE] [--force]

Same sources and lock, same bytes (with the same zlib): what is packed is staged with fixed modes, shiv makes the archive,
and it is written again sorted, with fixed times, without shiv's bootstrap, behind our preamble. environment.json stays
in shiv's form. The build id is the commit's time and a hash over all of that, so a changed preamble is another build too.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from shiv import __version__ as shiv_version
from shiv.bootstrap.environment import Environment
from shiv.builder import create_archive

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
PACKAGE = TOP / "dockpy"
INPUTS = ("preamble.sh", "start.py", "doubt.py", "requirements.txt", "build.py", "tools.txt")
MOMENT = "1980-01-01 00:00:00"
PURE = ["--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", "3.9"]
UNWANTED = ("bin", "__pycache__")


def sources() -> list[Path]:
    return sorted(
        path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def inputs_hash() -> str:
    digest = hashlib.sha256()
    for path in [*sources(), *(HERE / name for name in INPUTS), TOP / "LICENSE"]:
        digest.update(
            f"{path.relative_to(TOP)} {path.stat().st_size}\n".encode() + path.read_bytes()
        )
    return digest.hexdigest()


def requirements(cache: Path) -> Path:
    """The locked wheels unpacked, without bin/ and RECORD (both differ by installer); kept for the next build."""
    lock = HERE / "requirements.txt"
    folder = cache / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if folder.exists():
        return folder
    temporary = Path(tempfile.mkdtemp(dir=cache))
    command = [
        sys.executable,
        "-I",
        "-m",
        "pip",
        "-q",
        "--disable-pip-version-check",
        "install",
        "--no-deps",
    ]
    command += [
        "--only-binary=:all:",
        "--require-hashes",
        "--no-compile",
        "--target",
        str(temporary),
        *PURE,
    ]
    subprocess.run([*command, "-r", str(lock)], check=True)
    for path in sorted(temporary.rglob("*"), reverse=True):
        if path.name in UNWANTED and path.is_dir():
            shutil.rmtree(path)
        elif path.parent.name.endswith(".dist-info") and path.name in (
            "RECORD",
            "INSTALLER",
            "REQUESTED",
            "direct_url.json",
        ):
            path.unlink()
        elif path.suffix in (".so", ".pyd"):
            sys.exit(f"build.py: {path.name} is compiled code; only pure Python goes into the file")
        elif "tests" in path.parts or "_tests" in path.parts:
            path.unlink() if path.is_file() else path.rmdir()
    temporary.rename(folder)
    return folder


def staged(folder: Path, cache: Path) -> None:
    """One tree with everything, modes fixed: a umask may not show in the archive."""
    shutil.copytree(requirements(cache), folder)
    for path in sources():
        target = folder / path.relative_to(TOP)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    shutil.copyfile(TOP / "LICENSE", folder / "dockpy-LICENSE")


def entries(archive: Path) -> dict[str, bytes]:
    """What shiv packed, less its own start: ours stands in clear before the archive and is its __main__ too."""
    with zipfile.ZipFile(archive) as packed:
        found = {name: packed.read(name) for name in packed.namelist()}
    return {name: found[name] for name in sorted(found) if not name.startswith("_bootstrap/")}


def moment() -> int:
    """Seconds since 1970 that order builds: of the commit, or of the newest change to a tree that differs from it.

    SOURCE_DATE_EPOCH has the word, as everywhere; without it and without git, the newest source.
    """
    named = os.environ.get("SOURCE_DATE_EPOCH", "")
    if named.isdigit():
        return int(named)
    inputs = [*sources(), *(HERE / name for name in INPUTS), TOP / "LICENSE"]
    newest = max(int(path.stat().st_mtime) for path in inputs)
    names = [str(path.relative_to(TOP)) for path in inputs]
    committed = git("log", "-1", "--format=%ct")
    if not committed.isdigit() or git("status", "--porcelain", "--", "dockpy", *names):
        return max(newest, int(committed or 0))
    return int(committed)


def git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(TOP), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def build_id(found: dict[str, bytes], when: int) -> str:
    """`<moment>-<hash>`: the moment says which of two builds is newer (client/birth.py), the hash tells them apart."""
    digest = hashlib.sha256()
    for name in ("preamble.sh", "start.py", "doubt.py"):
        part = (HERE / name).read_bytes()
        digest.update(b"%d\n" % len(part) + part)
    for name, data in found.items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(when))}-{digest.hexdigest()[:16]}"


def head(preamble: bytes, start: bytes, doubt: bytes) -> tuple[bytes, bytes]:
    """The shell preamble and the two Python codes in clear, each knowing the place of the next; and the
    first of the codes alone.

    A field has as many characters as its place-holder, so filling it in moves nothing.
    """
    fields = {
        b"@SSIZ@": len(start),
        b"@SOFF@": len(preamble),
        b"111111": len(doubt),
        b"222222": len(preamble) + len(start),
    }
    whole = preamble + start + doubt
    for field, value in fields.items():
        assert whole.count(field) == 1
        whole = whole.replace(field, b"%6d" % value)
    return whole, whole[len(preamble) : len(preamble) + len(start)]


def write(target: Path, found: dict[str, bytes], environment: Environment, when: int) -> None:
    identity = build_id(found, when)
    environment.build_id = identity
    preamble, start, doubt = (
        (HERE / name).read_bytes().replace(b"@BUILD@", identity.encode())
        for name in ("preamble.sh", "start.py", "doubt.py")
    )
    clear, start = head(preamble, start, doubt)
    ours = {"environment.json": environment.to_json().encode(), "__main__.py": doubt}
    found = {**found, **ours, "start.py": start}
    with open(target, "wb") as file:
        file.write(clear)
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(found):
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, found[name], compresslevel=9)
    target.chmod(0o755)


def build(output: Path, when: int) -> None:
    cache = HERE / "dist/wheels"
    cache.mkdir(parents=True, exist_ok=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        built_at=MOMENT,
        shiv_version=shiv_version,
        reproducible=True,
        entry_point="dockpy.__main__:main",
    )
    with tempfile.TemporaryDirectory(dir=output.parent) as name:
        tree, raw, whole = Path(name, "tree"), Path(name, "raw"), Path(name, "dockpy")
        staged(tree, cache)
        create_archive([tree], raw, "/bin/sh", "_bootstrap:bootstrap", environment)
        found = entries(raw)
        del found["environment.json"], found["__main__.py"]
        write(whole, found, environment, when)
        whole.replace(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "dist/dockpy")
    parser.add_argument("--force", action="store_true", help="build though nothing has changed")
    options = parser.parse_args()
    (HERE / "dist").mkdir(exist_ok=True)
    with open(HERE / "build.py") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        when, output = moment(), options.output.resolve()
        inputs = f"{when} {inputs_hash()}"
        stamp = output.with_name(output.name + ".inputs")
        if (
            options.force
            or not output.exists()
            or not stamp.exists()
            or stamp.read_text() != inputs
        ):
            build(output, when)
            stamp.write_text(inputs)
        else:
            os.utime(output)


if __name__ == "__main__":
    main()
