"""The engines of the e2e suite: the built file as two unprivileged users and as root, and docker.

Set-up makes users, a folder of programs that is all of PATH for one of them, and one image; what a
machine lacks for an engine is a skip that names it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pwd
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockpy.files import locked
from tests.e2e.engines import Engine

ROOT = Path(__file__).resolve().parents[2]
PLAIN, RANGED = "dockpy-plain", "dockpy-ranged"
IMAGE = "localhost/busybox:latest"
PROGRAMS = (
    "basename cat chmod chown cp cut date dd df dirname du echo env expr false head id kill ln ls mkdir mktemp mv "
    "nproc od printf pwd readlink rm rmdir seq sh sleep sort stat stty tail tee test touch tr true tty uname uniq "
    "wc whoami python3"
).split()


def missing(what: str) -> None:
    """A skip that names what the machine lacks; a failure where everything has to run."""
    if os.environ.get("DOCKPY_TEST_ALL"):
        pytest.fail(f"DOCKPY_TEST_ALL is set and this machine lacks {what}")
    pytest.skip(f"this machine lacks {what}")


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A folder that every user can enter."""
    path = Path(tempfile.mkdtemp(prefix="dockpy-e2e-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def built_file(place: Path) -> Path:
    subprocess.run([ROOT / "scripts" / "dockpy", "--build"], check=True, stdout=subprocess.DEVNULL)
    target = place / "dockpy"
    shutil.copy(ROOT / "build" / "dist" / "dockpy", target)
    target.chmod(0o755)
    return target


@pytest.fixture(scope="session")
def busybox_archive(place: Path) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        missing("busybox (Debian: busybox-static)")
    path = place / "busybox.tar"
    write_archive(path, layer_of(Path(str(busybox))))
    return path


def layer_of(busybox: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(
            name: str,
            content: bytes | None = None,
            link: str = "",
            mode: int = 0o755,
            owner: int = 0,
        ) -> None:
            member = tarfile.TarInfo(name)
            member.uid = member.gid = owner
            member.mode = mode
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
            elif content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if content is not None else None)

        for folder in ("bin", "etc", "root", "home", "proc", "sys", "dev", "var"):
            add(folder)
        add("tmp", mode=0o1777)
        add("home/app", owner=1000)
        add("bin/busybox", busybox.read_bytes())
        applets = subprocess.run(
            [busybox, "--list"], check=True, capture_output=True, text=True
        ).stdout.split()
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", link="busybox")
        add(
            "etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
            mode=0o644,
        )
        add("etc/group", b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n", mode=0o644)
    return buffer.getvalue()


def write_archive(path: Path, layer: bytes) -> None:
    diff_id = hashlib.sha256(layer).hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {
                "Cmd": ["sh"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "busybox"}],
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps(
        [{"Config": name, "RepoTags": [IMAGE], "Layers": [f"{diff_id}/layer.tar"]}]
    ).encode()
    with tarfile.open(path, "w") as tar:
        for member_name, content in (
            (name, config),
            (f"{diff_id}/layer.tar", layer),
            ("manifest.json", manifest),
        ):
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    path.chmod(0o644)


def user_named(name: str, subids: bool) -> pwd.struct_passwd:
    with locked(f"{tempfile.gettempdir()}/dockpy-e2e-users.lock"):  # other workers make theirs
        return _user_named(name, subids)


def _user_named(name: str, subids: bool) -> pwd.struct_passwd:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "-m", "-s", "/bin/sh", name], check=True)
        entry = pwd.getpwnam(name)
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = Path(file).read_text().splitlines() if os.path.exists(file) else []
        lines = [line for line in lines if not line.startswith(f"{name}:")]
        if subids:
            lines.append(f"{name}:{300000 if name == RANGED else 400000}:65536")
        Path(file).write_text("".join(line + "\n" for line in lines))
    return entry


def dockpy_as(place: Path, file: Path, label: str) -> Engine:
    if label == "root":
        entry = pwd.getpwuid(0)
        path = os.environ["PATH"]
    else:
        if label == "ranged" and shutil.which("newuidmap") is None:
            missing("newuidmap (Debian: uidmap)")
        entry = user_named(PLAIN if label == "plain" else RANGED, label == "ranged")
        path = "/usr/local/bin:/usr/bin:/bin"
    if label == "plain":
        programs = place / "programs"
        programs.mkdir(exist_ok=True)
        for program in PROGRAMS:
            found = shutil.which(program, path="/usr/bin:/bin")
            if found and not (programs / program).exists():
                (programs / program).symlink_to(found)
        path = str(programs)
    home = place / f"home-{label}"
    home.mkdir()
    os.chown(home, entry.pw_uid, entry.pw_gid)
    environ = {
        "HOME": str(home),
        "PATH": path,
        "DOCKPY_STORE": str(home / "store"),
        "LANG": "C.UTF-8",
    }
    return Engine(label, [str(file)], entry.pw_uid, entry.pw_gid, environ, True)


def docker_daemon(place: Path) -> tuple[Engine, subprocess.Popen[bytes]]:
    if os.getuid() != 0 or shutil.which("dockerd") is None or shutil.which("docker") is None:
        missing("docker (Debian: docker.io), or root to start it")
    folder = place / "docker"
    folder.mkdir()
    socket = folder / "docker.sock"
    log = (folder / "log").open("wb")
    daemon = subprocess.Popen(
        ["dockerd", "--host", f"unix://{socket}", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec",
         "--pidfile", f"{folder}/pid"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    program = (
        "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else str(shutil.which("docker"))
    )
    environ = {"HOME": str(folder), "PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{socket}"}
    engine = Engine("docker", [program], 0, 0, environ, False)
    for _ in range(100):
        if engine.cli("info").code == 0:
            return engine, daemon
        time.sleep(0.3)
    daemon.kill()
    missing("a dockerd that starts: " + (folder / "log").read_text(errors="replace")[-400:])
    raise AssertionError


@pytest.fixture(scope="session", params=["plain", "ranged", "root", "docker"])
def engine(request: pytest.FixtureRequest, place: Path, busybox_archive: Path) -> Iterator[Engine]:
    if request.param == "docker":
        docker, daemon = docker_daemon(place)
        docker.cli("load", "-i", str(busybox_archive))
        yield docker
        daemon.terminate()
        daemon.wait(30)
        return
    if os.getuid() != 0 and request.param != "plain":
        missing("root, to be other users")
    dockpy = dockpy_as(place, request.getfixturevalue("built_file"), request.param)
    loaded = dockpy.cli("load", "-i", str(busybox_archive))
    assert loaded.code == 0, loaded.err
    status = json.loads(dockpy.cli("daemon", "status", "--format", "json").out)
    dockpy.extra["socket"] = status["run"] + "/dockpy.sock"
    yield dockpy
    dockpy.cli("ps")
    rows = json.loads(dockpy.cli("daemon", "status", "--format", "json").out)["processes"]
    leftovers = dockpy.cli("ps", "-aq").out.split()
    if leftovers:
        dockpy.cli("rm", "-f", *leftovers)
    dockpy.cli("daemon", "stop")
    deadline = time.monotonic() + 15
    ours = [row["pid"] for row in rows if row["role"] in ("daemon", "keeper")]
    while any(os.path.exists(f"/proc/{pid}") for pid in ours) and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def folder(engine: Engine) -> Iterator[Path]:
    """An empty folder of the engine's user, below a path that he can enter."""
    path = Path(tempfile.mkdtemp(prefix="dockpy-e2e-folder-"))
    path.chmod(0o755)
    engine.give(path)
    yield path
    shutil.rmtree(path, ignore_errors=True)
