"""The disk that the lab's machines start from: made once by debootstrap, kept in build/dist/lab.

Its name is a digest of this recipe, so a change makes another one. Needs root, debootstrap, mke2fs and a
mirror of Debian: the one that DOCKPY_LAB_MIRROR names, else apt's own, else debootstrap's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "dist" / "lab"
SUITE = "bookworm"
PACKAGES = (
    "busybox-static,dbus,dbus-user-session,kmod,libpam-systemd,linux-image-cloud-amd64,login,passwd,procps,python3,"
    "systemd,systemd-sysv,udev,uidmap"
)
# name, uid, has subordinate ids
USERS = (("single", 1000, False), ("ranged", 1001, True))
# Nothing that competes with a test, or asks the network.
MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer "
    "getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service systemd-timesyncd.service"
).split()
SIZE = "4G"
PORT = "dockpy.lab"
UNIT = f"""[Unit]
Description=the lab's hand
After=multi-user.target systemd-logind.service dbus.service
[Service]
ExecStart=/usr/bin/python3 /lab/agent.py /dev/virtio-ports/{PORT}
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Image:
    kernel: Path
    initrd: Path
    disk: Path


def image() -> Image:
    """Makes it if need be: two minutes and 700 MB."""
    recipe = b"".join((HERE / name).read_bytes() for name in ("image.py", "agent.py"))
    folder = CACHE / hashlib.sha256(recipe).hexdigest()[:16]
    found = Image(folder / "vmlinuz", folder / "initrd", folder / "disk.raw")
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.iterdir():
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix="dockpy-lab-") as work:
            root = Path(work) / "root"
            _bootstrap(root)
            _furnish(root)
            made = Path(tempfile.mkdtemp(dir=CACHE, prefix="new-"))
            shutil.copy(next((root / "boot").glob("vmlinuz-*")), made / "vmlinuz")
            shutil.copy(next((root / "boot").glob("initrd.img-*")), made / "initrd")
            _run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(made / "disk.raw"), SIZE)
        made.rename(folder)
    return found


def _bootstrap(root: Path) -> None:
    mirror = os.environ.get("DOCKPY_LAB_MIRROR") or _apt_mirror()
    _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root),
         *([mirror] if mirror else []))  # fmt: skip


def _apt_mirror() -> str | None:
    """The first mirror that this host's apt is told of, in either form of its lists."""
    apt = Path("/etc/apt")
    lists = [apt / "sources.list", *sorted(apt.glob("sources.list.d/*"))]
    for path in (path for path in lists if path.is_file()):
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] in (["deb"], ["URIs:"]):
                for word in words[1:]:
                    if word.startswith(("http://", "https://")):
                        return word
    return None


def _furnish(root: Path) -> None:
    (root / "etc/fstab").write_text("/dev/vda / ext4 rw,relatime 0 1\n")
    (root / "etc/hostname").write_text("lab\n")
    (root / "etc/subuid").write_text("ranged:100000:65536\n")
    (root / "etc/subgid").write_text("ranged:100000:65536\n")
    (root / "lab").mkdir()
    shutil.copy(HERE / "agent.py", root / "lab/agent.py")
    (root / "etc/systemd/system/lab.service").write_text(UNIT)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    (wants / "lab.service").symlink_to("/etc/systemd/system/lab.service")
    for unit in MASKED:
        path = root / "etc/systemd/system" / unit
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")
    for name, uid, ranged in USERS:
        _run("chroot", str(root), "useradd", "-m", "-u", str(uid), "-s", "/bin/sh", name)
        for file in ("subuid", "subgid"):  # useradd gives to everybody
            path = root / "etc" / file
            lines = [
                line for line in path.read_text().splitlines() if not line.startswith(f"{name}:")
            ]
            lines += [f"{name}:100000:65536"] if ranged else []
            path.write_text("".join(line + "\n" for line in lines))
    for leftover in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / leftover, ignore_errors=True)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        raise OSError(f"{argv[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
