"""The one file: which Pythons it runs on, from where, as whom, and what of it may be believed once unpacked."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import PLAIN, PROGRAMS, missing, user_named
from tests.e2e.engines import Engine, Result

TOP = Path(__file__).resolve().parents[2]
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
EVIL = "import os\nos.write(1, b'evil')\nos._exit(66)\n"


@pytest.fixture(scope="session")
def programs(place: Path) -> Path:
    """A folder with coreutils and no python at all."""
    folder = place / "no-python"
    folder.mkdir()
    for name in PROGRAMS:
        found = shutil.which(name, path="/usr/bin:/bin")
        if found and not name.startswith("python"):
            (folder / name).symlink_to(found)
    return folder


def pythons_here() -> dict[str, Path]:
    """CPython prefixes by version: pyenv's where there is one, else those that PATH names."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found: dict[str, Path] = {}
    for version in VERSIONS:
        for prefix in sorted(root.glob(f"versions/{version}.*")):
            if (prefix / f"bin/python{version}").exists():
                found[version] = prefix
    return found


@pytest.fixture(scope="session")
def python(place: Path) -> Iterator[dict[str, Path]]:
    """Interpreters that every user can run: pyenv's live below a home that others cannot enter, so they are copied."""
    copies: dict[str, Path] = {}
    for version, prefix in pythons_here().items():
        target = place / f"python-{version}"
        skip = shutil.ignore_patterns(
            "test", "idlelib", "site-packages", "config-*", "*.a", "lib2to3", "ensurepip", "tkinter"
        )
        shutil.copytree(
            prefix / f"lib/python{version}",
            target / f"lib/python{version}",
            ignore=skip,
            symlinks=True,
        )
        for library in prefix.glob("lib/libpython*.so*"):
            shutil.copy(library, target / "lib" / library.name, follow_symlinks=False)
        (target / "bin").mkdir()
        program = target / f"bin/python{version}"
        shutil.copy(prefix / f"bin/python{version}", program)
        patchelf = shutil.which("patchelf")
        if patchelf is None:
            missing("patchelf")
        subprocess.run([str(patchelf), "--set-rpath", "$ORIGIN/../lib", str(program)], check=True)
        copies[version] = program
    yield copies


@dataclass
class Someone:
    """A user with an empty home and a PATH of his own, and the file."""

    entry: pwd.struct_passwd
    home: Path
    file: Path
    path: str

    @property
    def store(self) -> Path:
        return self.home / ".local/share/dockpy"

    @property
    def app(self) -> Path:
        return self.store / "app"

    def copies(self) -> list[Path]:
        return (
            sorted(path for path in self.app.iterdir() if path.is_dir())
            if self.app.exists()
            else []
        )

    def engine(self, **env: str) -> Engine:
        environ = {"HOME": str(self.home), "PATH": self.path, **env}
        return Engine(
            "plain", [str(self.file)], self.entry.pw_uid, self.entry.pw_gid, environ, True
        )

    def version(self, **env: str) -> Result:
        return self.engine(**env).cli("--version")


@pytest.fixture
def someone(place: Path, built_file: Path, programs: Path) -> Iterator[Someone]:
    entry = user_named(PLAIN, False) if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    home = Path(tempfile.mkdtemp(prefix="home-", dir=place))
    os.chown(home, entry.pw_uid, entry.pw_gid)
    system = Path(tempfile.mkdtemp(prefix="bin-", dir=place))
    system.chmod(0o755)
    (system / "python3").symlink_to("/usr/bin/python3")
    person = Someone(entry, home, built_file, f"{system}:{programs}")
    yield person
    if (person.store / "daemon.json").exists():
        person.engine().cli("daemon", "stop")
    shutil.rmtree(home, ignore_errors=True)


def check_works(result: Result) -> None:
    assert result.code == 0, result.err
    assert result.out.startswith("Docker version "), result


def main_of(copy: Path) -> Path:
    return copy / "dockpy/__main__.py"


def poison(copy: Path) -> None:
    main_of(copy).write_text(EVIL)
    for compiled in (copy / "dockpy/__pycache__").iterdir():
        compiled.unlink()


@pytest.mark.parametrize("version", VERSIONS)
def test_runs_on(version: str, someone: Someone, python: dict[str, Path], programs: Path) -> None:
    if version not in python:
        missing(f"CPython {version} (pyenv)")
    someone.path = f"{python[version].parent}:{programs}"
    check_works(someone.version())
    assert [copy.name.partition(".")[2] for copy in someone.copies()] == [
        f"cpython-{version.replace('.', '')}"
    ]
    assert (someone.app / "python").read_text() == f"{python[version]}\n"
    check_works(someone.version())
    check_works(someone.version(PATH="/nowhere"))  # the recorded interpreter needs no PATH


def test_only_its_head_is_read_once_unpacked(someone: Someone, place: Path) -> None:
    mine = place / "truncated"
    shutil.copy(someone.file, mine)
    someone.file = mine
    check_works(someone.version())
    os.truncate(mine, mine.read_bytes().index(b"PK\x03\x04"))
    check_works(someone.version())


def test_unpacked_once_and_never_written_again(someone: Someone) -> None:
    check_works(someone.version())
    (copy,) = someone.copies()
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    check_works(someone.version())
    someone.engine().cli("images")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


@pytest.mark.parametrize(
    "name", ["with space", "quote'd", 'double"d', "dollar$HOME", "üml", "new\nline", "-dash"]
)
def test_runs_from_a_folder_named(name: str, someone: Someone, place: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=place)) / name
    folder.mkdir()
    folder.parent.chmod(0o755)
    someone.file = Path(shutil.copy(someone.file, folder / "dockpy"))
    check_works(someone.version())
    check_works(someone.version())


def test_runs_from_a_readonly_folder(someone: Someone, place: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=place))
    someone.file = Path(shutil.copy(someone.file, folder / "dockpy"))
    folder.chmod(0o555)
    check_works(someone.version())


def test_runs_by_its_name_in_path_and_by_sh(someone: Someone, place: Path) -> None:
    someone.path = f"{place}:{someone.path}"
    for command in (
        ["dockpy"],
        ["/bin/sh", str(someone.file)],
        [sys.executable, str(someone.file)],
    ):
        if command[0] == sys.executable and not os.access(f"/proc/{os.getpid()}/exe", os.X_OK):
            continue
        engine = someone.engine()
        engine.command = (
            command if command[0] != sys.executable else ["/usr/bin/python3", str(someone.file)]
        )
        check_works(engine.cli("--version"))


def test_readonly_home_runs_the_archive_itself(someone: Someone) -> None:
    os.chown(someone.home, 0, 0)
    someone.home.chmod(0o555)
    if os.access(someone.home, os.W_OK) and os.getuid() == someone.entry.pw_uid:
        missing("a user who is not root")
    check_works(someone.version())
    assert list(someone.home.iterdir()) == []


def test_full_home_runs_the_archive_itself(someone: Someone) -> None:
    if os.getuid() != 0:
        missing("root, to mount a small file system")
    options = f"size=256k,mode=0700,uid={someone.entry.pw_uid}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(someone.home)], check=False
    )
    if mounted.returncode != 0:
        missing("the right to mount a tmpfs")
    try:
        check_works(someone.version())
        assert someone.copies() == []
    finally:
        subprocess.run(["umount", str(someone.home)], check=True)


def test_without_home_the_passwd_entry_is_asked(someone: Someone) -> None:
    home = Path(someone.entry.pw_dir)
    engine = someone.engine()
    del engine.environ["HOME"]
    check_works(engine.cli("--version"))
    assert (home / ".local/share/dockpy/app/python").exists()
    check_works(engine.cli("--version"))


@pytest.mark.parametrize("mask", ["077", "000", "022"])
def test_umask_does_not_show(mask: str, someone: Someone) -> None:
    engine = someone.engine()
    engine.command = ["/bin/sh", "-c", f'umask {mask}; exec "$0" "$@"', str(someone.file)]
    check_works(engine.cli("--version"))
    assert len(someone.copies()) == 1
    wrong = [
        path
        for path in (someone.app, *someone.app.rglob("*"))
        if stat.S_IMODE(path.lstat().st_mode) & 0o077
    ]
    assert not wrong


def loosened(copy: Path, case: str) -> None:
    if case == "others may write the copy":
        copy.chmod(0o707)
    elif case == "others may write a parent":
        copy.parents[1].chmod(0o777)
    elif case == "another group may write a parent":
        os.chown(copy.parents[1], -1, 0)
        copy.parents[1].chmod(0o770)
    elif case == "another user's copy":
        os.chown(copy, 65534, 65534)
    elif case == "another user's parent":
        os.chown(copy.parents[2], 65534, 65534)
        copy.parents[2].chmod(0o755)
    else:
        elsewhere = copy.parents[4] / "elsewhere"
        copy.parent.rename(elsewhere)
        elsewhere.chmod(0o777)
        copy.parent.symlink_to(elsewhere)


CASES = (
    "others may write the copy",
    "others may write a parent",
    "another group may write a parent",
    "another user's copy",
    "another user's parent",
    "a link to a folder of everybody",
)


@pytest.mark.parametrize("case", CASES)
def test_a_copy_is_not_believed_when(case: str, someone: Someone) -> None:
    if os.getuid() != 0:
        missing("root, to play another user")
    check_works(someone.version())
    (copy,) = someone.copies()
    poison(copy)
    assert someone.version().out == "evil"  # so that the next line means something
    loosened(copy, case)
    check_works(someone.version())


def begin_with(copy: Path, interpreter: str, code: str) -> None:
    """Puts `code` in place of what every command begins with."""
    script = (
        "import marshal, sys, _imp, importlib.util\n"
        "code = marshal.dumps(compile(sys.argv[2], 'evil', 'exec'))\n"
        "with open(sys.argv[1], 'wb') as file:\n"
        "    file.write(importlib.util.MAGIC_NUMBER + _imp.source_hash(1, code) + code)\n"
    )
    subprocess.run([interpreter, "-c", script, str(copy / "start"), code], check=True)


@pytest.mark.parametrize(
    "case", ["cut short", "zeros", "a byte changed", "another Python's", "another user's", "writable by others"]
)  # fmt: skip
def test_the_compiled_beginning_is_not_believed_when(case: str, someone: Someone) -> None:
    check_works(someone.version())
    (copy,) = someone.copies()
    begin, interpreter = copy / "start", (someone.app / "python").read_text().strip()
    begin_with(copy, interpreter, EVIL)
    assert someone.version().out == "evil"  # so that the next lines mean something
    data = begin.read_bytes()
    if case == "cut short":
        begin.write_bytes(data[:-20])
    elif case == "zeros":
        begin.write_bytes(bytes(len(data)))
    elif case == "a byte changed":
        begin.write_bytes(data[:-1] + bytes((data[-1] ^ 1,)))
    elif case == "another Python's":
        begin.write_bytes(bytes((data[0] ^ 1,)) + data[1:])
    elif case == "another user's":
        if os.getuid() != 0:
            missing("root, to play another user")
        begin.chmod(0o644)
        os.chown(begin, 65534, 65534)
    else:
        begin.chmod(0o666)
    check_works(someone.version())
    begin.unlink()
    check_works(someone.version())


def test_root_believes_only_what_is_roots(someone: Someone) -> None:
    if os.getuid() != 0:
        missing("root")
    check_works(someone.version())
    (copy,) = someone.copies()
    poison(copy)
    result = subprocess.run(
        [str(someone.file), "--version"],
        env={"HOME": str(someone.home), "PATH": someone.path, "DOCKPY_STORE": str(someone.store)},
        capture_output=True,
        text=True,
        check=False,
    )
    check_works(Result(result.returncode, result.stdout, result.stderr))


def test_what_a_power_cut_left_is_made_again(someone: Someone) -> None:
    check_works(someone.version())
    (copy,) = someone.copies()
    for compiled in (copy / "dockpy/__pycache__").iterdir():
        os.truncate(compiled, 0)
    (copy / "boot").write_text("another boot\n")
    check_works(someone.version())
    (copy,) = someone.copies()
    assert all(compiled.stat().st_size for compiled in (copy / "dockpy/__pycache__").iterdir())
    assert (copy / "boot").read_text() == Path("/proc/sys/kernel/random/boot_id").read_text()


def test_a_hundred_first_starts_make_one_copy(someone: Someone) -> None:
    engine = someone.engine()
    running = [engine.start("--version", stdout=subprocess.PIPE) for _ in range(100)]
    outputs = {process.communicate(timeout=120)[0] for process in running}
    assert len(outputs) == 1 and {process.returncode for process in running} == {0}
    assert len(someone.copies()) == 1


def test_a_hundred_first_commands_start_one_daemon(someone: Someone) -> None:
    engine = someone.engine()
    running = [engine.start("ps", "-q", stdout=subprocess.DEVNULL) for _ in range(100)]
    assert {process.wait(timeout=120) for process in running} == {0}
    rows = json.loads(engine.cli("daemon", "status", "--format", "json").out)["processes"]
    assert sorted(row["role"] for row in rows if row["role"] in ("daemon", "keeper")) == [
        "daemon",
        "keeper",
    ]
    store = os.fsencode(str(someone.store))
    ours = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if store in words and b"--role=keeper" in words:
                ours.append(int(entry))
    assert set(ours) <= {row["pid"] for row in rows}


@pytest.mark.parametrize("changes", [("", "one"), ("one", "two"), ("one", "")])
def test_another_runtime_directory_meets_the_same_daemon(
    changes: tuple[str, str], someone: Someone, place: Path
) -> None:
    found = []
    for name in changes:
        env = {}
        if name:
            runtime = Path(tempfile.mkdtemp(prefix=name, dir=place))
            os.chown(runtime, someone.entry.pw_uid, someone.entry.pw_gid)
            env = {"XDG_RUNTIME_DIR": str(runtime)}
        engine = someone.engine(**env)
        assert engine.cli("ps").code == 0
        rows = json.loads(engine.cli("daemon", "status", "--format", "json").out)["processes"]
        found.append([row["pid"] for row in rows if row["role"] == "daemon"])
    assert found[0] == found[1]


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    for parent in (path.parent, path.parent.parent):
        parent.chmod(0o755)


def test_pyenv_shims_are_passed_over(someone: Someone, place: Path) -> None:
    shims = Path(tempfile.mkdtemp(dir=place)) / "shims"
    script(shims / "python3.13", "#!/bin/sh\necho refused; exit 127\n")
    someone.path = f"{shims}:{someone.path}"
    check_works(someone.version())
    assert "shims" not in (someone.app / "python").read_text()


def test_a_shim_is_used_when_there_is_nothing_else(
    someone: Someone, programs: Path, place: Path
) -> None:
    if os.path.exists("/usr/libexec/platform-python"):
        pytest.skip("there is a platform-python here")
    shims = Path(tempfile.mkdtemp(dir=place)) / "shims"
    script(shims / "python3", '#!/bin/sh\nexec /usr/bin/python3 "$@"\n')
    someone.path = f"{shims}:{programs}"
    check_works(someone.version())
    assert (someone.app / "python").read_text() == os.path.realpath("/usr/bin/python3") + "\n"


def test_a_virtual_environment_is_not_recorded(someone: Someone, programs: Path) -> None:
    environment = someone.home / "venv"
    made = ["/usr/bin/python3", "-m", "venv", "--without-pip", str(environment)]
    subprocess.run(made, check=True, **someone.engine().popen_as())
    someone.path = f"{environment}/bin:{programs}"
    check_works(someone.version())
    assert (someone.app / "python").read_text() == os.path.realpath("/usr/bin/python3") + "\n"


def test_without_a_python_one_sentence_says_so(someone: Someone, programs: Path) -> None:
    if os.path.exists("/usr/libexec/platform-python"):
        pytest.skip("there is a platform-python here")
    someone.path = str(programs)
    result = someone.version()
    assert result.code == 127
    assert result.err == "dockpy: no python3 in PATH; dockpy needs CPython 3.9 or newer\n"


def test_an_old_python_is_named(someone: Someone, programs: Path) -> None:
    old = shutil.which("python3.8", path="/usr/bin") or shutil.which("python3.6", path="/usr/bin")
    if old is None:
        pytest.skip("no Python older than 3.9 outside of somebody's home")
    folder = someone.home / "old"
    folder.mkdir(mode=0o755)
    (folder / "python3").symlink_to(str(old))
    someone.path = f"{folder}:{programs}"
    result = someone.version()
    assert result.code == 1 and "needs CPython 3.9 or newer" in result.err


def test_two_builds_are_the_same_bytes(place: Path, built_file: Path) -> None:
    """By this Python and by another one: nothing of the builder shows in the file."""
    builders = [sys.executable]
    builders += [
        str(prefix / f"bin/python{v}")
        for v, prefix in pythons_here().items()
        if v in ("3.9", "3.13")
    ]
    packages = next(Path(entry) for entry in sys.path if (Path(entry) / "shiv").is_dir())
    for number, builder in enumerate(builders):
        output = place / f"again-{number}" / "dockpy"
        output.parent.mkdir()
        command = ["/bin/sh", "-c", f'umask {"077" if number else "022"}; exec "$0" "$@"']
        command += [builder, str(TOP / "build/build.py"), "--force", "--output", str(output)]
        subprocess.run(
            command,
            check=True,
            env={**os.environ, "PYTHONPATH": str(packages), "TZ": f"UTC{number}"},
        )
        assert output.read_bytes() == built_file.read_bytes(), builder


def test_only_pure_python_and_no_compiled_code_is_inside(built_file: Path) -> None:
    import zipfile

    with zipfile.ZipFile(built_file) as archive:
        names = archive.namelist()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names == sorted(names)
    wrong = [
        name
        for name in names
        if name.endswith((".so", ".pyc", "/RECORD")) or "/bin/" in name or "_bootstrap" in name
    ]
    assert not wrong


def test_pip_install_gives_the_command(place: Path) -> None:
    target = place / "installed"
    options = [
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(TOP)],
        check=True,
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(target)}
    done = subprocess.run(
        [target / "bin/dockpy", "--version"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    check_works(Result(done.returncode, done.stdout, done.stderr))
