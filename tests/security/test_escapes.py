"""What a hostile image, volume or container tries against the runtime. Each was an escape of some
container engine, or would have been one of ours."""

from __future__ import annotations

import os
import platform
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from dockpy.oci import capabilities, seccomp
from dockpy.oci.seccomp_default import default_profile
from dockpy.oci.spec import Capabilities, Mount, Namespace, Process, Rlimit, Spec
from dockpy.runtime.errors import StartFailed
from dockpy.runtime.exec import exec_process
from dockpy.runtime.namespaces import children, open_of_process
from tests.runtime import test_pid1
from tests.runtime.bundles import NAMESPACES, Box, failure

Inside = Callable[[Callable[[], Any]], Any]
ENV = ("PATH=/bin",)


def beside(box: Box, spec: Spec, work: Callable[[int], Any]) -> Any:
    """`work(pid)` while the container of `spec` sleeps."""
    running = box.start(spec)
    try:
        return work(running.created.pid)
    finally:
        os.kill(running.created.pid, 9)
        running.finish()


def shell(script: str, **fields: Any) -> Process:
    return Process(args=("sh", "-c", script), env=("PATH=/bin",), **fields)


def with_caps(spec: Spec, *names: str) -> Spec:
    caps = tuple(dict.fromkeys((*capabilities.DEFAULT, *names)))
    sets = Capabilities(bounding=caps, effective=caps, permitted=caps)
    return replace(spec, process=replace(spec.process, capabilities=sets))


# ------------------------------------------------------------------------------------------ exec


def test_exec_has_the_limits_of_its_container(box: Box, inside: Inside) -> None:
    """As runc: else `docker exec` undoes --ulimit."""

    def work() -> Any:
        spec = box.spec("sleep", "100")
        limit = (Rlimit("RLIMIT_NOFILE", 77, 88),)
        spec = replace(spec, process=replace(spec.process, rlimits=limit))
        script = "ulimit -Sn; ulimit -Hn"
        return beside(box, spec, lambda pid: box.exec(spec, shell(script), pid).finish().out)

    assert inside(work).split() == ["77", "88"]


def test_exec_cannot_gain_privileges_where_its_container_cannot(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("sleep", "100")
        spec = replace(spec, process=replace(spec.process, no_new_privileges=True))
        script = "grep NoNewPrivs /proc/self/status"
        return beside(box, spec, lambda pid: box.exec(spec, shell(script), pid).finish().out)

    assert inside(work).split() == ["NoNewPrivs:", "1"]


def test_exec_is_refused_where_the_pid_is_no_container_s(box: Box, inside: Inside) -> None:
    """A pid that was used again must not make us run the command among the host's processes."""

    def work() -> Any:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        try:
            spec = box.spec("true")
            return failure(lambda: exec_process(spec, shell("true"), pid, None)).code
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    assert inside(work) in (126, 128)


def test_exec_beside_an_init_of_ours_asks_only_its_own_children(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("sleep", "100", annotations={"io.dockpy.init": "true"})
        script = "readlink /proc/self/ns/mnt; readlink /proc/self/ns/pid; hostname"
        ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid")]
        return ours, beside(box, spec, lambda pid: box.exec(spec, shell(script), pid).finish().out)

    ours, said = inside(work)
    assert said.split()[2] == "box"
    assert not set(ours) & set(said.split())


# ------------------------------------------------------------------- the interpreter of the host


def host_tree(box: Box) -> tuple[Mount, ...]:
    """The host's libraries, so that its own interpreter can run in the container."""
    folders = {os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}
    folders |= {"/usr", "/lib", "/lib64"}
    folders = {folder for folder in folders if os.path.isdir(folder)}
    tops = [f for f in folders if not any(f != g and f.startswith(g + "/") for g in folders)]
    return tuple(Mount(f, "bind", f, ("rbind", "rprivate", "ro", "rro")) for f in sorted(tops))


OVERWRITE = """
import os, sys
fd = os.open("/proc/self/exe", os.O_PATH)
os.set_inheritable(fd, True)
script = 'sleep 0.2; (: >> /proc/self/fd/%d) 2>&1; echo tried' % fd
os.execv("/bin/sh", ["sh", "-c", script])
"""


@pytest.mark.parametrize("entrypoint", ["/proc/self/exe", "/bin/link", "/bin/script"])
def test_an_entrypoint_that_leads_to_us_cannot_overwrite_the_interpreter(
    box: Box, inside: Inside, entrypoint: str
) -> None:
    """CVE-2019-5736: the image makes us execute our own program, keeps it open, and writes to it."""
    interpreter = os.path.realpath(sys.executable)
    before = os.stat(interpreter)
    (box.lower / "bin/link").symlink_to("/proc/self/exe")
    script = box.lower / "bin/script"
    script.write_text("#!/proc/self/exe -IS\n" + OVERWRITE)
    script.chmod(0o755)

    def work() -> Any:
        arguments = () if entrypoint == "/bin/script" else ("-IS", "-c", OVERWRITE)
        spec = box.spec(entrypoint, *arguments, mounts=host_tree(box), base_mounts=PLAIN)
        try:
            result = box.start(spec).finish()
        except StartFailed as refused:
            return str(refused)
        return result.out + result.err

    said = inside(work)
    after = os.stat(interpreter)
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    if entrypoint != "/bin/script":
        assert "permission denied" in said
    elif "error while loading shared libraries" not in said:  # a Python in root's own folder
        assert "Text file busy" in said or "Permission denied" in said, said


PLAIN = (
    Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "mode=755", "size=64k")),
)


def test_a_working_folder_in_proc_is_refused(box: Box, inside: Inside) -> None:
    """CVE-2024-21626: a descriptor of the host as the working folder."""

    def work() -> Any:
        said = []
        for number in range(12):
            for folder in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}", "/proc/self/cwd"):
                spec = box.spec("sh", "-c", "ls ../../../../../..; pwd", cwd=folder)
                try:
                    said.append(box.start(spec).finish().out)
                except StartFailed:
                    pass
        return said

    assert inside(work) == []


# --------------------------------------------------------------------------------- what is hidden

PROBES = """
for path in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
    /proc/sys/vm/drop_caches /proc/sys/fs/binfmt_misc/register /sys/kernel/uevent_helper \
    /proc/irq/default_smp_affinity /proc/bus/pci/devices /sys/fs/cgroup/cgroup.procs \
    /sys/fs/cgroup/cgroup.kill /sys/kernel/mm/transparent_hugepage/enabled; do
  [ -e $path ] && (echo 0 > $path) 2>/dev/null && echo "wrote $path"
done
mkdir /sys/fs/cgroup/mine 2>/dev/null && echo "made a cgroup"
for path in /proc/sys /proc/bus /proc/fs /proc/irq /sys /proc; do
  mount -o remount,rw,bind $path 2>/dev/null && echo "remounted $path"
  umount $path 2>/dev/null && echo "unmounted $path"
done
for path in /proc/kcore /proc/keys /proc/timer_list; do
  umount $path 2>/dev/null && echo "unmounted $path"
  [ -s $path ] && echo "read $path"
done
mount -t tmpfs tmpfs /mnt 2>/dev/null && echo "mounted a tmpfs"
mount --bind /proc /mnt 2>/dev/null && echo "bound /proc"
dd if=/proc/kcore of=/dev/null bs=1 count=1 2>/dev/null | grep -q 1+0 && echo "read kcore"
mknod /tmp/disk b 8 0 2>/dev/null && dd if=/tmp/disk of=/dev/null count=1 2>/dev/null && echo disk
mknod /tmp/mem c 1 1 2>/dev/null && dd if=/tmp/mem of=/dev/null count=1 2>/dev/null && echo memory
for folder in /tmp /dev /dev/shm /dev/mqueue /root; do
  mknod $folder/z c 1 5 2>/dev/null && dd if=$folder/z of=/dev/null bs=1 count=1 2>/dev/null &&
    echo "a device works in $folder"
done
mknod /dev/kmsg c 1 11 2>/dev/null && (echo x > /dev/kmsg) 2>/dev/null && echo kmsg
mknod /dev/shm/kmsg c 1 11 2>/dev/null && (echo x > /dev/shm/kmsg) 2>/dev/null && echo kmsg
chmod 600 /dev/null 2>/dev/null; chmod 600 /dev/zero 2>/dev/null
true
"""


def test_root_of_a_container_changes_nothing_of_the_host(box: Box, inside: Inside) -> None:
    modes = [os.stat(path).st_mode for path in ("/dev/null", "/dev/zero")]
    result = inside(lambda: box.sh(PROBES))
    assert (result.code, result.out) == (0, "")
    assert [os.stat(path).st_mode for path in ("/dev/null", "/dev/zero")] == modes


def test_no_mount_of_the_host_is_left_in_the_container(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("cat /proc/self/mountinfo"))
    points = [line.split()[4] for line in result.out.splitlines()]
    allowed = ("/proc", "/sys", "/dev")
    others = [p for p in points if not p.startswith(allowed)]
    assert others == ["/"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the policy of x86-64 is asked for")
def test_the_default_policy_forbids_new_namespaces(box: Box, inside: Inside) -> None:
    """Most kernel escapes begin with the rights inside a user namespace of one's own."""
    policy = seccomp.resolve(default_profile(), capabilities.DEFAULT, "amd64", (6, 1))
    code = (
        "import ctypes, os, errno\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for number, arguments in ((272, (0x10000000,)), (56, (0x10000011, 0, 0, 0, 0)),\n"
        "        (435, (0, 0)), (248, (0, 0, 0, 0, 0)), (165, (0, 0, 0, 0, 0)), (321, (0, 0, 0))):\n"
        "    libc.syscall(number, *arguments)\n"
        "    print(number, errno.errorcode[ctypes.get_errno()])\n"
    )

    def work() -> Any:
        spec = box.spec(
            "/usr/bin/python3",
            "-IS",
            "-c",
            code,
            mounts=host_tree(box),
            base_mounts=PLAIN,
            seccomp=policy,
        )
        result = box.start(spec).finish()
        return result.out.split() or result.err

    assert inside(work) == ("272 EPERM 56 EPERM 435 ENOSYS 248 EPERM 165 EPERM 321 EPERM".split())


# ---------------------------------------------------------------------------------- hostile images


@pytest.mark.parametrize("link", ["/etc", "../../../../etc", "/proc/self/root/etc"])
def test_a_mount_onto_a_symlink_of_the_image_stays_in_the_container(
    box: Box, inside: Inside, link: str
) -> None:
    """CVE-2017-1002101, CVE-2021-30465: targets are found in the container's root."""
    os.symlink(link, box.lower / "out")
    secret = box.base / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)

    def work() -> Any:
        # "out" is a link to /etc of the image, or (for the last) to nothing that may be used.
        name = f"/out/dockpy-test-{os.getpid()}"
        mount = Mount(name, "bind", str(secret), ("rbind", "rprivate"))
        try:
            box.sh(f"cat {name}", mounts=(mount,))
        except StartFailed:
            pass
        return os.path.lexists(f"/etc/dockpy-test-{os.getpid()}")

    assert inside(work) is False


@pytest.mark.parametrize("name", ["proc", "dev", "sys", "dev/pts", "dev/shm"])
def test_an_image_whose_system_folders_are_links_harms_nobody(
    box: Box, inside: Inside, name: str
) -> None:
    """CVE-2019-19921, CVE-2025-31133: what the image calls /proc is no reason to trust it."""
    place = box.lower / name
    if place.exists():
        place.rmdir()
    place.parent.mkdir(exist_ok=True)
    os.symlink("/tmp", place)
    before = sorted(os.listdir("/tmp")), os.stat("/tmp").st_mode

    def work() -> Any:
        try:
            return box.sh("cat /proc/self/status | grep -c CapEff; ls /proc/1/root/").out
        except StartFailed as refused:
            return str(refused)

    said = inside(work)
    if name == "proc":
        assert "must be mounted on ordinary directory" in said
    assert os.stat("/tmp").st_mode == before[1]
    assert {n for n in os.listdir("/tmp") if n in ("null", "ptmx", "console", "zero")} == set()


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "huge"])
def test_user_files_of_any_kind_are_read_safely(box: Box, inside: Inside, kind: str) -> None:
    passwd = box.lower / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "directory":
        passwd.mkdir()
    elif kind == "link":
        # A magic link, and through it a file of the host.
        os.symlink("/proc/self/fd/3", passwd)
    else:
        with open(passwd, "wb") as file:
            file.truncate(1 << 40)

    started = time.monotonic()
    user = {"io.dockpy.user": "7"}
    result = inside(lambda: box.sh("grep Uid /proc/self/status", annotations=user))
    assert result.out.split()[1] == "7"
    assert time.monotonic() - started < 10


def test_a_set_id_program_gains_nothing_over_the_bounding_set(box: Box, inside: Inside) -> None:
    """As another user with a set-uid root program of the image: at most docker's capabilities."""
    busybox = box.lower / "bin" / "busybox"
    owner = busybox.stat()
    busybox.chmod(0o4755)
    assert busybox.stat().st_mode & stat.S_ISUID
    assert owner.st_uid == busybox.stat().st_uid

    def work() -> Any:
        return box.run("grep", "Cap", "/proc/self/status", annotations={"io.dockpy.user": "bob"})

    result = inside(work)
    bounding = capabilities.mask(capabilities.DEFAULT)
    for line in result.out.splitlines():
        _, value = line.split()
        assert int(value, 16) & ~bounding == 0, line


# -------------------------------------------------------------------------------- neighbours of ours


def test_with_sys_ptrace_our_init_is_no_way_out(box: Box, inside: Inside) -> None:
    """Where it is machine code, there is nothing in it. Where it is an interpreter, it is hidden by
    the user namespace; without one it shows its name, and cannot be written."""

    def work() -> Any:
        spec = box.spec("sleep", "100", annotations={"io.dockpy.init": "true"})
        spec = with_caps(spec, "CAP_SYS_PTRACE")
        script = (
            "for name in exe cwd root; do readlink /proc/1/$name; done 2>/dev/null;"
            "ls /proc/1/fd 2>/dev/null; (: >> /proc/1/exe) 2>/dev/null && echo written;"
            "cat /proc/1/cmdline"
        )
        return beside(box, spec, lambda pid: box.exec(spec, shell(script), pid).finish().out)

    *seen, title = inside(work).split("\n")
    assert title.replace("\0", " ").strip() == "docker-init -- sleep 100"
    if platform.machine() == "x86_64":
        assert seen == ["/memfd:docker-init (deleted)", "/", "/"]
    else:
        interpreter = [os.path.realpath(sys.executable), "/", "/"]
        assert seen == (interpreter if box.situation == "root" else [])


def test_an_init_that_is_an_interpreter_is_entered_through_its_child(
    situation: str, inside: Inside
) -> None:
    def work() -> Any:
        init = test_pid1.Inside("echo ready; exec sleep 30", "interpreter")
        try:
            init.until(b"ready")
            fd = open_of_process(init.init, "pid")
            (child,) = children(init.init)
            return os.fstat(fd).st_ino == os.stat(f"/proc/{child}/ns/pid").st_ino
        finally:
            init.close()

    assert inside(work)


def test_the_starter_s_files_cannot_be_reached_from_a_shared_pid_namespace(
    box: Box, inside: Inside
) -> None:
    """A process that comes in by exec is looked at from its first instant by everyone inside."""

    def work() -> Any:
        watch = (
            "while :; do for p in /proc/[0-9]*; do "
            "l=$(readlink $p/exe) && case $l in *python*) echo $l;; esac; "
            "for f in $p/fd/*; do readlink $f; done; done; done 2>/dev/null"
        )
        spec = box.spec("sh", "-c", watch)
        running = box.start(spec)
        for _ in range(20):
            box.exec(spec, shell("true"), running.created.pid).finish()
        os.kill(running.created.pid, 9)
        return running.finish().out

    seen = set(inside(work).split("\n"))
    strange = {
        line
        for line in seen
        if "python" in line or line in ("/", "/proc") or line.startswith(("socket:", "/home"))
    }
    assert strange == set()


# ----------------------------------------------------------------------- what containers share


@pytest.mark.parametrize("kind", ["network", "ipc", "pid"])
def test_namespaces_of_a_container_with_our_init_can_be_shared(
    box: Box, inside: Inside, kind: str
) -> None:
    """Its pid 1 cannot be looked at; what it runs can."""
    file = {"network": "net"}.get(kind, kind)

    def work() -> Any:
        first = box.spec("sleep", "100", annotations={"io.dockpy.init": "true"})

        def beside_it(pid: int) -> Any:
            kinds = [Namespace(one) for one in NAMESPACES.split() if one != kind]
            shared = Namespace(kind, f"/proc/{pid}/ns/{file}")
            second = box.spec("readlink", f"/proc/self/ns/{file}")
            linux = replace(second.linux, namespaces=(*kinds, shared))
            # Its own upper folder: the first one lives.
            for name in ("upper", "work"):
                (box.base / f"{name}2").mkdir(exist_ok=True)
            root = second.mounts[0]
            options = tuple(
                word + "2" if word.startswith(("upperdir=", "workdir=")) else word
                for word in root.options
            )
            mounts = (replace(root, options=options), *second.mounts[1:])
            said = box.start(replace(second, linux=linux, mounts=mounts)).finish()
            mine = box.exec(first, Process(("readlink", f"/proc/self/ns/{file}"), env=ENV), pid)
            return said.out, mine.finish().out

        return beside(box, first, beside_it)

    theirs, own = inside(work)
    assert theirs == own != ""


def test_arguments_and_variables_with_a_nul_are_refused(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("echo", "a\0b")
        variable = box.spec("true", env=("PATH=/bin", "A=b\0c"))
        return [failure(partial(box.start, one)).code for one in (spec, variable)]

    assert inside(work) == [128, 128]
