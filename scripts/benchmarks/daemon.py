"""Rows of dockpy's daemon: what it costs while containers run, and how soon another one is there."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from scripts.benchmarks.alone import processes
from scripts.benchmarks.engines import TOP, Engine, Failed
from scripts.benchmarks.report import quartiles, verdict

ROUNDS = 8
# Seconds: four rounds of health checks, at docker's interval. What a shim's children have used is counted in ticks,
# and those of all twenty may be cut off alike: 0.2 s in all, so the window must not be short.
WATCHED = 122.0
LISTENERS, RATE, SECONDS = 50, 5000, 5
MARK = b'"timeNano"'  # once in each event
TICK = os.sysconf("SC_CLK_TCK")


def spent(pids: Iterable[int], *, children: bool = False) -> float:
    """CPU seconds: of the processes that live to the nanosecond, of `children` waited for in ticks."""
    total = 0.0
    for pid in pids:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        if children:
            total += (int(fields[13]) + int(fields[14])) / TICK
    return total


def stats(engine: Engine) -> None:
    """`stats` of all of a hundred, as it goes on: what a round of it costs the daemon."""
    names, _ = engine.many(100)
    try:
        daemon = processes(engine)["daemon"]
        watcher = engine.popen("stats")
        time.sleep(4)  # all streams have begun
        before = spent(daemon)
        time.sleep(ROUNDS)  # one a second
        each = (spent(daemon) - before) / ROUNDS
        if watcher.poll() is not None:
            raise Failed(f"stats ended with {watcher.returncode}")
        watcher.terminate()
        watcher.wait(30)
    finally:
        engine.drop(*names)
    print(
        f"stats of 100\n  {each:.3f} s of the daemon's time a round; under 0.3: {verdict(each, 0.3)}"
    )


def idle(engine: Engine) -> None:
    """A hundred that sleep, twenty of them with a health check at docker's interval."""
    names, _ = engine.many(80)
    probed, _ = engine.many(20, "--health-cmd", "true")
    try:
        time.sleep(5)
        ours = [
            pid for role, pids in processes(engine).items() if role != "workload" for pid in pids
        ]
        before, begun = spent(ours, children=True), time.monotonic()
        time.sleep(WATCHED)
        share = (spent(ours, children=True) - before) / (time.monotonic() - begun) * 100
    finally:
        engine.drop(*names, *probed)
    print(
        f"100 idle, 20 with health checks\n  {share:.2f} % of a core; under 1: {verdict(share, 1)}"
    )


def adoption(engine: Engine) -> None:
    """The daemon of two hundred killed, and at once the next command, until it has answered."""
    names, _ = engine.many(200)
    found = []
    try:
        for _ in range(5):
            time.sleep(1)
            (daemon,) = processes(engine)["daemon"]
            os.kill(daemon, signal.SIGKILL)
            begun = time.perf_counter()
            listed = engine.text("ps", "-q").split()
            found.append(time.perf_counter() - begun)
            if len(listed) != len(names):
                print(f"  {len(listed)} of {len(names)} were adopted", file=sys.stderr)
    finally:
        engine.drop(*names)
    low, middle, high = quartiles(found)
    print(
        f"adopting 200 (kill -9 of the daemon, then ps)\n"
        f"  {middle:.2f} s ({low:.2f} to {high:.2f}); under 1.5: {verdict(middle, 1.5)}"
    )


def events(_engine: Engine) -> None:
    """The daemon's events and its HTTP in a process of their own (eventsource), heard by fifty clients."""
    with tempfile.TemporaryDirectory(prefix="dockpy-bench-events-") as folder:
        path = f"{folder}/socket"
        source = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.eventsource", path, str(RATE), str(SECONDS)],
            cwd=TOP,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert source.stdin and source.stdout
        source.stdout.readline()
        heard = _Listeners(path)
        before, begun = spent([source.pid]), time.perf_counter()
        source.stdin.close()
        whole = heard.listen(RATE * SECONDS, SECONDS * 6)
        taken = time.perf_counter() - begun
        busy = (spent([source.pid]) - before) / taken * 100
        source.terminate()
        source.wait(30)
        source.stdout.close()
    rate = RATE * SECONDS / taken
    kept = "met" if whole == LISTENERS and rate >= RATE / 1.1 else "NOT MET"
    print(
        f"{RATE} events a second to {LISTENERS} listeners\n  {whole} heard all, {rate:.0f} a second, "
        f"{busy:.0f} % of a core; at least {RATE} to all {LISTENERS}: {kept}"
    )


class _Listeners:
    def __init__(self, path: str) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._heard: dict[int, int] = {}
        self._cut: dict[int, bytes] = {}  # the end of what has come: a mark may be in two pieces
        for _ in range(LISTENERS):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            sock.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += sock.recv(1)
            self._sockets[sock.fileno()] = sock
            self._heard[sock.fileno()] = 0
            self._cut[sock.fileno()] = b""
            self._poll.register(sock, select.EPOLLIN)

    def listen(self, wanted: int, within: float) -> int:
        """How many of them have heard so many events."""
        end = time.monotonic() + within
        open_ = set(self._sockets)
        while open_ and time.monotonic() < end:
            for fd, _ in self._poll.poll(1.0):
                got = self._sockets[fd].recv(1 << 18)
                data = self._cut[fd] + got
                self._heard[fd] += data.count(MARK)
                self._cut[fd] = data[1 - len(MARK) :]
                if not got or self._heard[fd] >= wanted:
                    self._poll.unregister(fd)
                    open_.discard(fd)
        for sock in self._sockets.values():
            sock.close()
        return sum(count >= wanted for count in self._heard.values())
