"""Times dockpy beside podman and docker: interleaved pairs, medians and quartiles of the ratios, bounds.

Machines drift, so single figures mean little: in every pair one command of each engine is run right after the other,
and what is judged is the median of the ratios. Within a tenth of its bound a row counts as met.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
FILE = TOP / "build/dist/dockpy"
BUSYBOX, DEBIAN = "localhost/busybox:latest", "localhost/debian:latest"
PULLED = "127.0.0.1:5055/debian:latest"  # bench-peers has put it there
PIPED = 1 << 30
LINES = 400_000
COPIED = 200 << 20
LOG_LINE = "the quick brown fox jumps over the lazy dog, again and again and again"


class Failed(Exception):
    """A command that was to be timed did not succeed: the row says so instead of a figure."""


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

    def popen(self, *args: str, **streams: object) -> subprocess.Popen[bytes]:
        null: dict[str, object] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        return subprocess.Popen([*self.command, *args], **{**null, **self.options(), **streams})  # type: ignore[call-overload,no-any-return]  # keywords are chosen at run time

    def time(self, *args: str, seconds: float = 300) -> float:
        """Milliseconds that one command took."""
        start = time.perf_counter()
        process = self.popen(*args, stderr=subprocess.PIPE)
        _, error = process.communicate(timeout=seconds)
        taken = (time.perf_counter() - start) * 1e3
        if process.returncode:
            text = error.decode(errors="replace").strip().splitlines()
            raise Failed(
                f"{self.name} {' '.join(args[:2])}: {text[-1] if text else process.returncode}"
            )
        return taken

    def text(self, *args: str) -> str:
        process = self.popen(*args, stdout=subprocess.PIPE)
        return process.communicate(timeout=300)[0].decode()

    def running(self, *command: str) -> str:
        name = self.fresh()
        self.time("run", "-d", "--name", name, BUSYBOX, *(command or ("sleep", "1000")))
        return name

    def drop(self, *names: str) -> None:
        if names:
            process = self.popen(*self.remove, *names)
            process.wait(300)
            self.made = [name for name in self.made if name not in names]


Measure = Callable[[Engine], float]


@dataclass(frozen=True)
class Row:
    """`bounds`: by peer, our median as a multiple of its (at most; for rates at least)."""

    name: str
    title: str
    measure: Measure
    bounds: dict[str, float]
    pairs: int = 15
    unit: str = "ms"
    also: tuple[str, ...] = ()

    @property
    def rate(self) -> bool:
        return self.unit == "MB/s"


def run(engine: Engine) -> float:
    if engine.name == "runc":
        return engine.time("run", "-b", engine.environ["BUNDLE"], engine.fresh())
    return engine.time("run", "--rm", BUSYBOX, "true")


def run_detached(engine: Engine) -> float:
    name = engine.fresh()
    taken = engine.time("run", "-d", "--name", name, BUSYBOX, "sleep", "1000")
    engine.drop(name)
    return taken


def execute(engine: Engine) -> float:
    name = engine.running()
    try:
        engine.time("exec", name, "true")
        return engine.time("exec", name, "true")
    finally:
        engine.drop(name)


def remove(engine: Engine) -> float:
    return engine.time(*engine.remove, engine.running())


def create(engine: Engine) -> float:
    name = engine.fresh()
    taken = engine.time("create", "--name", name, BUSYBOX, "true")
    engine.drop(name)
    return taken


def version(engine: Engine) -> float:
    return engine.time("--version")


def together(engine: Engine) -> float:
    """Twenty `run --rm` at once, until the last has ended."""
    start = time.perf_counter()
    processes = [engine.popen("run", "--rm", BUSYBOX, "true") for _ in range(20)]
    codes = [process.wait(300) for process in processes]
    if any(codes):
        raise Failed(f"{engine.name}: {len([code for code in codes if code])} of 20 runs failed")
    return (time.perf_counter() - start) * 1e3


def start_hundred(engine: Engine) -> tuple[list[str], float]:
    """A hundred `run -d`, four at a time."""
    names = [engine.fresh() for _ in range(100)]
    waiting = list(names)
    failed: list[int] = []

    def work() -> None:
        while waiting:
            process = engine.popen("run", "-d", "--name", waiting.pop(), BUSYBOX, "sleep", "1000")
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
        engine.drop(*names)
        raise Failed(f"{engine.name}: {len(failed)} of 100 containers did not start")
    return names, taken


def hundred(engine: Engine) -> float:
    names, taken = start_hundred(engine)
    engine.drop(*names)
    return taken


def remove_hundred(engine: Engine) -> float:
    names, _ = start_hundred(engine)
    taken = engine.time(*engine.remove, *names)
    engine.made.clear()
    return taken


def list_hundred(engine: Engine) -> float:
    """`ps` with a hundred running: the best of seven, since setting up takes so long."""
    names, _ = start_hundred(engine)
    try:
        return statistics.median(engine.time("ps") for _ in range(15))
    finally:
        engine.drop(*names)


def load(engine: Engine) -> float:
    engine.popen("rmi", "-f", DEBIAN).wait(60)
    return engine.time("load", "-i", engine.environ["IMAGES"] + "/debian.tar")


def pull(engine: Engine) -> float:
    engine.popen("rmi", "-f", PULLED, DEBIAN).wait(60)  # the same layer under another name
    return engine.time(*engine.pull, PULLED)


def pull_again(engine: Engine) -> float:
    """With nothing new."""
    engine.time(*engine.pull, PULLED)
    return engine.time(*engine.pull, PULLED)


def pipe(engine: Engine) -> float:
    """1 GiB through `run -i cat`, in MB/s."""
    start = time.perf_counter()
    process = engine.popen(
        "run",
        "-i",
        "--rm",
        BUSYBOX,
        "cat",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin and process.stdout
    stdin = process.stdin

    def feed() -> None:
        block = bytes(1 << 16)
        try:
            for _ in range(PIPED // len(block)):
                stdin.write(block)
        except OSError:
            return
        finally:
            stdin.close()

    thread = threading.Thread(target=feed)
    thread.start()
    got = 0
    while block := os.read(process.stdout.fileno(), 1 << 18):
        got += len(block)
    thread.join()
    if process.wait(60) or got != PIPED:
        raise Failed(f"{engine.name}: {got} of {PIPED} bytes came back")
    return PIPED / 1e6 / (time.perf_counter() - start)


def logged(engine: Engine) -> tuple[str, float]:
    """A container that has printed its lines, and how long that took."""
    name = engine.fresh()
    start = time.perf_counter()
    engine.time(
        "run", "-d", "--name", name, BUSYBOX, "sh", "-c", f"yes '{LOG_LINE}' | head -n {LINES}"
    )
    engine.time("wait", name)
    return name, time.perf_counter() - start


def log_ingest(engine: Engine) -> float:
    name, taken = logged(engine)
    engine.drop(name)
    return LINES * (len(LOG_LINE) + 1) / 1e6 / taken


def log_read(engine: Engine) -> float:
    name, _ = logged(engine)
    try:
        start = time.perf_counter()
        process = engine.popen("logs", name, stdout=subprocess.PIPE)
        assert process.stdout
        got = 0
        while block := os.read(process.stdout.fileno(), 1 << 18):
            got += len(block)
        if process.wait(60) or got < 20_000_000:
            raise Failed(f"{engine.name}: logs gave {got} bytes")
        return got / 1e6 / (time.perf_counter() - start)
    finally:
        engine.drop(name)


def copied(engine: Engine, inwards: bool) -> float:
    """`cp` of one file of 200 MiB to a running container, or from it."""
    with tempfile.TemporaryDirectory(prefix="dockpy-bench-cp-") as folder:
        entry = pwd.getpwnam(engine.user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        source = Path(folder) / "file"
        block = os.urandom(1 << 20)
        source.write_bytes(block * (COPIED >> 20))
        source.chmod(0o644)
        name = engine.running("sleep", "1000")
        try:
            taken = engine.time("cp", str(source), f"{name}:/file")
            if not inwards:
                taken = engine.time("cp", f"{name}:/file", f"{folder}/back")
                if (Path(folder) / "back").stat().st_size != COPIED:
                    raise Failed(f"{engine.name}: the copy has another size")
            return taken
        finally:
            engine.drop(name)


def copy_to(engine: Engine) -> float:
    return copied(engine, True)


def copy_from(engine: Engine) -> float:
    return copied(engine, False)


ROWS = (
    Row("version", "client alone: --version", version, {"docker": 1.0}),
    Row("run", "run --rm IMG true, warm", run, {"podman": 0.25, "docker": 0.12}, also=("runc",)),
    Row("exec", "exec C true", execute, {"docker": 0.4}),
    Row("run-d", "run -d", run_detached, {"podman": 0.25}),
    Row("rm", "rm -f of a running container", remove, {"docker": 0.3}),
    Row("create", "create", create, {"docker": 0.8}),
    Row("together", "20 runs at once", together, {"podman": 0.2}, pairs=5),
    Row("hundred", "100 × run -d, 4 at a time", hundred, {"podman": 0.3}, pairs=5),
    Row("rm-hundred", "one rm -f of 100", remove_hundred, {"podman": 0.3}, pairs=5),
    Row("ps-hundred", "ps, 100 running", list_hundred, {"docker": 0.7}, pairs=5),
    Row("load", "load of a 128 MB image", load, {"podman": 0.4, "docker": 0.4}, pairs=5),
    Row(
        "pull",
        "pull of the same from a local registry",
        pull,
        {"podman": 0.5, "docker": 0.5},
        pairs=5,
    ),
    Row("pull-again", "pull with nothing new", pull_again, {"podman": 1.0, "docker": 1.0}),
    Row("cp-to", "cp of 200 MiB to a container", copy_to, {"docker": 1.0}, pairs=5),
    Row("cp-from", "cp of 200 MiB from a container", copy_from, {"docker": 1.0}, pairs=5),
    Row("pipe", "1 GiB through run -i cat", pipe, {"podman": 6.0}, unit="MB/s", pairs=5),
    Row("log-read", "logs of 28 MB", log_read, {"docker": 10.0}, unit="MB/s", pairs=5),
    Row("log-ingest", "28 MB into the log", log_ingest, {"podman": 1.0}, unit="MB/s", pairs=5),
)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def measure(row: Row, engines: dict[str, Engine], pairs: int) -> dict[str, list[float]]:
    """Values by engine; an engine that fails drops out of the row, with the reason on stderr."""
    values: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(pairs + 1):
        for name in list(values):
            try:
                value = row.measure(engines[name])
            except (Failed, subprocess.TimeoutExpired) as error:
                print(f"  {row.name}: {error}", file=sys.stderr, flush=True)
                del values[name]
                continue
            if number:  # the first round warms up
                values[name].append(value)
    return values


def report(row: Row, values: dict[str, list[float]]) -> None:
    ours = values.get("dockpy")
    print(f"{row.title}")
    for name, found in values.items():
        low, middle, high = quartiles(found)
        print(f"  {name:8} {middle:9.1f} {row.unit} ({low:.1f} to {high:.1f}, n={len(found)})")
    for peer in (*row.bounds, *row.also):
        if not ours or peer not in values:
            continue
        low, middle, high = quartiles([a / b for a, b in zip(ours, values[peer])])
        line = f"  {middle:.3f} × {peer} ({low:.3f} to {high:.3f})"
        if peer in row.bounds:
            bound = row.bounds[peer]
            met = middle >= bound / 1.1 if row.rate else middle <= bound * 1.1
            line += f"; at {'least' if row.rate else 'most'} {bound}: {'met' if met else 'NOT MET'}"
        print(line)
    sys.stdout.flush()


# Rows about dockpy alone: sizes, and times that have no counterpart.


def pss(pids: Sequence[int]) -> float:
    """MiB, shared pages divided among those who share them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def processes(engine: Engine) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in json.loads(engine.text("daemon", "status", "--format", "json"))["processes"]:
        found.setdefault(row["role"], []).append(row["pid"])
    return found


def sizes(engine: Engine) -> None:
    """PSS per container after 1,000 log lines and one exec; the daemon with a hundred running."""
    names: list[str] = []
    figures: dict[int, float] = {}
    for count in (1, 100):
        while len(names) < count:
            names.append(
                engine.running("sh", "-c", f"yes '{LOG_LINE}' | head -n 1000; exec sleep 1000")
            )
            engine.time("exec", names[-1], "true")
        time.sleep(1)
        ours = processes(engine)
        figures[count] = pss(
            [pid for role, pids in ours.items() if role != "workload" for pid in pids]
        )
        if count == 100:
            daemon = pss(ours["daemon"])
    engine.drop(*names)
    each = (figures[100] - figures[1]) / 99
    print(
        f"memory\n  {each:.2f} MiB PSS a container; at most 1.0: {'met' if each <= 1.1 else 'NOT MET'}"
    )
    print(
        f"  {daemon:.1f} MiB PSS the daemon with 100 running; under 60: {'met' if daemon < 66 else 'NOT MET'}"
    )


def first_command(engine: Engine) -> None:
    """A user's very first command, then one that only has to start the daemon again."""
    entry = pwd.getpwnam(engine.user)
    first, spawn = [], []
    for _ in range(5):
        home = tempfile.mkdtemp(prefix="dockpy-bench-")
        os.chown(home, entry.pw_uid, entry.pw_gid)
        fresh = Engine("dockpy", engine.command, engine.user, {"HOME": home})
        first.append(fresh.time("run", "--rm", "dockpy.builtin/hello") / 1e3)
        fresh.time("daemon", "stop")
        time.sleep(0.5)
        cold = fresh.time("ps") / 1e3
        spawn.append(cold - fresh.time("ps") / 1e3)
        fresh.time("daemon", "stop")
        shutil.rmtree(home, ignore_errors=True)
    for title, found, bound in (
        ("the very first command", first, 4.0),
        ("a later start of the daemon", spawn, 0.7),
    ):
        low, middle, high = quartiles(found)
        verdict = "met" if middle <= bound * 1.1 else "NOT MET"
        print(f"{title}\n  {middle:.2f} s ({low:.2f} to {high:.2f}); under {bound}: {verdict}")


ALONE = {"first": first_command, "memory": sizes}


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


def main() -> None:
    names = [row.name for row in ROWS] + list(ALONE)
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="rows: " + " ".join(names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dockpy-bench"))
    parser.add_argument("--rows", default=",".join(names), help="comma-separated; default: all")
    parser.add_argument("--pairs", type=int, help="instead of each row's own number")
    parser.add_argument("--json", type=Path, help="raw values go here")
    parser.add_argument(
        "--no-peers", action="store_true", help="dockpy alone, on images that bench-peers has made"
    )
    options = parser.parse_args()
    if not options.no_peers:
        subprocess.run([TOP / "scripts/bench-peers", options.work], check=True)
    engines = engines_in(options.work)
    if options.no_peers:
        engines = {"dockpy": engines["dockpy"]}
    raw: dict[str, dict[str, list[float]]] = {}
    try:
        for row in ROWS:
            if row.name in options.rows.split(","):
                wanted = ["dockpy", *row.bounds, *row.also]
                some = {name: engines[name] for name in wanted if name in engines}
                raw[row.name] = measure(row, some, options.pairs or row.pairs)
                report(row, {name: found for name, found in raw[row.name].items() if found})
        for name, alone in ALONE.items():
            if name in options.rows.split(","):
                alone(engines["dockpy"])
    finally:
        for engine in engines.values():
            if engine.name != "runc":
                engine.drop(*engine.made)
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
