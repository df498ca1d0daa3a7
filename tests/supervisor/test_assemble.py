"""From record to spec, as pure values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dockpy.api.container import ContainerCreate, ExecCreate
from dockpy.oci.capabilities import DEFAULT
from dockpy.oci.image import ContainerConfig
from dockpy.oci.spec import Mount, Spec
from dockpy.supervisor.assemble import (
    Surroundings,
    assemble,
    exec_process,
    hosts_file,
    replaced,
    resolv_file,
    seccomp_choice,
)
from dockpy.supervisor.create import host_defaults, merged
from dockpy.supervisor.records import Record

ROOT = Mount("/", "overlay", "overlay", ("lowerdir=/l",))


def record(host: dict[str, object] | None = None, **config: object) -> Record:
    request = ContainerCreate.from_json({"Image": "x", "Cmd": ["sh"], "HostConfig": host, **config})
    return Record(
        id="f" * 64,
        name="n",
        created="",
        image_id="sha256:" + "0" * 64,
        config=replace(merged(request.config, ContainerConfig()), hostname="box"),
        host_config=host_defaults(request.host_config),
        endpoints={},
        snapshotter="copy",
    )


def around(tier: str = "single", **values: object) -> Surroundings:
    base = Surroundings("/b", tier, (ROOT,), {}, {"/etc/hosts": "/b/hosts"}, None)
    return replace(base, **values)  # type: ignore[arg-type]  # names of its own fields


def spec_of(host: dict[str, object] | None = None, tier: str = "single", **config: object) -> Spec:
    return assemble(record(host, **config), around(tier))


def mount_at(spec: Spec, destination: str) -> Mount:
    (found,) = [mount for mount in spec.mounts if mount.destination == destination]
    return found


def test_the_root_comes_first_and_the_users_mounts_last() -> None:
    spec = spec_of({"Binds": ["/a:/x/y", "/b:/x"]})
    assert spec.mounts[0] is ROOT
    assert [mount.destination for mount in spec.mounts[-2:]] == ["/x", "/x/y"]


def test_a_users_mount_replaces_dockers_own() -> None:
    spec = spec_of({"Binds": ["/a:/etc/hosts"], "Tmpfs": {"/dev/shm": "size=1m"}})
    assert mount_at(spec, "/etc/hosts").source == "/a"
    assert "size=1m" in mount_at(spec, "/dev/shm").options


def test_a_read_only_bind_is_so_below_too() -> None:
    options = mount_at(spec_of({"Binds": ["/a:/x:ro"]}), "/x").options
    assert {"rbind", "rprivate", "ro", "rro"} <= set(options)


def test_tmpfs_options_are_merged_over_dockers() -> None:
    assert mount_at(spec_of({"Tmpfs": {"/t": "exec,size=5"}}), "/t").options == (
        "nosuid",
        "nodev",
        "exec",
        "size=5",
    )


@pytest.mark.parametrize(("tier", "there"), [("single", False), ("subuid", True), ("root", True)])
def test_pts_has_the_tty_group_where_that_is_mapped(tier: str, there: bool) -> None:
    assert ("gid=5" in mount_at(spec_of(tier=tier), "/dev/pts").options) is there


def test_sys_of_the_hosts_network_is_bound_where_sysfs_cannot_be_mounted() -> None:
    bound = mount_at(spec_of({"NetworkMode": "host"}), "/sys")
    assert bound.type == "bind"
    # The user's own control groups lie below it.
    assert {"rro", "rnosuid", "rnodev", "rnoexec"} <= set(bound.options)
    assert mount_at(spec_of({"NetworkMode": "host"}, tier="root"), "/sys").type == "sysfs"
    assert mount_at(spec_of(), "/sys").type == "sysfs"


def test_namespaces_follow_the_modes() -> None:
    def kinds(host: dict[str, object]) -> set[str]:
        return {namespace.type for namespace in spec_of(host).linux.namespaces}

    every = {"mount", "pid", "ipc", "uts", "network", "cgroup"}
    assert kinds({}) == every
    assert kinds({"NetworkMode": "host"}) == every - {"network"}
    assert kinds({"PidMode": "host", "IpcMode": "host"}) == every - {"pid", "ipc"}


def test_the_name_given_beside_the_hosts_network_is_the_containers_own() -> None:
    assert spec_of({"NetworkMode": "host"}).hostname == "box"
    assert spec_of({"UTSMode": "host"}).hostname is None


def test_pings_are_everybodys_only_where_root_is_the_hosts() -> None:
    name = "net.ipv4.ping_group_range"
    assert name in assemble(record(), around("root", on_host=True)).linux.sysctl
    assert name not in assemble(record(), around("root")).linux.sysctl


def test_another_containers_namespace_is_joined_by_path() -> None:
    spec = assemble(
        record({"NetworkMode": "container:c"}), around(namespaces={"network": "/proc/7/ns/net"})
    )
    network = spec.linux.namespace("network")
    assert network is not None
    assert network.path == "/proc/7/ns/net"
    assert "net.ipv4.ip_unprivileged_port_start" not in spec.linux.sysctl


def test_capabilities_are_dockers_fourteen() -> None:
    caps = spec_of().process.capabilities
    assert caps is not None
    assert set(caps.bounding) == set(caps.effective) == set(caps.permitted) == set(DEFAULT)
    assert caps.inheritable == caps.ambient == ()


def test_privileged_lifts_paths_and_seccomp() -> None:
    spec = spec_of({"Privileged": True})
    assert spec.linux.masked_paths == spec.linux.readonly_paths == ()
    assert seccomp_choice((), privileged=True) == "unconfined"
    assert seccomp_choice(("seccomp=builtin",), privileged=True) == "builtin"


def test_the_environment_begins_with_dockers_and_ends_with_the_users() -> None:
    env = spec_of(Env=["A=1", "HOSTNAME=mine"], Tty=True).process.env
    assert env[0].startswith("PATH=/usr/local/sbin")
    assert env[1:] == ("HOSTNAME=mine", "TERM=xterm", "A=1")


def test_a_key_alone_removes_a_variable() -> None:
    assert replaced(["A=1", "B=2"], ["A", "C=3"]) == ("B=2", "C=3")


def test_users_and_groups_go_as_they_were_said() -> None:
    spec = spec_of({"GroupAdd": ["audio", "7"]}, User="nobody:nogroup")
    assert spec.annotations["io.dockpy.user"] == "nobody:nogroup"
    assert spec.annotations["io.dockpy.groups"] == "audio,7"


def test_volumes_of_nobody_are_folders_of_the_container_itself() -> None:
    spec = spec_of(Volumes={"/a": {}, "/b/c": {}})
    assert spec.annotations["io.dockpy.folders"] == "/a\0/b/c"


def test_an_exec_has_the_containers_confinement_and_its_own_user() -> None:
    made = record({"SecurityOpt": ["no-new-privileges"]}, User="one", Env=["A=1"])
    process = exec_process(made, ExecCreate(cmd=("id",), user="two", env=("B=2",)))
    assert process.user.username == "two"
    assert process.no_new_privileges
    assert {"A=1", "B=2"} <= set(process.env)
    assert exec_process(made, ExecCreate(cmd=("id",))).user.username == "one"


def test_the_spec_survives_json() -> None:
    spec = spec_of({"Ulimits": [{"Name": "nofile", "Soft": 8, "Hard": 9}], "Init": True})
    assert Spec.from_json(spec.to_json()) == spec


IMAGE = ContainerConfig(
    entrypoint=("/entry",),
    cmd=("default",),
    env=("PATH=/image", "A=image"),
    user="u",
    labels={"a": "image"},
)


def test_the_image_speaks_where_the_request_is_silent() -> None:
    request = ContainerCreate.from_json({"Image": "x", "Env": ["A=mine"], "Labels": {"b": "mine"}})
    config = merged(request.config, IMAGE)
    assert (*(config.entrypoint or ()), *(config.cmd or ())) == ("/entry", "default")
    assert config.env == ("A=mine", "PATH=/image")
    assert config.user == "u"
    assert config.labels == {"a": "image", "b": "mine"}


def test_an_entrypoint_of_ones_own_drops_the_images_command() -> None:
    config = merged(ContainerCreate.from_json({"Entrypoint": ["/mine"]}).config, IMAGE)
    assert (config.entrypoint, config.cmd) == (("/mine",), None)
    cleared = merged(ContainerCreate.from_json({"Entrypoint": [""], "Cmd": ["ls"]}).config, IMAGE)
    assert (cleared.entrypoint, cleared.cmd) == (None, ("ls",))


def test_a_container_finds_its_own_name() -> None:
    assert hosts_file(record(), None).endswith("127.0.0.1\tbox\n")
    assert "10.0.0.1\tdb\n" in hosts_file(record({"ExtraHosts": ["db:10.0.0.1"]}), None)


def test_servers_that_only_the_host_reaches_are_left_out() -> None:
    text = "nameserver 127.0.0.53\nnameserver 10.1.1.1\nsearch a.b\noptions edns0\n"
    assert resolv_file(record(), text) == "nameserver 10.1.1.1\nsearch a.b\noptions edns0\n"
    assert resolv_file(record(), "nameserver 127.0.0.53\n").startswith("nameserver 8.8.8.8\n")
    assert resolv_file(record({"NetworkMode": "host"}), text).startswith("nameserver 127.0.0.53\n")
    assert (
        resolv_file(record({"Dns": ["9.9.9.9"], "DnsSearch": ["."]}), text)
        == "nameserver 9.9.9.9\noptions edns0\n"
    )
