"""A machine of the lab: QEMU with a disk of its own over the image, and a line to the agent in it.

KVM where a kernel gets through it (nested or software KVM may exist and not carry a stock kernel),
else emulation, about ten times slower. `cut()` is the power cut: SIGKILL of QEMU. All that the guest
had not written is lost with its memory, and with `journal=True` also what it had written but not
flushed: the disk is made again from QEMU's log of its writes, up to the last flush.
"""

from __future__ import annotations

import base64
import json
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.e2e.engines import Result
from tests.lab.image import CACHE, PORT, Image

MEMORY = 1024  # MiB
BOOT = 240.0  # seconds; emulation on a busy machine takes 60


class Machine:
    """`folder` holds its disk, sockets and console log; a machine is booted, cut or stopped, booted."""

    def __init__(self, image: Image, folder: Path, *, memory: int = MEMORY, cpus: int = 2) -> None:
        self._image = image
        self._folder = folder
        self._memory = memory
        self._cpus = cpus
        self._qemu: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._buffer = b""
        self.disk = folder / "disk.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(self.disk)],
            check=True,
        )  # fmt: skip

    @property
    def console(self) -> str:
        path = self._folder / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    def boot(self, *, journal: bool = False) -> None:
        assert self._qemu is None, "it runs"
        path = self._folder / "line"
        path.unlink(missing_ok=True)
        drive = ["-drive", f"file={self.disk},format=qcow2,if=virtio,cache=writeback"]
        self._journal = self._folder / "writes" if journal else None
        if self._journal is not None:
            self._journal.write_bytes(b"")
            drive = _logged_drive(self.disk, self._journal)
        self._qemu = subprocess.Popen(
            [*_qemu(self._image, accelerator(self._image), self._folder / "console"),
             "-m", str(self._memory), "-smp", str(self._cpus), *drive,
             "-device", "virtio-serial-pci", "-chardev", f"socket,id=lab,path={path},server=on,wait=off",
             "-device", f"virtserialport,chardev=lab,name={PORT}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + BOOT
        while not path.exists():
            assert self._qemu.poll() is None and time.monotonic() < deadline, self._died()
            time.sleep(0.02)
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(path))
        self._buffer = b""
        assert self._receive(BOOT) == {"ready": True}

    def _died(self) -> str:
        assert self._qemu is not None and self._qemu.stderr is not None
        return f"QEMU: {self._qemu.stderr.read()!r}; console: {self.console[-2000:]}"

    def run(self, *argv: str, input: bytes = b"", timeout: float = 120) -> Result:
        """As root, in a system service."""
        reply = self._ask(
            {"argv": argv, "input": base64.b64encode(input).decode(), "timeout": timeout},
            timeout + 30,
        )
        return Result(reply["code"], reply["out"], reply["err"])

    def shell(self, script: str, *, user: str | None = None, timeout: float = 120) -> Result:
        """`user`: in a login session of theirs (pam_systemd), which ends with the script."""
        argv = ["sh", "-c", script] if user is None else ["su", "-l", user, "-c", script]
        return self.run(*argv, timeout=timeout)

    def user_service(self, user: str, script: str, *, timeout: float = 120) -> Result:
        """As a service of the user's own systemd: there control groups are delegated. Needs linger."""
        inner = f"systemd-run --user --quiet --wait --pipe --collect -p Delegate=yes sh -c {shlex.quote(script)}"
        return self.shell(inner, user=user, timeout=timeout)

    def put(self, path: str, data: bytes, mode: int = 0o755) -> None:
        self._ask({"put": path, "data": base64.b64encode(data).decode(), "mode": mode}, 120)

    def cut(self) -> None:
        """No power, from one moment to the next; `boot()` finds the disk as it was."""
        assert self._qemu is not None
        self._qemu.send_signal(signal.SIGKILL)
        self._ended()
        if self._journal is not None:
            replay(self._journal, self._image.disk, self.disk)

    def stop(self) -> None:
        """As a person would: everything is told to end, the disk is left clean."""
        assert self._qemu is not None
        self._send({"argv": ["systemctl", "poweroff"], "input": "", "timeout": 60})
        try:
            self._qemu.wait(BOOT)
        finally:
            self._qemu.kill()
            self._ended()

    def close(self) -> None:
        if self._qemu is not None:
            self._qemu.kill()
            self._ended()

    def _ended(self) -> None:
        assert self._qemu is not None
        self._qemu.wait()
        if self._qemu.stderr is not None:
            self._qemu.stderr.close()
        self._qemu = None
        if self._line is not None:
            self._line.close()
            self._line = None

    def _ask(self, request: dict[str, object], timeout: float) -> dict[str, Any]:
        self._send(request)
        return self._receive(timeout)

    def _send(self, request: dict[str, object]) -> None:
        assert self._line is not None, "it does not run"
        self._line.sendall(json.dumps(request).encode() + b"\n")

    def _receive(self, timeout: float) -> dict[str, Any]:
        assert self._line is not None and self._qemu is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            readable = select.select([self._line], [], [], max(left, 0))[0]
            assert readable, f"no answer for {timeout:.0f} s; console: {self.console[-2000:]}"
            data = self._line.recv(1 << 16)
            if not data:
                self._qemu.wait(10)
                raise AssertionError(self._died())
            self._buffer += data
        one, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(one)
        return answer


def _qemu(image: Image, accelerator: str, console: Path) -> list[str]:
    cpu = "host" if accelerator == "kvm" else "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"
    return [
        "qemu-system-x86_64", "-accel", accelerator, "-cpu", cpu, "-nodefaults", "-display", "none", "-no-reboot",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd),
        "-append", "root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off quiet systemd.show_status=false",
        "-serial", f"file:{console}",
    ]  # fmt: skip


def accelerator(image: Image) -> str:
    """`kvm` or `tcg`: found by trying, kept for as long as this host runs."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    note = CACHE / "accelerator"
    known = note.read_text().split() if note.exists() else []
    if len(known) == 2 and known[0] == boot_id:
        return known[1]
    console = CACHE / "trial"
    console.write_bytes(b"")
    command = _qemu(image, "kvm", console)
    command[command.index("-append") + 1] = "console=ttyS0 panic=-1 earlyprintk=ttyS0"
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as trial:
        deadline = time.monotonic() + 15
        found = False
        while not found and trial.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            found = b"Linux version" in console.read_bytes()
        trial.kill()
    answer = "kvm" if found else "tcg"
    note.write_text(f"{boot_id} {answer}\n")
    return answer


# ------------------------------------------------------------------------------- the power cut


def _logged_drive(disk: Path, journal: Path) -> list[str]:
    return [
        "-blockdev", f"driver=file,filename={journal},node-name=writes",
        "-blockdev", f"driver=qcow2,node-name=disk,file.driver=file,file.filename={disk}",
        "-blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=writes,log-append=off,log-sector-size=512",
        "-device", "virtio-blk-pci,drive=logged",
    ]  # fmt: skip


FLUSH, DISCARD = 1, 4


def replay(journal: Path, base: Path, disk: Path) -> None:
    """`disk`, as a device without a battery keeps it: the writes of `journal` up to its last flush.

    The format is dm-log-writes' (Documentation/admin-guide/device-mapper/log-writes.rst), here for a
    disk that had no writes before this boot.
    """
    raw = disk.with_suffix(".raw")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(base), str(raw)], check=True)
    with journal.open("rb") as log, raw.open("r+b") as target:
        _, _, count, sector = struct.unpack("<QQQI", log.read(28))
        entries = []
        log.seek(sector)
        for _ in range(count):
            head = log.read(sector)
            if len(head) < 32:
                break
            start, sectors, flags, length = struct.unpack("<QQQQ", head[:32])
            entries.append((start, sectors, flags, log.tell()))
            if not flags & DISCARD:
                log.seek(sectors * sector, 1)
            assert length == 0
        last = max((i for i, entry in enumerate(entries) if entry[2] & FLUSH), default=-1)
        for start, sectors, flags, offset in entries[: last + 1]:
            if sectors and not flags & DISCARD:
                log.seek(offset)
                target.seek(start * sector)
                target.write(log.read(sectors * sector))
    disk.unlink()
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(raw), str(disk)],
        check=True,
    )


def lacks() -> str | None:
    """What this host has not and the lab needs."""
    for program, package in (
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-img", "qemu-utils"),
        ("debootstrap", "debootstrap"),
        ("mke2fs", "e2fsprogs"),
    ):
        if shutil.which(program) is None:
            return f"{program} (Debian: {package})"
    return None if Path("/dev/kvm").exists() else "/dev/kvm"
