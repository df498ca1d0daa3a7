"""dockpy/images/builtin.py: hello's program, and a host image that runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import elftools
import pytest

import dockpy
from dockpy.errors import NotFound, Unavailable
from dockpy.images import builtin, from_host
from dockpy.images.store import ImageStore
from tests.images.archives import docker_archive, image
from tests.images.conftest import Open, in_tree, inside

HELLO, HOST = "dockpy.builtin/hello", "dockpy.builtin/host"


def test_hello_prints_its_greeting(tmp_path: Path) -> None:
    try:
        program = builtin.hello_program(os.uname().machine)
    except Unavailable:
        pytest.skip(f"hello has no program for {os.uname().machine}")
    path = tmp_path / "hello"
    path.write_bytes(program)
    path.chmod(0o755)
    done = subprocess.run([str(path)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Hello from dockpy!" in done.stdout
    assert len(program) < 600


def test_hello_for_aarch64_is_what_an_assembler_makes() -> None:
    # as(1) for: mov x0,#1; adr x1,.+28; mov x2,#LEN; mov x8,#64; svc #0; mov x0,#0; mov x8,#93;
    # svc #0
    program = builtin.hello_program("aarch64")
    assert program[18:20] == b"\xb7\x00"
    code = program[120:152]
    length = len(program) - 152
    assert code.hex() == (
        "200080d2" "e1000010" f"{(0xD2800002 | length << 5).to_bytes(4, 'little').hex()}"
        "080880d2" "010000d4" "000080d2" "a80b80d2" "010000d4"
    )  # fmt: skip
    assert program[152:].startswith(b"\nHello")


def test_hello_is_an_image(store: ImageStore) -> None:
    made = builtin.ensure(store, HELLO)
    assert made is not None
    assert made.repo_tags == (f"{HELLO}:latest",)
    assert made.size < 4096
    assert builtin.ensure(store, f"{HELLO}:latest") == made


@pytest.mark.parametrize("text", ["busybox", "dockpy.builtinx/host", "a/dockpy.builtin", ""])
def test_other_names_are_not_builtin(store: ImageStore, text: str) -> None:
    assert builtin.ensure(store, text) is None


@pytest.mark.parametrize("text", ["dockpy.builtin/other", f"{HOST}:v2"])
def test_there_are_two_builtin_images(store: ImageStore, text: str) -> None:
    with pytest.raises(NotFound, match="dockpy.builtin/hello and dockpy.builtin/host"):
        builtin.ensure(store, text)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    from tests.images.conftest import opened

    store = opened(tmp_path_factory.mktemp("host"))
    made = builtin.ensure(store, HOST)
    assert made is not None
    store.snapshots.prepare("probe", store.unpack(made))
    return store


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("echo hello", "hello\n"),
        ("printf '%s\\n' b a | sort | head -n 1", "a\n"),
        ("stat -c %a /tmp /root", "1777\n700\n"),
        ("/usr/bin/env sh -c 'echo $LANG'", None),
        ("/bin/sh -c 'command -v ls >/dev/null && echo yes'", "yes\n"),
        ("python3 -c 'import json; print(6*7)'", "42\n"),
        ("python3 -c 'import ssl, sqlite3, ctypes, asyncio, hashlib, zlib; print(1)'", "1\n"),
        ("python3 -c 'print(\"\\u00e9\".encode())'", "b'\\xc3\\xa9'\n"),
        ("python3 -c 'import pwd; print(pwd.getpwnam(\"nobody\").pw_uid)'", "65534\n"),
        ("python3 -c 'import sys; print(\"test\" in sys.modules)'", "False\n"),
    ],
)
def test_host_runs(host: ImageStore, command: str, out: str | None) -> None:
    root = in_tree(host, "probe", "usr").parent
    done = inside(root, command)
    assert done.returncode == 0, done.stderr
    assert out is None or done.stdout == out


def test_host_is_of_root_and_has_the_basics(host: ImageStore) -> None:
    found = host.resolve(HOST)
    assert found.config.config.cmd == ("/bin/sh",)
    root = in_tree(host, "probe", "usr").parent
    for path in ("etc/passwd", "etc/group", "etc/nsswitch.conf", "proc", "sys", "dev"):
        assert (root / path).exists(), path
    for path in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(path):
            assert os.readlink(root / path[1:]) == os.readlink(path)
    assert not list(root.glob("usr/lib*/python3*/test"))


def test_host_is_the_same_each_time(host: ImageStore, tmp_path: Path, open_store: Open) -> None:
    again = builtin.ensure(open_store(tmp_path / "again"), HOST)
    assert again is not None
    assert again.id == host.resolve(HOST).id


def test_an_image_of_another_state_of_the_host_is_made_again(store: ImageStore) -> None:
    first = builtin.ensure(store, HELLO)
    assert first is not None
    index = Path(store.content.root, "index.json")
    index.write_text(index.read_text().replace('made-from":"1"', 'made-from":"0"'))
    second = builtin.ensure(store, HELLO)
    assert second is not None and second.tagged > first.tagged and second.id == first.id
    assert builtin.ensure(store, HELLO) == second


def test_twenty_first_uses_make_one(store: ImageStore) -> None:
    made: list[object] = []
    threads = [
        threading.Thread(target=lambda: made.append(builtin.ensure(store, HELLO)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 20 and all(one == made[0] for one in made)


def test_a_host_of_busybox_alone(store: ImageStore, tmp_path: Path) -> None:
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    if busybox is None:
        pytest.skip("this machine lacks busybox")
    tree = tmp_path / "alpine"
    collector = from_host.collect([os.path.realpath(busybox), "python3"])
    for name in ("sh", "ls", "cat", "echo"):
        collector.link(f"/bin/{name}", os.path.realpath(busybox))
    packed = tmp_path / "packed.tar"
    with packed.open("wb") as file:
        from_host.pack(collector.entries, file.write)
    tree.mkdir()
    subprocess.run(["tar", "-C", str(tree), "--no-same-owner", "-xf", str(packed)], check=True)
    for package in (dockpy, elftools):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, tree / "opt" / source.name)
    script = (
        "import sys; sys.path.insert(0, '/opt')\n"
        "from dockpy.images import builtin, from_host\n"
        "collector = builtin.host_collector()\n"
        "print(*(f'{path} {entry.link}' for path, entry in collector.entries.items()), sep='\\n')\n"
    )
    (tree / "dev/null").touch()  # a file does as well
    (tree / "script").write_text(script)
    done = inside(tree, "python3 /script")
    assert done.returncode == 0, done.stderr
    links = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    for name in ("sh", "ls", "cat", "echo"):
        assert links.get(f"usr/bin/{name}", links.get(f"bin/{name}")) == os.path.realpath(busybox)
    assert links["usr/bin/sed"] == os.path.realpath(busybox)
    assert os.path.realpath(busybox)[1:] in links
    assert any(path.endswith("/os.py") for path in links)


def test_a_name_of_the_users_own_is_not_touched(
    store: ImageStore, load: Callable[[bytes], list[str]]
) -> None:
    load(docker_archive(image("one", names=["a:v1"])))
    builtin.ensure(store, HELLO)
    assert len(store.list()) == 2
