"""Bundles of busybox, started in a forked child that first becomes one of the three situations.

root: the host's root. subuid: uid 0 of a user namespace with a range of ids. single: uid 0 of a
one-line user namespace. What runs there is an ordinary function; its result comes back pickled, an
exception comes back as AssertionError with its traceback.
"""

from __future__ import annotations

import os
import pickle
import select
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dockpy.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare
from dockpy.oci import capabilities
from dockpy.oci.spec import (
    Capabilities,
    ConsoleSize,
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    Spec,
    User,
)
from dockpy.runtime.create import Created, Stdio, create
from dockpy.runtime.errors import StartFailed
from dockpy.runtime.exec import exec_process

BUSYBOX = "/bin/busybox"
UNPRIVILEGED = 61234  # nobody's number
RANGE = (300000, 65536)
APPLETS = (
    "sh true false cat ls id mount umount ps stat echo hostname readlink grep sleep wc env pwd tty "
    "touch mkdir rm kill mknod dd chmod chown ln head sort test sysctl dnsdomainname ip stty"
)
NAMESPACES = "pid network ipc uts mount cgroup"
PSEUDO = ("nosuid", "noexec", "nodev")
MOUNTS = (
    Mount("/proc", "proc", "proc", PSEUDO),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount(
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    Mount("/sys", "sysfs", "sysfs", (*PSEUDO, "ro")),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*PSEUDO, "ro")),
    Mount("/dev/mqueue", "mqueue", "mqueue", PSEUDO),
    Mount("/dev/shm", "tmpfs", "shm", (*PSEUDO, "mode=1777", "size=65536k")),
)
MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware")
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
DEFAULT_CAPS = Capabilities(
    bounding=capabilities.DEFAULT,
    effective=capabilities.DEFAULT,
    permitted=capabilities.DEFAULT,
)


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Running:
    created: Created
    stdin: int
    out: int
    err: int

    def finish(self, stdin: bytes = b"") -> Result:
        if stdin:
            os.write(self.stdin, stdin)
        os.close(self.stdin)
        parts: dict[int, bytes] = {self.out: b"", self.err: b""}
        waiting = [self.out, self.err]
        while waiting:
            ready = select.select(waiting, [], [], 20)[0]
            assert ready, f"nothing for 20 s after {parts!r}"
            for fd in ready:
                data = os.read(fd, 65536)
                parts[fd] += data
                if not data:
                    waiting.remove(fd)
                    os.close(fd)
        return Result(self.wait(), parts[self.out].decode(), parts[self.err].decode())

    def wait(self) -> int:
        status = os.waitpid(self.created.pid, 0)[1]
        if self.created.pidfd >= 0:
            os.close(self.created.pidfd)
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


@dataclass
class Box:
    """A folder with a root file system, and what a test does with it inside its situation."""

    situation: str
    base: Path

    @property
    def lower(self) -> Path:
        return self.base / "lower"

    def spec(
        self,
        *args: str,
        mounts: tuple[Mount, ...] = (),
        base_mounts: tuple[Mount, ...] = MOUNTS,
        namespaces: str = NAMESPACES,
        env: tuple[str, ...] = ("PATH=/bin:/usr/bin",),
        cwd: str = "/",
        user: User | None = None,
        readonly: bool = False,
        annotations: dict[str, str] | None = None,
        **linux: Any,
    ) -> Spec:
        for name in ("upper", "work", "bundle"):
            (self.base / name).mkdir(exist_ok=True)
        (self.base / "upper").chmod(0o755)
        options = [f"lowerdir={self.lower}", f"upperdir={self.base}/upper"]
        options.append(f"workdir={self.base}/work")
        if self.situation != "root":
            options.append("userxattr")
        if self.situation == "single":
            annotations = {"io.dockpy.tier": "single", **(annotations or {})}
        return Spec(
            process=Process(
                args=args, env=env, cwd=cwd, user=user or User(), capabilities=DEFAULT_CAPS
            ),
            root=Root("rootfs", readonly),
            hostname="box",
            mounts=(Mount("/", "overlay", "overlay", tuple(options)), *base_mounts, *mounts),
            annotations=annotations or {},
            linux=Linux(
                namespaces=tuple(Namespace(kind) for kind in namespaces.split()),
                masked_paths=MASKED,
                readonly_paths=READONLY,
                **linux,
            ),
        )

    def start(self, spec: Spec) -> Running:
        return self._start(lambda stdio: create(spec, str(self.base / "bundle"), stdio))

    def exec(self, spec: Spec, process: Process, pid: int) -> Running:
        return self._start(lambda stdio: exec_process(spec, process, pid, stdio))

    def _start(self, begin: Callable[[Stdio], Created]) -> Running:
        ends = [os.pipe() for _ in range(3)]
        (stdin_r, stdin_w), (out_r, out_w), (err_r, err_w) = ends
        try:
            created = begin(Stdio(stdin_r, out_w, err_w))
        except BaseException:
            for fd in (stdin_w, out_r, err_r):
                os.close(fd)
            raise
        finally:
            for fd in (stdin_r, out_w, err_w):
                os.close(fd)
        return Running(created, stdin_w, out_r, err_r)

    def run(self, *args: str, **changes: Any) -> Result:
        return self.start(self.spec(*args, **changes)).finish()

    def sh(self, script: str, **changes: Any) -> Result:
        return self.run("sh", "-c", script, **changes)

    def terminal(self, spec: Spec, size: tuple[int, int] | None = None) -> tuple[int, str]:
        process = replace(spec.process, terminal=True)
        if size is not None:
            process = replace(process, console_size=ConsoleSize(*size))
        created = create(replace(spec, process=process), str(self.base / "bundle"), None)
        assert created.console is not None
        return drain(created)


def drain(created: Created) -> tuple[int, str]:
    """Exit code and all that came out of the terminal of `created`."""
    assert created.console is not None
    output = b""
    while True:
        try:
            data = os.read(created.console, 65536)
        except OSError:  # EIO: the last slave was closed
            break
        output += data
    os.close(created.console)
    status = os.waitpid(created.pid, 0)[1]
    if created.pidfd >= 0:
        os.close(created.pidfd)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    return code, output.decode()


def failure(begin: Callable[[], object]) -> StartFailed:
    """The StartFailed of `begin`, which must not succeed."""
    try:
        result = begin()
    except StartFailed as error:
        return error
    raise AssertionError(f"it started: {result!r}")


def make_rootfs(root: Path) -> None:
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/bob", "mnt"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for name in APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n"
    )
    (root / "etc" / "group").write_text("root:x:0:\nbob:x:1001:\nwheel:x:10:root,bob\ntape:x:26:\n")


@contextmanager
def box(situation: str) -> Iterator[Box]:
    """A folder that belongs to the situation's user on the host."""
    base = Path(tempfile.mkdtemp(prefix="dockpy-runtime-"))
    try:
        made = Box(situation, base)
        made.lower.mkdir()
        make_rootfs(made.lower)
        if situation != "root" and os.geteuid() == 0:
            for folder, folders, files in os.walk(base):
                for name in (".", *folders, *files):
                    os.chown(
                        os.path.join(folder, name),
                        UNPRIVILEGED,
                        UNPRIVILEGED,
                        follow_symlinks=False,
                    )
        yield made
    finally:
        shutil.rmtree(base, ignore_errors=True)


def inside(situation: str, work: Callable[[], Any]) -> Any:
    """The result of `work` in a child that has become `situation`."""
    answer_r, answer_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    unshared_r, unshared_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.umask(0o077)  # what a careful user may have; nothing inside may depend on it
            os.close(answer_r)
            _become(situation, unshared_w, mapped_r)
            payload = (True, work())
        except BaseException:
            payload = (False, traceback.format_exc())
        with os.fdopen(answer_w, "wb") as file:
            file.write(pickle.dumps(payload))
        os._exit(0)
    os.close(answer_w)
    os.close(unshared_w)
    if os.read(unshared_r, 1):
        first, count = RANGE
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"0 {UNPRIVILEGED} 1\n1 {first} {count}\n")
        os.write(mapped_w, b"x")
    with os.fdopen(answer_r, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    for fd in (mapped_r, mapped_w, unshared_r):
        os.close(fd)
    good, value = pickle.loads(data)
    assert good, value
    return value


def _become(situation: str, unshared: int, mapped: int) -> None:
    if situation == "root":
        os.close(unshared)
        unshare(CLONE_NEWNS)
        return
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
        os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
    uid, gid = os.getuid(), os.getgid()
    # Changing ids made us non-dumpable: then /proc/self is the host root's.
    from dockpy.linux.processes import PR_SET_DUMPABLE, prctl

    prctl(PR_SET_DUMPABLE, 1)
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
    if situation == "single":
        os.close(unshared)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        return
    os.write(unshared, b"x")
    os.read(mapped, 1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    prctl(PR_SET_DUMPABLE, 1)
