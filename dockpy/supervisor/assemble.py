"""From a record to the OCI spec of its container. Pure: everything that had to be looked up comes in `Surroundings`.

The tables are docker's: mounts, devices, masked paths, capabilities, seccomp; what a tier cannot have
(gid 5 for ptys with a single uid, sysfs in the host's network) is left out here, so that the runtime
only does what the spec says.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dockpy.api.container import ExecCreate
from dockpy.oci import capabilities
from dockpy.oci.seccomp import Seccomp
from dockpy.oci.spec import Capabilities, Linux, Mount, Namespace, Process, Rlimit, Root, Spec, User
from dockpy.supervisor import served
from dockpy.supervisor.records import Record

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Surroundings:
    """What assemble does not find in the record."""

    bundle: str
    tier: str
    root: tuple[Mount, ...]  # from the snapshotter
    namespaces: Mapping[str, str]  # type → /proc/<pid>/ns/… of a container that is joined
    etc_files: Mapping[str, str]  # path in the container → path here
    seccomp: Seccomp | None
    group: str = ""  # the container's control group, made already
    on_host: bool = False  # not in a user namespace: root is the host's
    host_devices: tuple[str, ...] = ()  # for a privileged container
    host_ipc: tuple[str, ...] = ()  # those of /dev/mqueue and /dev/shm that this host has


def assemble(record: Record, around: Surroundings) -> Spec:
    host = record.host_config
    return Spec(
        process=_process(record),
        root=Root(path=f"{around.bundle}/rootfs", readonly=host.readonly_rootfs),
        hostname=None if host.uts_mode == "host" else record.config.hostname,
        domainname=record.config.domainname or None,
        mounts=_mounts(record, around),
        linux=Linux(
            namespaces=_namespaces(record, around),
            sysctl=_sysctls(record, around),
            seccomp=around.seccomp,
            masked_paths=host.masked_paths or (),
            readonly_paths=host.readonly_paths or (),
            cgroups_path=around.group or None,
        ),
        annotations=_annotations(record, around),
    )


def _annotations(record: Record, around: Surroundings) -> dict[str, str]:
    values = {**record.host_config.annotations, "io.dockpy.tier": around.tier}
    if record.config.user:
        values["io.dockpy.user"] = record.config.user
    if record.host_config.group_add:
        values["io.dockpy.groups"] = ",".join(record.host_config.group_add)
    if record.host_config.init:
        values["io.dockpy.init"] = "true"
    # Anonymous volumes are part of the container's own tree in this build (see served).
    if record.config.volumes:
        values["io.dockpy.folders"] = "\0".join(record.config.volumes)
    return values


def _process(record: Record) -> Process:
    host, config = record.host_config, record.config
    caps = capabilities.adjust(host.cap_add, host.cap_drop, host.privileged)
    return Process(
        args=record.argv,
        cwd=config.working_dir or "/",
        env=environment(record),
        user=User(),
        terminal=config.tty,
        capabilities=Capabilities(bounding=caps, effective=caps, permitted=caps),
        rlimits=tuple(
            Rlimit(
                type=f"RLIMIT_{limit.name.upper()}",
                hard=_limit(limit.hard),
                soft=_limit(limit.soft),
            )
            for limit in host.ulimits
        ),
        no_new_privileges=no_new_privileges(host.security_opt),
        oom_score_adj=host.oom_score_adj or None,
    )


def _limit(value: int) -> int:
    return value if value >= 0 else (1 << 64) - 1


def no_new_privileges(options: Sequence[str]) -> bool:
    return ("no-new-privileges", "true") in [
        served.split_security_option(option) for option in options
    ]


def seccomp_choice(options: Sequence[str], *, privileged: bool) -> str:
    """`unconfined`, `builtin`, or the text of a profile."""
    for option in options:
        key, value = served.split_security_option(option)
        if key == "seccomp":
            return value
    return "unconfined" if privileged else "builtin"


def environment(record: Record) -> tuple[str, ...]:
    base = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={record.config.hostname}"]
    if record.config.tty:
        base.append("TERM=xterm")
    return replaced(base, record.config.env)


def replaced(base: Sequence[str], env: Sequence[str]) -> tuple[str, ...]:
    """docker's ReplaceOrAppendEnvValues: KEY=value replaces or is appended, KEY alone removes."""
    values = {entry.partition("=")[0]: entry for entry in base}
    for entry in env:
        key, equals, _ = entry.partition("=")
        if equals:
            values[key] = entry
        else:
            values.pop(key, None)
    return tuple(values.values())


def exec_process(record: Record, request: ExecCreate) -> Process:
    """A further process with the container's own confinement."""
    host = record.host_config
    caps = (
        capabilities.NAMES
        if request.privileged
        else capabilities.adjust(host.cap_add, host.cap_drop, host.privileged)
    )
    base = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={record.config.hostname}"]
    if request.tty:
        base.append("TERM=xterm")
    return Process(
        args=request.cmd or (),
        cwd=request.working_dir or record.config.working_dir or "/",
        env=replaced(replaced(base, record.config.env), request.env),
        user=User(username=request.user or record.config.user or None),
        terminal=request.tty,
        capabilities=Capabilities(bounding=caps, effective=caps, permitted=caps),
        no_new_privileges=no_new_privileges(host.security_opt),
        oom_score_adj=host.oom_score_adj or None,
    )


# -------------------------------------------------------------------------------- namespaces


def _namespaces(record: Record, around: Surroundings) -> tuple[Namespace, ...]:
    host = record.host_config
    shared = {
        "pid": host.pid_mode == "host",
        "ipc": host.ipc_mode == "host",
        "uts": host.uts_mode == "host",
        "network": host.network_mode == "host",
        "cgroup": host.cgroupns_mode == "host",
    }
    kinds = ["mount", *(kind for kind, same in shared.items() if not same)]
    return tuple(Namespace(type=kind, path=around.namespaces.get(kind)) for kind in kinds)


def _sysctls(record: Record, around: Surroundings) -> dict[str, str]:
    values: dict[str, str] = {}
    if record.host_config.network_mode != "host" and "network" not in around.namespaces:
        values["net.ipv4.ip_unprivileged_port_start"] = "0"
        if around.on_host:
            values["net.ipv4.ping_group_range"] = "0 2147483647"
    values.update(
        {name.replace("/", "."): value for name, value in record.host_config.sysctls.items()}
    )
    return values


# ------------------------------------------------------------------------------------ mounts


def shown_mounts(record: Record, etc_files: Mapping[str, str]) -> tuple[Mount, ...]:
    """What lies in a stopped container's tree for whoever looks at its files: what is bound there."""
    user_mounts = [
        mount for mount in (*_binds(record), *_requested(record)) if mount.type == "bind"
    ]
    taken = {mount.destination for mount in user_mounts}
    etc = [
        Mount(destination=path, type="bind", source=source, options=("rbind", "rprivate"))
        for path, source in etc_files.items()
        if path not in taken
    ]
    return (*etc, *sorted(user_mounts, key=lambda mount: mount.destination.count("/")))


def _mounts(record: Record, around: Surroundings) -> tuple[Mount, ...]:
    host = record.host_config
    user_mounts = sorted(
        (*_binds(record), *_requested(record), *_tmpfs(record)),
        key=lambda mount: mount.destination.count("/"),
    )
    taken = {mount.destination for mount in user_mounts}
    system = [mount for mount in _system(record, around) if mount.destination not in taken]
    etc = [
        Mount(destination=path, type="bind", source=source, options=("rbind", "rprivate"))
        for path, source in around.etc_files.items()
        if path not in taken
    ]
    devices = [
        Mount(
            destination=device.path_in_container or device.path_on_host,
            type="bind",
            source=device.path_on_host,
            options=("rbind", "rprivate"),
        )
        for device in host.devices
    ]
    devices += [
        Mount(destination=path, type="bind", source=path, options=("bind", "rprivate"))
        for path in around.host_devices
    ]
    return (*around.root, *system, *devices, *etc, *user_mounts)


def _system(record: Record, around: Surroundings) -> list[Mount]:
    host = record.host_config
    read = "rw" if host.privileged else "ro"
    plain = ("nosuid", "noexec", "nodev")
    # gid 5 (tty) has no mapping with a single uid: devpts would refuse it.
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")
    mounts = [
        Mount(destination="/proc", type="proc", source="proc", options=plain),
        Mount(
            destination="/dev",
            type="tmpfs",
            source="tmpfs",
            options=("nosuid", "strictatime", "mode=755", "size=65536k"),
        ),
        Mount(
            destination="/dev/pts",
            type="devpts",
            source="devpts",
            options=pts if around.tier == "single" else (*pts, "gid=5"),
        ),
    ]
    # sysfs belongs to a network namespace: only who owns that may mount it.
    if host.network_mode == "host" and around.tier != "root":
        # Recursive: the user's own control groups lie below it, and are the user's to write.
        deep = () if host.privileged else ("rro",)
        mounts.append(
            Mount(
                destination="/sys",
                type="bind",
                source="/sys",
                options=("rbind", "rprivate", "rnosuid", "rnodev", "rnoexec", *deep, read),
            )
        )
    else:
        mounts.append(
            Mount(destination="/sys", type="sysfs", source="sysfs", options=(*plain, read))
        )
        mounts.append(
            Mount(
                destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=(*plain, read)
            )
        )
    if host.ipc_mode == "host":
        shared = (Mount(p, "bind", p, ("rbind", "rprivate")) for p in around.host_ipc)
        return [*mounts, *shared]
    mounts.append(Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=plain))
    if host.ipc_mode != "none":
        shm = (*plain, "mode=1777", f"size={host.shm_size}")
        mounts.append(Mount(destination="/dev/shm", type="tmpfs", source="shm", options=shm))
    return mounts


def _binds(record: Record) -> list[Mount]:
    mounts = []
    for text in record.host_config.binds:
        source, target, words = served.split_bind(text)
        spread = next((word for word in words if word in served.PROPAGATIONS), "rprivate")
        options = ("rbind", spread, *(("rro", "ro") if "ro" in words else ()))
        mounts.append(
            Mount(destination=_normal(target), type="bind", source=source, options=options)
        )
    return mounts


def _requested(record: Record) -> list[Mount]:
    mounts = []
    for mount in record.host_config.mounts:
        if mount.type == "tmpfs":
            options = ["nosuid", "nodev", "noexec"]
            if mount.tmpfs_options is not None and mount.tmpfs_options.size_bytes:
                options.append(f"size={mount.tmpfs_options.size_bytes}")
            if mount.tmpfs_options is not None and mount.tmpfs_options.mode:
                options.append(f"mode={mount.tmpfs_options.mode:o}")
            if mount.read_only:
                options.append("ro")
            mounts.append(
                Mount(
                    destination=_normal(mount.target),
                    type="tmpfs",
                    source="tmpfs",
                    options=tuple(options),
                )
            )
            continue
        bind = mount.bind_options
        words = ["bind" if bind is not None and bind.non_recursive else "rbind"]
        words.append(served.propagation(bind.propagation if bind is not None else ""))
        if mount.read_only:
            words.append("ro")
            if bind is None or not (bind.non_recursive or bind.read_only_non_recursive):
                words.append("rro")
        mounts.append(
            Mount(
                destination=_normal(mount.target),
                type="bind",
                source=mount.source,
                options=tuple(words),
            )
        )
    return mounts


_OPPOSITES = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}


def _tmpfs(record: Record) -> list[Mount]:
    mounts = []
    for target, text in record.host_config.tmpfs.items():
        wanted = [word for word in text.split(",") if word]
        base = [
            word
            for word in ("noexec", "nosuid", "nodev")
            if not any(_OPPOSITES.get(w) == word for w in wanted)
        ]
        options = (*base, *(word for word in wanted if word not in base))
        mounts.append(
            Mount(destination=_normal(target), type="tmpfs", source="tmpfs", options=options)
        )
    return mounts


def _normal(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


# --------------------------------------------------------------------------------- /etc files


def hosts_file(record: Record, host_text: str | None) -> str:
    """`host_text`: the host's own file, for a container in the host's network."""
    if host_text is not None:
        text = host_text if host_text.endswith("\n") or not host_text else host_text + "\n"
    else:
        text = (
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
            "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        )
    for entry in record.host_config.extra_hosts:
        name, _, address = entry.partition(":")
        text += f"{address.strip('[]')}\t{name}\n"
    if host_text is None:
        name = record.config.hostname
        full = f"{name}.{record.config.domainname} {name}" if record.config.domainname else name
        text += f"127.0.0.1\t{full}\n"
    return text


def resolv_file(record: Record, host_text: str) -> str:
    """The host's servers, without those that only the host's own loopback reaches (unless it is shared)."""
    host = record.host_config
    shared = host.network_mode == "host"
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in host_text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        if words[0] == "nameserver" and len(words) > 1:
            if shared or not (words[1].startswith("127.") or words[1] == "::1"):
                servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
    servers = list(host.dns) or servers or ([] if shared else ["8.8.8.8", "8.8.4.4"])
    search = [word for word in host.dns_search if word != "."] if host.dns_search else search
    options = list(host.dns_options) or options
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)
