"""Past escapes of container runtimes, each tried on ours: named by its CVE, told in one sentence."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dockpy.oci.spec import Device, Mount, Process, User
from dockpy.runtime.create import create

from .bundles import MOUNTS, Box, failure

Inside = Callable[[Callable[[], Any]], Any]


def process(*args: str, **fields: Any) -> Process:
    return Process(args=args, env=("PATH=/bin",), **fields)


def secret(box: Box) -> Path:
    """A file of the host that nothing in a container may read or change."""
    path = box.base / "secret"
    if not path.exists():
        path.write_text("host\n")
    return path


def test_cve_2019_5736_the_interpreter_is_never_seen_from_inside(box: Box, inside: Inside) -> None:
    """/proc/<pid>/exe of an exec'ing runtime gave the container its binary to overwrite."""
    script = (
        "while :; do for d in /proc/[0-9]*; do l=$(readlink $d/exe 2>/dev/null); case $l in "
        "''|/bin/busybox) ;; *) echo $l >> /seen;; esac; done; done"
    )

    def work() -> Any:
        spec = box.spec("sh", "-c", script)
        running = box.start(spec)
        for _ in range(30):
            box.exec(spec, process("true"), running.created.pid).finish()
        os.kill(running.created.pid, 9)
        running.finish()
        return (box.base / "upper" / "seen").exists()

    assert inside(work) is False


def test_cve_2019_5736_bash_as_entrypoint_of_proc_self_exe(box: Box, inside: Inside) -> None:
    """exec of /proc/self/exe ran the runtime's own binary again, inside."""
    message = inside(lambda: failure(lambda: box.start(box.spec("/proc/self/exe", "-V"))).message)
    assert "exec" in message


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_cve_2019_19921_a_proc_that_is_a_symlink_is_refused(
    box: Box, inside: Inside, name: str
) -> None:
    """With /proc a symlink into a volume, what was masked and confined lay elsewhere."""
    (box.lower / name).rmdir()
    (box.lower / name).symlink_to("/tmp")
    message = inside(lambda: failure(lambda: box.start(box.spec("true"))).message)
    assert "must be mounted on ordinary directory" in message


def test_cve_2019_16884_a_volume_on_proc_does_not_turn_off_confinement(
    box: Box, inside: Inside
) -> None:
    """A volume over /proc made the runtime write its security settings into a fake."""

    def work() -> Any:
        (box.base / "fake" / "self" / "attr").mkdir(parents=True)
        (box.base / "fake" / "sys" / "kernel").mkdir(parents=True)
        (box.base / "fake" / "sys" / "kernel" / "msgmax").write_text("untouched")
        mounts = (Mount("/proc", "bind", f"{box.base}/fake", ("rbind",)),)
        spec = box.spec(
            "sh", "-c", "id -u; ls /proc", mounts=mounts, sysctl={"kernel.msgmax": "4242"}
        )
        spec = replace(spec, process=replace(spec.process, oom_score_adj=500))
        result = box.start(spec).finish()
        return result.out.split(), (box.base / "fake/sys/kernel/msgmax").read_text()

    assert inside(work) == (["0", "self", "sys"], "untouched")


def test_cve_2021_30465_a_target_swapped_for_a_symlink_stays_inside(
    box: Box, inside: Inside
) -> None:
    """Two containers share a volume; one exchanges a mount's target for a symlink to / meanwhile."""

    def work() -> Any:
        shared = box.base / "shared"
        (shared / "real").mkdir(parents=True)
        (box.base / "evil").mkdir()
        (box.base / "evil" / "marker").write_text("x")
        (shared / "out").symlink_to(str(box.base / "host"))
        (box.base / "host").mkdir()
        stop = False

        def swap() -> None:
            while not stop:
                try:
                    (shared / "real").rename(shared / "kept")
                    (shared / "out").rename(shared / "real")
                    (shared / "real").rename(shared / "out")
                    (shared / "kept").rename(shared / "real")
                except OSError:
                    pass

        # A process, not a thread: the runtime's caller is single-threaded.
        swapper = os.fork()
        if swapper == 0:
            threading.Timer(20, lambda: os._exit(0)).start()
            swap()
        mounts = (
            Mount("/v", "bind", str(shared), ("rbind",)),
            Mount("/v/real", "bind", f"{box.base}/evil", ("rbind",)),
        )
        seen = []
        for _ in range(40):
            try:
                box.run("true", mounts=mounts)
            except Exception:
                continue
            seen += os.listdir(box.base / "host")
        os.kill(swapper, 9)
        os.waitpid(swapper, 0)
        return seen

    assert inside(work) == []


@pytest.mark.parametrize("link", ["/etc", "/../../../etc", "../../../../etc"])
def test_bind_targets_through_symlinks_are_made_inside_the_root(
    box: Box, inside: Inside, link: str
) -> None:
    (box.lower / "link").symlink_to(link)

    def work() -> Any:
        mounts = (Mount("/link/made", "bind", str(secret(box)), ("rbind", "ro")),)
        return box.sh("cat /etc/made", mounts=mounts).out

    assert inside(work) == "host\n"
    assert not os.path.exists("/etc/made")


def test_a_dangling_symlink_as_target_makes_nothing_outside(box: Box, inside: Inside) -> None:
    (box.lower / "file").symlink_to(f"{box.base}/created-by-a-symlink")
    mounts = (Mount("/file", "bind", "/etc/hostname", ("rbind",)),)

    def work() -> Any:
        try:
            box.run("true", mounts=mounts)
        except Exception:
            pass
        return (box.base / "created-by-a-symlink").exists()

    assert inside(work) is False


def test_cve_2023_27561_a_proc_below_a_symlink_is_refused(box: Box, inside: Inside) -> None:
    """The regression of 2019-19921: /proc given through a symlinked parent."""
    (box.lower / "way").symlink_to("/tmp")
    base = (Mount("/way/proc", "proc", "proc"), *MOUNTS[1:])

    def work() -> Any:
        return failure(partial(box.start, box.spec("true", base_mounts=base))).message

    assert "must be mounted on ordinary directory" in inside(work)


def test_cve_2023_28642_masked_paths_hold_whatever_the_image_links(
    box: Box, inside: Inside
) -> None:
    (box.lower / "dev" / "null").symlink_to("/etc/passwd")
    result = inside(lambda: box.sh("wc -c < /proc/keys; wc -c < /dev/null; ls -l /dev/null"))
    assert result.out.split()[:2] == ["0", "0"]
    assert result.out.split()[2].startswith("c")


@pytest.mark.parametrize("fd", [3, 4, 5, 6, 7, 8, 9, 10])
def test_cve_2024_21626_a_working_folder_by_a_leaked_descriptor(
    box: Box, inside: Inside, fd: int
) -> None:
    """cwd=/proc/self/fd/7 was a folder of the host, and the way out from there is ../../.."""

    def work() -> Any:
        leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        os.dup2(leaked, fd + 200, inheritable=True)
        results = []
        for path in (f"/proc/self/fd/{fd}", f"/proc/self/fd/{fd + 200}", f"/proc/1/fd/{fd}/../.."):
            try:
                results.append(box.run("ls", "-a", ".", cwd=path).out)
            except Exception as error:
                results.append(str(error))
        return results

    for text in inside(work):
        assert "chdir to cwd" in text or "boot" not in text.split()
        assert "dockpy-runtime" not in text


def test_cve_2024_21626_exec_with_the_same_working_folder(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("sleep", "100")
        running = box.start(spec)
        texts = [
            failure(
                partial(
                    box.exec, spec, process("pwd", cwd=f"/proc/self/fd/{fd}"), running.created.pid
                )
            ).message
            for fd in range(3, 12)
        ]
        (box.base / "upper" / "link").symlink_to("/proc/self/cwd")
        os.kill(running.created.pid, 9)
        running.finish()
        return texts

    for text in inside(work):
        assert "chdir to cwd" in text


def test_cve_2024_45310_no_empty_file_or_folder_is_made_outside(box: Box, inside: Inside) -> None:
    """A symlinked parent, exchanged in time, had runc make targets on the host."""
    (box.lower / "a").symlink_to(f"{box.base}/outside")

    def work() -> Any:
        (box.base / "outside").mkdir()
        mounts = (
            Mount("/a/b/c", "bind", str(box.lower), ("rbind",)),
            Mount("/a/file", "bind", "/etc/hostname", ("rbind",)),
        )
        try:
            box.run("true", mounts=mounts)
        except Exception:
            pass
        return os.listdir(box.base / "outside")

    assert inside(work) == []


def test_cve_2025_31133_a_null_that_is_something_else_is_not_used_for_masking(
    box: Box, inside: Inside
) -> None:
    """With /dev/null a symlink, runc bound its target, writable, over a masked path."""

    def work() -> Any:
        (box.base / "dev").mkdir()
        (box.base / "dev" / "null").symlink_to("/proc/sys/kernel/core_pattern")
        base = tuple(
            Mount("/dev", "bind", f"{box.base}/dev", ("rbind",)) if m.destination == "/dev" else m
            for m in MOUNTS
            if not m.destination.startswith("/dev/")
        )
        try:
            return box.sh("cat /proc/keys /proc/timer_list | wc -c", base_mounts=base).out.strip()
        except Exception as error:
            return str(error)

    text = inside(work)
    assert text == "0" or "null device" in text


def test_cve_2025_52565_the_console_is_our_pty_and_nothing_else(box: Box, inside: Inside) -> None:
    """/dev/console was bound from a name that the image could make a symlink of."""
    (box.lower / "dev" / "console").symlink_to("/proc/sys/kernel/core_pattern")
    (box.lower / "dev" / "pts").mkdir()
    (box.lower / "dev" / "pts" / "0").write_text("fake")

    def work() -> Any:
        script = "stat -c %t /dev/console; stat -c %t $(tty); cat /proc/sys/kernel/core_pattern | head -c 9"
        return box.terminal(box.spec("sh", "-c", script))

    code, output = inside(work)
    assert code == 0
    assert output.split()[:2] == ["88", "88"]


def test_cve_2025_52565_a_terminal_without_devpts_is_refused(box: Box, inside: Inside) -> None:
    base = tuple(mount for mount in MOUNTS if mount.destination != "/dev/pts")

    def work() -> Any:
        spec = box.spec("true", base_mounts=base)
        spec = replace(spec, process=replace(spec.process, terminal=True))
        return failure(lambda: create(spec, str(box.base / "bundle"), None)).message

    assert "console" in inside(work) or "devpts" in inside(work)


def test_cve_2025_52881_sysctls_are_written_to_a_real_procfs(box: Box, inside: Inside) -> None:
    """Writes meant for /proc/self/attr or a sysctl went to sysrq-trigger through a mount over it."""
    (box.lower / "trap").write_text("")

    def work() -> Any:
        mounts = (Mount("/proc/sys/kernel/msgmax", "bind", f"{box.lower}/trap", ("rbind",)),)
        result = box.sh("cat /trap | wc -c", mounts=mounts, sysctl={"kernel.msgmax": "4242"})
        return result.out.strip()

    assert inside(work) == "0"


def test_an_image_s_passwd_cannot_be_a_device_a_pipe_or_a_way_out(box: Box, inside: Inside) -> None:
    passwd = box.lower / "etc" / "passwd"
    targets = ("/proc/self/fd/3", "../../../../../../etc/passwd", "/dev/zero", "passwd", None)
    for target in targets:
        passwd.unlink()
        if target is None:
            os.mkfifo(passwd)
        else:
            passwd.symlink_to(target)
        started = time.monotonic()
        result = inside(lambda: box.run("env", env=("PATH=/bin",), user=User(1000, 1000)))
        assert sorted(result.out.split()) == ["HOME=/", "PATH=/bin"]
        assert time.monotonic() - started < 5


def test_a_root_that_cannot_mknod_disks(box: Box, inside: Inside) -> None:
    """There is no device controller: nodes the container makes must not work."""
    script = "for d in / /dev /dev/shm /tmp; do mknod $d/disk b 254 0 && head -c 1 $d/disk; done"
    mounts = (Mount("/tmp", "tmpfs", "tmpfs", ()),)
    result = inside(lambda: box.sh(script, mounts=mounts))
    assert result.out == ""
    assert result.err.count("ermi") >= 4  # "Permission denied" or "Operation not permitted"


def test_the_host_s_null_cannot_be_changed(box: Box, inside: Inside) -> None:
    before = os.stat("/dev/null")
    inside(lambda: box.sh("chmod 600 /dev/null /proc/keys; chown 5 /dev/null /proc/keys"))
    after = os.stat("/dev/null")
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)


def test_nothing_of_the_host_is_mounted_in_the_container(box: Box, inside: Inside) -> None:
    points = inside(
        lambda: box.sh("cut -d' ' -f4,5 /proc/self/mountinfo || cat /proc/self/mountinfo")
    ).out
    assert str(box.base) not in points.replace(str(box.lower), "").replace(
        f"{box.base}/upper", ""
    ).replace(f"{box.base}/work", "")


def test_the_descriptors_of_another_s_init_do_not_lead_out(box: Box, inside: Inside) -> None:
    """A joined pid namespace: who lives there sees us come, and must find nothing of the host."""

    def work() -> Any:
        script = (
            "while :; do for d in /proc/[0-9]*; do for l in exe cwd root; do "
            "x=$(readlink $d/$l 2>/dev/null); case $x in ''|/|/bin/busybox) ;; *) echo $d $l $x >> /seen;; "
            "esac; done; done; done"
        )
        running = box.start(box.spec("sh", "-c", script))
        pid = running.created.pid
        spec = box.spec("true")
        spec = replace(spec, root=replace(spec.root, path="rootfs2"))
        overlay = spec.mounts[0]
        for name in ("upper2", "work2"):
            (box.base / name).mkdir()
        options = tuple(
            option.replace("/upper", "/upper2").replace("/work", "/work2")
            for option in overlay.options
        )
        kinds = tuple(
            replace(entry, path=f"/proc/{pid}/ns/pid") if entry.type == "pid" else entry
            for entry in spec.linux.namespaces
        )
        spec = replace(
            spec,
            mounts=(replace(overlay, options=options), *spec.mounts[1:]),
            linux=replace(spec.linux, namespaces=kinds),
        )
        codes = {box.start(spec).finish().code for _ in range(20)}
        os.kill(pid, 9)
        running.finish()
        seen = box.base / "upper" / "seen"
        return codes, seen.read_text() if seen.exists() else ""

    assert inside(work) == ({0}, "")


def test_a_device_that_the_host_lacks_is_an_error_not_an_empty_file(
    box: Box, inside: Inside
) -> None:
    def work() -> Any:
        return box.run(
            "stat", "-c", "%F", "/dev/none", devices=(Device("/dev/none", "c", 511, 77),)
        )

    if box.situation == "root":
        assert inside(work).out == "character special file\n"
    else:
        message = inside(lambda: failure(work).message)
        assert '"/dev/none": no such file or directory' in message


def test_a_device_given_to_a_container_is_not_the_host_s_node(box: Box, inside: Inside) -> None:
    """Root of the container may chmod what it was given; with root of the host that was /dev's."""
    device = Path("/dev/zero")
    before = device.stat()
    mounts = (
        Mount("/dev/given", "bind", str(device), ("rbind", "rprivate")),
        Mount("/elsewhere", "bind", str(device), ("rbind", "rprivate")),
    )
    script = (
        "for d in /dev/given /elsewhere; do head -c 4 $d | wc -c; chmod 600 $d; chown 5 $d; done"
    )
    result = inside(lambda: box.sh(script, mounts=mounts))
    assert result.out.split() == ["4", "4"]
    assert (device.stat().st_mode, device.stat().st_uid) == (before.st_mode, before.st_uid)


def test_a_bound_dev_of_the_host_is_left_as_it_is(box: Box, inside: Inside) -> None:
    before = sorted(os.listdir("/dev"))
    base = tuple(mount for mount in MOUNTS if not mount.destination.startswith("/dev"))
    mounts = (
        Mount("/dev", "bind", "/dev", ("rbind", "rprivate")),
        Mount("/dev/null", "bind", "/dev/null", ("rbind", "rprivate")),
    )
    result = inside(lambda: box.sh("echo x > /dev/null", base_mounts=base, mounts=mounts))
    assert result.code == 0, result
    assert sorted(os.listdir("/dev")) == before
