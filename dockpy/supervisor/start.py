"""From a record to a running process: files, spec, one message to the keeper, and what the shim says first.

Clients that attached before go along in the same message, so no byte is lost. Once the shim has said
`started`, the exit path owns everything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import trio

from dockpy import files, ids
from dockpy.errors import Conflict, DockpyError, InvalidParameter, NotModified, sentence
from dockpy.oci import capabilities, seccomp
from dockpy.oci.seccomp import Seccomp
from dockpy.oci.seccomp_default import default_profile
from dockpy.oci.spec import Spec
from dockpy.shim.protocol import Attachment, Failed, LogConfig, ShimLink, Start, Started
from dockpy.supervisor import logoptions, served
from dockpy.supervisor.assemble import (
    Surroundings,
    assemble,
    hosts_file,
    resolv_file,
    seccomp_choice,
)
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.limits import writes
from dockpy.supervisor.records import Record, changed
from dockpy.supervisor.shims import Shim
from dockpy.supervisor.signals import stop_signal, stop_timeout


class _Told(DockpyError):
    """A failed start whose code and text are in the container's state."""


class StartFailed(_Told):
    """The container could not be started (docker's code 128)."""


class CommandUnusable(_Told, InvalidParameter):
    """What should run is not there or cannot be run (126, 127)."""


async def start(containers: Containers, container: Container, detach_keys: str = "") -> None:
    """Returns when the container's process runs."""
    async with container.lock:
        if container.removing:
            raise Conflict("container is marked for removal and cannot be started")
        if container.state.paused:
            raise Conflict("cannot start a paused container, try unpause instead")
        if container.state.live:
            raise NotModified(f"container {container.name} is already running")
        attached = bool(container.pending)
        served.check_lease(container.id, container.record.host_config, attached=attached)
        # A start by hand is the first of a new row.
        container.state = changed(container.state, restarts=0, delay=0.0)
        await _begin(containers, container, detach_keys)


async def start_again(containers: Containers, container: Container) -> None:
    """The next start of a restarting container; nothing when it is that no longer."""
    async with container.lock:
        if container.state.restarting and not container.removing:
            await _begin(containers, container, "")


async def _begin(containers: Containers, container: Container, detach_keys: str) -> None:
    try:
        await _start(containers, container, detach_keys)
    except _Told:
        raise
    except (DockpyError, OSError) as error:
        containers.failed(container, 128, sentence(error))
        raise


async def _start(containers: Containers, container: Container, detach_keys: str) -> None:
    record = container.record
    bundle = containers.folders.bundle(record.id)
    try:
        log = logoptions.settings(record, bundle)
    except InvalidParameter as error:
        container.drop_pending()
        text = f"failed to initialize logging driver: {error}"
        raise _failed(containers, container, text, 128) from None
    _make_group(containers, container)
    around = _surroundings(containers, record, bundle)
    spec = assemble(record, replace(around, group=container.state.group))
    config = json.dumps(spec.to_json(), separators=(",", ":")).encode()
    files.write_atomic(f"{bundle}/config.json", config, durable=False)
    for name in ("exit.json", "shim.json", "paused.json"):
        files.unlink_if_exists(f"{bundle}/{name}")
    clients = container.take_pending()
    if detach_keys:
        for client in clients:
            client.detach_keys = client.detach_keys or detach_keys
    try:
        message = _start_message(
            containers, record, bundle, log, tuple(client.attachment() for client in clients), spec
        )
        first = await _ask_keeper(containers, container, message)
    finally:
        for client in clients:
            client.close()
    if isinstance(first, Started):
        return
    container.shim = None
    if isinstance(first, Failed):
        raise _failed(containers, container, first.message, first.code)
    raise _failed(
        containers, container, "the container's shim ended before it had started the process", 128
    )


def _make_group(containers: Containers, container: Container) -> None:
    """The control group of this run, where it is to have one."""
    host, groups = container.record.host_config, containers.groups
    limits = writes(host, containers.can)
    path = ""
    if groups.always or (groups.version and (limits or host.cgroup_parent)):
        path = groups.path(container.id, host.cgroup_parent)
        groups.make(path, limits)
    container.state = changed(container.state, group=path)


def _failed(containers: Containers, container: Container, message: str, code: int) -> DockpyError:
    """Notes the failure as docker does: the container stays created, with the code and the text."""
    of_runtime = message.startswith("failed to create shim task: ")
    text = f"failed to create task for container: {message}" if of_runtime else message
    containers.failed(container, code, text)
    return CommandUnusable(text) if code in (126, 127) else StartFailed(text)


async def _ask_keeper(containers: Containers, container: Container, message: Start) -> object:
    """The shim's first word: Started, Failed, or None when it ended."""
    for _ in range(3):
        send, receive = trio.open_memory_channel[object](4)
        link, theirs = ShimLink.pair()
        try:
            born = await containers.keeper.start_shim(message, theirs)
        except BaseException:
            link.close()
            raise
        finally:
            os.close(theirs)
        if born is not None:
            os.close(born.pidfd)  # the end of the link tells the same
        container.starting = send
        try:
            containers.follow(container, Shim(link, containers.teller(container)))
            first = await receive.receive()
        finally:
            container.starting = None
        if first is None and born is None:
            continue  # the keeper died with the message: the next one gets it
        return first
    return None


def _start_message(
    containers: Containers,
    record: Record,
    bundle: str,
    log: LogConfig,
    attachments: tuple[Attachment, ...],
    spec: Spec,
) -> Start:
    config, host = record.config, record.host_config
    height_width = (
        host.console_size if len(host.console_size) == 2 and any(host.console_size) else None
    )
    return Start(
        id=record.id,
        bundle=bundle,
        socket=f"{containers.host.run}/s/{record.id[:16]}.sock",
        boot=containers.host.boot,
        log=log,
        tty=config.tty,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        console_size=(height_width[0], height_width[1]) if height_width else None,
        attachments=attachments,
        timeout=host.timeout / 1e9,
        lease=host.lease,
        stop_signal=stop_signal(config),
        stop_timeout=stop_timeout(config),
        fresh=_fresh(spec),
        group=spec.linux.cgroups_path,
    )


def _fresh(spec: Spec) -> tuple[str, ...]:
    if spec.linux.namespace("user") is not None:
        return ()
    return tuple(entry.type for entry in spec.linux.namespaces if entry.path is None)


# ------------------------------------------------------------------------------ surroundings


def _surroundings(containers: Containers, record: Record, bundle: str) -> Surroundings:
    _check_devices(record)
    host = record.host_config
    return Surroundings(
        bundle=bundle,
        tier=containers.host.tier,
        root=containers.snapshots.mounts(record.id),
        namespaces=_joined(containers, record),
        etc_files=_etc_files(containers, record, bundle),
        seccomp=_seccomp(record),
        on_host=containers.host.tier == "root" and ids.mapped_ids() == (1 << 32) - 1,
        host_devices=_host_devices() if host.privileged else (),
        host_ipc=tuple(p for p in ("/dev/mqueue", "/dev/shm") if os.path.isdir(p)),
    )


def _check_devices(record: Record) -> None:
    """Told here by its name: as a bind it would be told as one."""
    for device in record.host_config.devices:
        if not os.path.exists(device.path_on_host):
            raise InvalidParameter(
                "error gathering device information while adding custom device "
                f'"{device.path_on_host}": no such file or directory'
            )


def _joined(containers: Containers, record: Record) -> Mapping[str, str]:
    host = record.host_config
    found = {}
    for kind, file, mode in (
        ("network", "net", host.network_mode),
        ("pid", "pid", host.pid_mode),
        ("ipc", "ipc", host.ipc_mode),
    ):
        reference = served.same_namespace(mode)
        if reference is None:
            continue
        peer = containers.get(reference)
        if not peer.state.running:
            raise served.not_running(kind, peer.id)
        found[kind] = f"/proc/{peer.state.pid}/ns/{file}"
    return found


def _etc_files(containers: Containers, record: Record, bundle: str) -> Mapping[str, str]:
    """Writes hostname, hosts and resolv.conf; a container in another's network shares that one's."""
    peer = served.same_namespace(record.host_config.network_mode)
    if peer is not None:
        folder = containers.folders.bundle(containers.get(peer).id)
        return {f"/etc/{name}": f"{folder}/{name}" for name in ("hostname", "hosts", "resolv.conf")}
    shared = record.host_config.network_mode == "host"
    texts = {
        "hostname": record.config.hostname + "\n",
        "hosts": hosts_file(record, _host_text("/etc/hosts") if shared else None),
        "resolv.conf": resolv_file(record, _host_text("/etc/resolv.conf")),
    }
    for name, text in texts.items():
        _write_plain(f"{bundle}/{name}", text)
    return {f"/etc/{name}": f"{bundle}/{name}" for name in texts}


def _write_plain(path: str, text: str) -> None:
    """In place: the container may have written to the same file, and a bind mount keeps the inode anyway."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _host_text(path: str) -> str:
    try:
        return files.read_bytes(path, 1 << 20).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _host_devices() -> tuple[str, ...]:
    """Device nodes of the host that we may open; terminals stay outside."""
    found = []
    for entry in os.scandir("/dev"):
        if (
            entry.is_symlink()
            or entry.is_dir()
            or entry.name.startswith(("tty", "pts", "console", "vcs", "ptmx"))
        ):
            continue
        if entry.name in ("null", "zero", "full", "random", "urandom") or entry.is_file():
            continue
        if os.access(entry.path, os.R_OK):
            found.append(entry.path)
    return tuple(sorted(found))


def _seccomp(record: Record) -> Seccomp | None:
    host = record.host_config
    choice = seccomp_choice(host.security_opt, privileged=host.privileged)
    if choice == "unconfined":
        return None
    caps = capabilities.adjust(host.cap_add, host.cap_drop, host.privileged)
    return _resolved_profile(choice, tuple(sorted(caps)))


@dataclass(frozen=True)
class _Machine:
    arch: str
    kernel: tuple[int, int]


@lru_cache(maxsize=1)
def _machine() -> _Machine:
    uname = os.uname()
    return _Machine(seccomp.go_arch(uname.machine), seccomp.kernel_version(uname.release))


@lru_cache(maxsize=32)
def _resolved_profile(choice: str, caps: tuple[str, ...]) -> Seccomp | None:
    """Pure in its arguments; kept, since most containers ask for the same."""
    if choice in ("builtin", ""):
        profile: seccomp.Profile | None = default_profile()
    else:
        profile = seccomp.parse_profile(choice)
    if profile is None:
        return None
    machine = _machine()
    return seccomp.resolve(profile, caps, machine.arch, machine.kernel)


def check_profile(record: Record) -> None:
    """InvalidParameter at create for a profile that does not parse."""
    try:
        _seccomp(record)
    except ValueError as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: {error}") from None
