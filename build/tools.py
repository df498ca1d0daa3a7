"""Makes build/.venv: this recipe's own tools, locked by hash, on any python3 from 3.9 that can make a bare environment.

    python3 build/tools.py [tools] [checks]

A Debian python3 may have neither pip nor ensurepip: the environment is made without, and pip's own wheel, of the locked
version and hash, is taken from the index that pip's settings name, else from the public one.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import html.parser
import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
LOCKS = {"tools": ("tools.txt", "requirements.txt"), "checks": ("checks.txt",)}
# Put together here because no file of the project names a registry's host: who has a mirror says so in pip's settings.
PUBLIC_INDEX = "https://" + ".".join(("pypi", "org")) + "/simple"


class Unavailable(Exception):
    """One sentence that says which tool could not be had."""


def settings() -> dict[str, str]:
    """pip's settings that matter here, by pip's own precedence: files from the system's to the user's, then PIP_*."""
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    system = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    files = [Path(folder, "pip/pip.conf") for folder in system]
    files += [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", user / "pip/pip.conf"]
    files += [Path(os.environ["PIP_CONFIG_FILE"])] if os.environ.get("PIP_CONFIG_FILE") else []
    parser = configparser.RawConfigParser()
    parser.read(files)
    found: dict[str, str] = {}
    for section in ("global", "install"):
        found.update(parser.items(section) if parser.has_section(section) else ())
    for key in ("index-url", "extra-index-url", "find-links", "cert"):
        value = os.environ.get("PIP_" + key.replace("-", "_").upper())
        if value:  # else none, as pip takes it
            found[key] = value
    return found


class Links(html.parser.HTMLParser):
    """The addresses of a page of the simple index."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def fetched(address: str, cert: str | None) -> bytes:
    context = ssl.create_default_context(cafile=cert if cert and os.path.exists(cert) else None)
    try:
        with urllib.request.urlopen(address, timeout=60, context=context) as answer:
            return bytes(answer.read())
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLCertVerificationError):
            raise
    # A bare Debian has no certificates either. What is taken is named by its hash, so nothing rests on this connection.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(address, timeout=60, context=context) as answer:
        return bytes(answer.read())


def candidates(file: str, found: dict[str, str]) -> Iterator[str]:
    for folder in found.get("find-links", "").split():
        yield (
            (Path(folder) / file).as_uri()
            if folder.startswith("/")
            else urllib.parse.urljoin(folder + "/", file)
        )
    for index in [found.get("index-url", PUBLIC_INDEX), *found.get("extra-index-url", "").split()]:
        page = index.rstrip("/") + "/pip/"
        try:
            links = Links()
            links.feed(fetched(page, found.get("cert")).decode("utf-8", "replace"))
        except OSError:
            continue
        for link in links.found:
            if urllib.parse.urlparse(link).path.rpartition("/")[2] == file:
                yield urllib.parse.urldefrag(urllib.parse.urljoin(page, link))[0]


def pip_wheel() -> Path:
    """pip's wheel as the lock names it."""
    match = re.search(
        r"^pip==(\S+) \\\n +--hash=sha256:(\w+)", (HERE / "tools.txt").read_text(), re.MULTILINE
    )
    assert match
    file = f"pip-{match[1]}-py3-none-any.whl"
    for address in candidates(file, settings()):
        try:
            data = fetched(address, settings().get("cert"))
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == match[2]:
            (VENV / file).write_bytes(data)
            return VENV / file
    raise Unavailable(
        f"{file} with the locked hash is in no index that pip's settings name, nor in the public one"
    )


def stamp(group: str) -> str:
    parts = [sys.version, *(HERE.joinpath(name).read_text() for name in LOCKS[group])]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def ready(group: str) -> bool:
    file = VENV / f"{group}.stamp"
    return file.exists() and file.read_text() == stamp(group)


def make(groups: list[str]) -> None:
    python = str(VENV / "bin/python3")
    if not ready("tools"):
        shutil.rmtree(VENV, ignore_errors=True)
        venv.create(VENV, with_pip=False, symlinks=True)
        wheel = pip_wheel()
        subprocess.run(
            [python, "-I", f"{wheel}/pip", "-q", "install", "--no-index", str(wheel)], check=True
        )
        wheel.unlink()
    for group in ["tools", *groups]:
        if not ready(group):
            locks = [word for name in LOCKS[group] for word in ("-r", str(HERE / name))]
            options = [
                "-q",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
            ]
            subprocess.run([python, "-I", "-m", "pip", "install", *options, *locks], check=True)
            (VENV / f"{group}.stamp").write_text(stamp(group))


def main() -> None:
    if sys.version_info < (3, 9):
        sys.exit(
            f"dockpy's tools need CPython 3.9 or newer, {sys.executable} is {sys.version.split()[0]}"
        )
    with open(HERE / "tools.in") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests and people may start at once
        try:
            make(sys.argv[1:])
        except Unavailable as error:
            sys.exit(f"build/tools.py: {error}")
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"build/tools.py: pip could not install the locked tools (exit code {error.returncode})"
            )


if __name__ == "__main__":
    main()
