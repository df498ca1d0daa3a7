"""The engines that are measured: their command lines, users and stores."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
FILE = TOP / "build/dist/dockpy"
BUSYBOX = "localhost/busybox:latest"


class Failed(Exception):
    """A command that was to be timed did not succeed: the row says so instead of a figure."""


class Launcher:
    """launcher.py, as one user."""

    def __init__(self, options: dict[str, object]) -> None:
        self._process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]  # as below
            # Any user can read the system's Python; not everyone this folder.
            ["/usr/bin/python3", "-IS", "-c", Path(__file__).with_name("launcher.py").read_text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def time(self, command: list[str], environ: object, seconds: float) -> tuple[float, int, str]:
        """Milliseconds, exit status, the last line on stderr."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, environ, seconds]) + "\n")
        self._process.stdin.flush()
        taken, status, error = json.loads(self._process.stdout.readline())
        return float(taken), int(status), str(error)


@dataclass
class Engine:
    """One engine's command line, the user it runs as, and what of it differs from docker's."""

    name: str
    command: list[str]
    user: str
    environ: dict[str, str]
    remove: tuple[str, ...] = ("rm", "-f")
    pull: tuple[str, ...] = ("pull", "-q")
    count: int = 0
    made: list[str] = field(default_factory=list)

    def fresh(self) -> str:
        self.count += 1
        self.made.append(f"bench-{os.getpid()}-{self.count}")
        return self.made[-1]

    def options(self) -> dict[str, object]:
        entry = pwd.getpwnam(self.user)
        path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        environ = {"HOME": entry.pw_dir, "PATH": path, "LANG": "C.UTF-8", **self.environ}
        found: dict[str, object] = {"env": environ, "cwd": entry.pw_dir}
        if os.geteuid() != entry.pw_uid:
            groups = os.getgrouplist(self.user, entry.pw_gid)
            found.update(user=entry.pw_uid, group=entry.pw_gid, extra_groups=groups)
        return found

    @cached_property
    def _launcher(self) -> Launcher:
        return Launcher(self.options())

    def popen(self, *args: str, **streams: object) -> subprocess.Popen[bytes]:
        null: dict[str, object] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        return subprocess.Popen([*self.command, *args], **{**null, **self.options(), **streams})  # type: ignore[call-overload,no-any-return]  # keywords are chosen at run time

    def time(self, *args: str, seconds: float = 300) -> float:
        """Milliseconds that one command took."""
        taken, status, error = self._launcher.time(
            [*self.command, *args], self.options()["env"], seconds
        )
        if status:
            raise Failed(f"{self.name} {' '.join(args[:2])}: {error or status}")
        return taken

    def text(self, *args: str) -> str:
        process = self.popen(*args, stdout=subprocess.PIPE)
        return process.communicate(timeout=300)[0].decode()

    def running(self, *command: str) -> str:
        name = self.fresh()
        self.time("run", "-d", "--name", name, BUSYBOX, *(command or ("sleep", "1000")))
        return name

    def many(self, count: int, *flags: str) -> tuple[list[str], float]:
        """So many `run -d`, four at a time; and how many milliseconds that took."""
        names = [self.fresh() for _ in range(count)]
        waiting = list(names)
        failed: list[int] = []

        def work() -> None:
            while waiting:
                name = waiting.pop()
                process = self.popen("run", "-d", "--name", name, *flags, BUSYBOX, "sleep", "1000")
                if process.wait(300):
                    failed.append(process.returncode)

        start = time.perf_counter()
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = (time.perf_counter() - start) * 1e3
        if failed:
            self.drop(*names)
            raise Failed(f"{self.name}: {len(failed)} of {count} containers did not start")
        return names, taken

    def drop(self, *names: str) -> None:
        if names:
            process = self.popen(*self.remove, *names)
            process.wait(300)
            self.made = [name for name in self.made if name not in names]


def engines_in(work: Path) -> dict[str, Engine]:
    file = work / "dockpy"
    shutil.copy(FILE, file)
    images = str(work / "images")

    def data(user: str) -> dict[str, str]:
        return {"XDG_DATA_HOME": str(work / f"data-{user}")}

    found = {
        "dockpy": Engine(
            "dockpy", [str(file)], "dockpy-bench", {**data("dockpy-bench"), "IMAGES": images}
        ),
        "podman": Engine(
            "podman",
            ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs"],
            "dockpy-peer",
            {
                **data("dockpy-peer"),
                "IMAGES": images,
                "XDG_RUNTIME_DIR": str(work / "xdg-dockpy-peer"),
                "CONTAINERS_STORAGE_CONF": str(work / "storage.conf"),
            },
            (
                "rm",
                "-f",
                "-t",
                "0",
            ),  # podman's own default waits ten seconds for a workload that ignores SIGTERM
            ("pull", "-q", "--tls-verify=false"),
        ),
        "docker": Engine(
            "docker", [client(), "-H", f"unix://{work}/docker.sock"], "root", {"IMAGES": images}
        ),
        "runc": Engine("runc", ["runc"], "root", {"BUNDLE": str(work / "bundle")}),
    }
    found["dockpy"].popen("daemon", "stop").wait(60)  # an older build's, if one runs
    for engine in list(found.values()):
        if shutil.which(engine.command[0]) is None:
            print(f"{engine.name} is not here", file=sys.stderr)
            del found[engine.name]
        elif engine.name != "runc":
            engine.time("load", "-i", f"{images}/busybox.tar")
    return found


def client() -> str:
    """Debian's docker client beside Debian's daemon: a newer one elsewhere in PATH is another product."""
    return "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
