from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dockpy.oci.spec import Mount, Namespace

from .bundles import MOUNTS, NAMESPACES, Box, failure

Inside = Callable[[Callable[[], Any]], Any]


def test_output_error_and_exit_code_come_through(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("echo out; echo err >&2; exit 7"))
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")


def test_the_first_process_is_pid_1_of_its_own_namespaces(box: Box, inside: Inside) -> None:
    ours = {
        kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt", "net", "ipc", "uts")
    }
    result = inside(lambda: box.sh("echo $$; hostname; ls -l /proc/self/ns"))
    lines = result.out.split("\n")
    assert lines[:2] == ["1", "box"]
    for kind, link in ours.items():
        assert link not in result.out, kind


def test_loopback_is_up(box: Box, inside: Inside) -> None:
    assert "LOOPBACK,UP" in inside(lambda: box.sh("ip link show lo")).out


def test_devices_work_and_the_links_are_there(box: Box, inside: Inside) -> None:
    script = (
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 5 /dev/urandom | wc -c;"
        "ls /dev; for l in fd stdin ptmx; do readlink /dev/$l; done; echo x > /dev/full"
    )
    result = inside(lambda: box.sh(script))
    names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert result.out.split()[:2] == ["3", "5"]
    assert set(result.out.split()[2:-3]) | {"core"} == set(names.split())
    assert result.out.split()[-3:] == ["/proc/self/fd", "/proc/self/fd/0", "pts/ptmx"]
    assert "No space left" in result.err


def test_masked_paths_are_empty_and_readonly_ones_refuse(box: Box, inside: Inside) -> None:
    script = "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/domainname"
    result = inside(lambda: box.sh(script))
    assert result.out.split() == ["0", "0"]
    assert "Read-only file system" in result.err


def test_sysfs_and_cgroup_are_readonly(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("touch /sys/x; mkdir /sys/fs/cgroup/x; ls /sys/class/net"))
    assert result.err.count("Read-only file system") == 2
    assert "lo" in result.out


def test_write_below_a_readonly_root_fails_with_erofs(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("echo x > /probe || touch /dev/shm/ok", readonly=True))
    assert (result.code, result.out) == (0, "")
    assert "Read-only file system" in result.err


def test_a_missing_working_folder_is_made_also_below_a_readonly_root(
    box: Box, inside: Inside
) -> None:
    assert inside(lambda: box.run("pwd", cwd="/a/b/c", readonly=True)).out == "/a/b/c\n"


def test_folders_that_an_annotation_names_are_made_likewise(box: Box, inside: Inside) -> None:
    folders = {"io.dockpy.folders": "/v/w\0/tmp"}
    result = inside(lambda: box.sh("ls -d /v/w /tmp", annotations=folders, readonly=True))
    assert (result.code, result.out) == (0, "/tmp\n/v/w\n")
    folders = {"io.dockpy.folders": "/bin/busybox"}
    spec = box.spec("true", annotations=folders)
    error = inside(lambda: str(failure(lambda: box.start(spec))))
    assert 'making the folder of volume "/bin/busybox"' in error


def test_nothing_is_left_of_a_failed_start(box: Box, inside: Inside) -> None:
    def work() -> Any:
        before = len(os.listdir("/proc/self/fd"))
        failure(lambda: box.start(box.spec("nope")))
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        mounted = str(box.base) in Path("/proc/self/mountinfo").read_text()
        return len(os.listdir("/proc/self/fd")) - before, mounted

    assert inside(work) == (0, False)


def test_binds_are_made_with_their_targets(box: Box, inside: Inside) -> None:
    def work() -> Any:
        (box.base / "folder").mkdir()
        (box.base / "folder" / "x").write_text("folder\n")
        (box.base / "file").write_text("file\n")
        mounts = (
            Mount("/new/folder", "bind", f"{box.base}/folder", ("rbind", "rprivate")),
            Mount("/new/file", "bind", f"{box.base}/file", ("rbind", "ro")),
        )
        script = "cat /new/folder/x /new/file; echo y > /new/folder/y; echo z > /new/file"
        result = box.sh(script, mounts=mounts)
        return result, (box.base / "folder" / "y").read_text(), (box.base / "file").read_text()

    result, written, kept = inside(work)
    assert result.out == "folder\nfile\n"
    assert (written, kept) == ("y\n", "file\n")
    assert "Read-only file system" in result.err


def test_a_recursive_readonly_bind_covers_what_is_mounted_below(box: Box, inside: Inside) -> None:
    from dockpy.linux.mounts import mount

    def work() -> Any:
        (box.base / "folder" / "below").mkdir(parents=True)
        mount("tmpfs", f"{box.base}/folder/below", "tmpfs")
        return [
            box.sh(
                "touch /m/x; touch /m/below/x && echo written",
                mounts=(Mount("/m", "bind", f"{box.base}/folder", ("rbind", option)),),
            ).out
            for option in ("ro", "rro")
        ]

    assert inside(work) == ["written\n", ""]


def test_a_bind_without_source_and_one_of_the_wrong_kind(box: Box, inside: Inside) -> None:
    def work() -> Any:
        cases = (
            Mount("/m", "bind", f"{box.base}/none", ("rbind",)),
            Mount("/etc/passwd", "bind", str(box.base), ("rbind",)),
            Mount("/etc", "bind", f"{box.base}/lower/etc/passwd", ("rbind",)),
        )
        return [
            failure(partial(box.start, box.spec("true", mounts=(mount,)))).message
            for mount in cases
        ]

    missing, on_file, on_folder = inside(work)
    assert "bind source path does not exist: " in missing
    for text in (on_file, on_folder):
        assert "not a directory: Are you trying to mount a directory onto a file" in text


def test_tmpfs_takes_its_options_and_the_mode_of_what_it_covers(box: Box, inside: Inside) -> None:
    mounts = (
        Mount("/tmp", "tmpfs", "tmpfs", ("noexec", "nosuid", "nodev", "size=64k")),
        Mount("/fresh", "tmpfs", "tmpfs", ("mode=0700",)),
    )
    script = "stat -c %a /tmp /fresh; dd if=/dev/zero of=/tmp/x bs=1k count=100 2>/dev/null; wc -c < /tmp/x"
    assert inside(lambda: box.sh(script, mounts=mounts)).out.split() == ["1777", "700", "65536"]


def test_sysctls_of_its_namespaces_are_set_and_others_refused(box: Box, inside: Inside) -> None:
    def work() -> Any:
        good = {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.msgmax": "4242"}
        script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"
        result = box.sh(script, sysctl=good)
        errors = [
            failure(partial(box.start, box.spec("true", sysctl=bad, namespaces=names))).message
            for bad, names in (
                ({"kernel.panic": "1"}, NAMESPACES),
                ({"net.ipv4.ip_forward": "1"}, NAMESPACES.replace("network", "")),
                ({"net.no.such": "1"}, NAMESPACES),
                ({"net.//.kernel/panic": "1"}, NAMESPACES),
            )
        ]
        return result, errors

    result, errors = inside(work)
    assert result.out.split() == ["0", "4242"]
    assert 'sysctl "kernel.panic" is not in a separate kernel namespace' in errors[0]
    assert 'sysctl "net.ipv4.ip_forward" not allowed in host network namespace' in errors[1]
    assert "open sysctl net.no.such file: no such file or directory" in errors[2]
    assert "open sysctl" in errors[3]


def test_the_host_s_network_and_ipc(box: Box, inside: Inside) -> None:
    kinds = "pid mount uts cgroup"
    result = inside(lambda: box.sh("readlink /proc/self/ns/net; ls /sys/class", namespaces=kinds))
    assert result.out.split("\n")[0] == os.readlink("/proc/self/ns/net")
    assert "net" in result.out.split()
    assert inside(lambda: box.sh("touch /sys/x", namespaces=kinds)).code == 1


def test_the_host_s_pid_namespace(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("readlink /proc/self/ns/pid", namespaces=NAMESPACES[4:]))
    assert result.out.strip() == os.readlink("/proc/self/ns/pid")


def test_another_container_s_namespaces_are_joined_by_path(box: Box, inside: Inside) -> None:
    def work() -> Any:
        first = box.start(box.spec("sleep", "100"))
        pid = first.created.pid
        spec = box.spec("sh", "-c", "ps; echo $$; hostname; ls -l /proc/self/ns")
        joined = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}
        kinds = tuple(Namespace(kind, f"/proc/{pid}/ns/{name}") for kind, name in joined.items())
        linux = replace(spec.linux, namespaces=(*kinds, Namespace("mount"), Namespace("cgroup")))
        result = box.start(replace(spec, linux=linux, hostname="other")).finish()
        links = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in joined.values()}
        os.kill(pid, 9)
        first.finish()
        return result, links

    result, links = inside(work)
    assert "sleep 100" in result.out
    assert "\nbox\n" in result.out
    for link in links.values():
        assert link in result.out


def test_a_user_namespace_of_its_own(box: Box, inside: Inside) -> None:
    def work() -> Any:
        base = tuple(mount for mount in MOUNTS)
        return box.sh(
            "id -u; cat /proc/self/uid_map", namespaces="user " + NAMESPACES, base_mounts=base
        )

    result = inside(work)
    assert result.out.split()[:2] == ["0", "0"]
    assert result.out.split()[-1] == "1"


def test_a_read_only_specification_root_without_overlay(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("sh", "-c", "echo x > /probe; cat /etc/passwd | wc -l")
        mounts = (Mount("/", "bind", str(box.lower), ("rbind", "rw")), *MOUNTS)
        return box.start(replace(spec, mounts=mounts)).finish()

    assert inside(work).out.split() == ["2"]
    assert (box.lower / "probe").read_text() == "x\n"


def test_a_user_by_name_number_and_group(box: Box, inside: Inside) -> None:
    def work() -> Any:
        return [
            box.sh(
                f"id -u; id -g; echo $HOME; touch /tmp/{user} && stat -c %u /tmp/{user}",
                annotations={"io.dockpy.user": user},
            ).out.split()
            for user in ("bob", "1000", "4321", "bob:tape", "root")
        ]

    bob, number, unknown, taped, root = inside(work)
    assert bob == ["1000", "1001", "/home/bob", "1000"]
    assert number == bob
    assert unknown == ["4321", "0", "/", "4321"]
    assert taped == ["1000", "26", "/home/bob", "1000"]
    assert root == ["0", "0", "/root", "0"]


def test_an_unknown_user_is_docker_s_error(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("true", annotations={"io.dockpy.user": "nobody-here"})
        return failure(lambda: box.start(spec)).message

    assert "unable to find user nobody-here: no matching entries in passwd file" in inside(work)


def test_a_terminal_of_the_container_s_own(box: Box, inside: Inside) -> None:
    def work() -> Any:
        script = "tty; stty size; ls /dev/console; echo x > /dev/tty; test -t 0 && echo yes"
        return box.terminal(box.spec("sh", "-c", script), (33, 77))

    code, output = inside(work)
    assert code == 0
    assert output.replace("\r\n", " ").split() == [
        "/dev/pts/0",
        "33",
        "77",
        "/dev/console",
        "x",
        "yes",
    ]


def test_what_the_host_mounts_later_arrives_in_a_slave_bind_only(box: Box, inside: Inside) -> None:
    from dockpy.linux.mounts import MS_REC, MS_SHARED, mount

    def work() -> Any:
        base = box.base / "hostside"
        base.mkdir()
        mount("tmpfs", str(base), "tmpfs")
        (base / "late").mkdir()
        mount(None, "/", None, MS_REC | MS_SHARED)
        mounts = tuple(
            Mount(f"/{kind}", "bind", str(base), ("rbind", kind)) for kind in ("rslave", "rprivate")
        )
        running = box.start(
            box.spec("sh", "-c", "read x; ls /rslave/late /rprivate/late", mounts=mounts)
        )
        mount("tmpfs", str(base / "late"), "tmpfs")
        (base / "late" / "file").touch()
        return running.finish(b"go\n").out.split()

    assert inside(work) == ["/rprivate/late:", "/rslave/late:", "file"]
