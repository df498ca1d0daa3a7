"""What the daemon tells about itself, and dockpy's own endpoints."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

import trio

import dockpy
from dockpy.api import query as q
from dockpy.api.times import now
from dockpy.config import SETTINGS, RegistrySettings
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.handlers.sizes import sizes_of
from dockpy.daemon.router import Handler
from dockpy.errors import InvalidParameter, NotFound
from dockpy.images.shared import lent_size, shared_sizes
from dockpy.linux import cgroup
from dockpy.oci.platform import host_platform
from dockpy.paths import Paths
from dockpy.supervisor import inspect
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.limits import Support

LOG_TAIL = 1 << 20


@dataclass(frozen=True)
class About:
    """What does not change while the daemon lives."""

    paths: Paths
    tier: str
    build: str
    run: str
    registry: RegistrySettings = SETTINGS


class SystemHandlers:
    def __init__(
        self,
        containers: Containers,
        about: About,
        connections: Callable[[], int],
        keeper_pid: Callable[[], int],
        stop: Callable[[bool], None],
    ) -> None:
        self._containers = containers
        self._about = about
        self._connections = connections
        self._keeper_pid = keeper_pid
        self._stop = stop

    def table(self) -> dict[str, Handler]:
        return {
            "ping": self.ping,
            "version": self.version,
            "info": self.info,
            "disk_usage": self.disk_usage,
            "dockpy_status": self.status,
            "dockpy_stop": self.stop,
            "dockpy_logs": self.logs,
        }

    async def ping(self, exchange: Exchange) -> None:
        headers = [
            ("Builder-Version", "1"),
            ("Swarm", "inactive"),
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
        await exchange.reply(
            200, b"" if exchange.request.method == "HEAD" else b"OK", headers=headers
        )

    async def version(self, exchange: Exchange) -> None:
        host = host_platform()
        kernel = os.uname().release
        details = {
            "ApiVersion": dockpy.API_VERSION,
            "Arch": host.architecture,
            "BuildTime": "",
            "Experimental": "false",
            "GitCommit": self._about.build,
            "GoVersion": f"python{platform.python_version()}",
            "KernelVersion": kernel,
            "MinAPIVersion": dockpy.MIN_API_VERSION,
            "Os": "linux",
        }
        await exchange.reply(
            200,
            {
                "Platform": {"Name": f"dockpy {dockpy.__version__}"},
                "Components": [
                    {"Name": "Engine", "Version": dockpy.__version__, "Details": details}
                ],
                "Version": dockpy.__version__,
                "ApiVersion": dockpy.API_VERSION,
                "MinAPIVersion": dockpy.MIN_API_VERSION,
                "GitCommit": self._about.build,
                "GoVersion": details["GoVersion"],
                "Os": "linux",
                "Arch": host.architecture,
                "KernelVersion": kernel,
                "BuildTime": "",
            },
        )

    async def info(self, exchange: Exchange) -> None:
        containers = self._containers
        everyone = containers.all()
        paused = containers.paused()
        running = containers.running() - paused
        images = await trio.to_thread.run_sync(containers.images.list, limiter=containers.disk)
        uname = os.uname()
        can, groups = containers.can, containers.groups
        security = ["name=seccomp,profile=builtin", "name=cgroupns"]
        if self._about.tier != "root":
            security.append("name=rootless")
        await exchange.reply(
            200,
            {
                "ID": containers.host.boot,
                "Containers": len(everyone),
                "ContainersRunning": running,
                "ContainersPaused": paused,
                "ContainersStopped": len(everyone) - running - paused,
                "Images": len(images),
                "Driver": containers.snapshots.name,
                "DriverStatus": [["Tier", self._about.tier]],
                "DockerRootDir": self._about.paths.store,
                "SystemStatus": None,
                "Plugins": {
                    "Volume": ["local"],
                    "Network": ["bridge", "host", "none"],
                    "Authorization": None,
                    "Log": ["json-file", "local", "none"],
                },
                "MemoryLimit": can.memory,
                "SwapLimit": can.swap,
                "CpuCfsPeriod": can.cfs,
                "CpuCfsQuota": can.cfs,
                "CPUShares": can.shares,
                "CPUSet": can.cpuset,
                "PidsLimit": can.pids,
                "OomKillDisable": can.oom_disable,
                "IPv4Forwarding": True,
                "Debug": False,
                "NFd": _descriptors(),
                "NGoroutines": 1,
                "SystemTime": now(),
                "LoggingDriver": "local",
                "CgroupDriver": "cgroupfs" if groups.version else "none",
                "CgroupVersion": str(groups.version or cgroup.version() or 1),
                "NEventsListener": containers.events.listeners,
                "KernelVersion": uname.release,
                "OperatingSystem": _distribution(),
                "OSVersion": "",
                "OSType": "linux",
                "Architecture": uname.machine,
                "IndexServerAddress": "https://index.docker.io/v1/",
                "RegistryConfig": _registries(self._about.registry),
                "NCPU": len(os.sched_getaffinity(0)),
                "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
                "GenericResources": None,
                "HttpProxy": _masked(self._about.registry.http_proxy),
                "HttpsProxy": _masked(self._about.registry.https_proxy),
                "NoProxy": self._about.registry.no_proxy,
                "Name": uname.nodename,
                "Labels": [],
                "ExperimentalBuild": False,
                "ServerVersion": dockpy.__version__,
                "Runtimes": {"dockpy": {"path": "dockpy"}, "runc": {"path": "dockpy"}},
                "DefaultRuntime": "dockpy",
                "Swarm": {
                    "NodeID": "",
                    "NodeAddr": "",
                    "LocalNodeState": "inactive",
                    "ControlAvailable": False,
                    "Error": "",
                    "RemoteManagers": None,
                },
                "LiveRestoreEnabled": True,
                "Isolation": "",
                "InitBinary": "dockpy-init",
                "ContainerdCommit": {"ID": ""},
                "RuncCommit": {"ID": self._about.build},
                "InitCommit": {"ID": self._about.build},
                "SecurityOptions": security,
                "CDISpecDirs": [],
                "Warnings": _warnings(can),
            },
        )

    async def disk_usage(self, exchange: Exchange) -> None:
        containers = self._containers

        def usage() -> dict[str, object]:
            images = containers.images.list()
            shared = shared_sizes(images, containers.snapshots)
            summaries = []
            for image in images:
                summary = containers.images.summary(image)
                summary["Containers"] = len(containers.using(str(image.id)))
                summary["SharedSize"] = shared[str(image.id)]
                lent = lent_size(image, containers.snapshots)
                summary["Size"] = summary["VirtualSize"] = image.size - lent
                summaries.append(summary)
            snapshots = containers.snapshots
            return {
                "LayersSize": sum(snapshots.chain_takes(chain) for chain in snapshots.chains()),
                "Images": summaries,
                "Containers": [],
                "Volumes": [],
                "BuildCache": [],
            }

        result = await trio.to_thread.run_sync(usage, limiter=containers.disk)
        rows = []
        for container in containers.all():
            try:
                sizes = await sizes_of(containers, container)
            except NotFound:
                continue  # it is being removed
            rows.append(inspect.summary(container, sizes))
        await exchange.reply(200, {**result, "Containers": rows, "BuilderSize": 0})

    # -------------------------------------------------------------------------------- ours

    async def status(self, exchange: Exchange) -> None:
        processes: list[dict[str, object]] = [
            {"role": "keeper", "pid": self._keeper_pid()},
            {"role": "daemon", "pid": os.getpid()},
        ]
        for container in self._containers.all():
            shim = self._containers.shim_pid(container)
            if shim:
                processes.append({"role": "shim", "pid": shim, "container": container.id})
        await exchange.reply(
            200,
            {
                "version": dockpy.__version__,
                "build": self._about.build,
                "tier": self._about.tier,
                "store": self._about.paths.store,
                "run": self._about.run,
                "snapshotter": self._containers.snapshots.name,
                "containers": {
                    "all": len(self._containers.all()),
                    "running": self._containers.running(),
                },
                "connections": self._connections(),
                "processes": processes,
            },
        )

    async def stop(self, exchange: Exchange) -> None:
        await exchange.reply(204)
        self._stop(q.boolean(exchange.query, "successor"))

    async def logs(self, exchange: Exchange) -> None:
        try:
            fd = os.open(self._about.paths.daemon_log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            await exchange.reply(200, b"", headers=[("Content-Type", "text/plain; charset=utf-8")])
            return
        try:
            length = os.fstat(fd).st_size
            data = os.pread(fd, LOG_TAIL, max(length - LOG_TAIL, 0))
        finally:
            os.close(fd)
        tail = (
            q.integer(exchange.query, "tail", 0)
            if exchange.query.get("tail", "all") != "all"
            else 0
        )
        if tail < 0:
            raise InvalidParameter("tail must not be negative")
        if tail:
            data = b"".join(data.splitlines(keepends=True)[-tail:])
        await exchange.reply(200, data, headers=[("Content-Type", "text/plain; charset=utf-8")])


def _warnings(can: Support) -> list[str]:
    """docker's, and one for all of them where nothing can be limited."""
    if not can.version:
        return [
            "WARNING: no control group of our own: memory, cpu and pids limits are not enforced, "
            "and pause stops each process by SIGSTOP"
        ]
    kinds = (
        (can.memory, "memory limit"),
        (can.swap, "swap limit"),
        (can.pids, "pids limit"),
        (can.cfs, "cpu cfs quota"),
        (can.cfs, "cpu cfs period"),
        (can.shares, "cpu shares"),
        (can.cpuset, "cpuset"),
    )
    return [f"WARNING: No {kind} support" for there, kind in kinds if not there]


def _registries(settings: RegistrySettings) -> dict[str, object]:
    """As docker tells its own; loopback is always insecure."""
    ranges = [text for text in settings.insecure if "/" in text]
    hosts = {text: (False, False) for text in settings.insecure if "/" not in text}
    return {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *ranges],
        "IndexConfigs": {
            name: {
                "Name": name,
                "Mirrors": list(settings.mirrors) if official else [],
                "Secure": secure,
                "Official": official,
            }
            for name, (secure, official) in {"docker.io": (True, True), **hosts}.items()
        },
        "Mirrors": list(settings.mirrors),
    }


def _masked(proxy: str) -> str:
    """Without the password that it may hold."""
    head, at, host = proxy.rpartition("@")
    scheme, separator, _ = head.partition("://")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at else proxy


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _distribution() -> str:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith("PRETTY_NAME="):
                        return line.partition("=")[2].strip().strip('"')
        except OSError:
            continue
    return "Linux"


def keeper_pid_of(raw: Mapping[str, object] | None) -> int:
    keeper = (raw or {}).get("keeper")
    pid = keeper.get("pid") if isinstance(keeper, dict) else 0
    return pid if isinstance(pid, int) else 0
