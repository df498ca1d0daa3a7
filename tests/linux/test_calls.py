from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dockpy.linux import credentials, mounts, namespaces, pipes, processes, terminals
from dockpy.linux.libc import NUMBERS


def in_child(work: Callable[[], None]) -> int:
    """Exit code of a forked child that ran `work`: 0, an errno, or 99 for any other exception."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 99)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_errno_becomes_oserror_with_the_path() -> None:
    with pytest.raises(OSError) as caught:
        mounts.umount2("/no/such/place")
    assert caught.value.errno in (errno.ENOENT, errno.EPERM)
    assert caught.value.filename == "/no/such/place"


def test_both_architectures_know_the_same_calls() -> None:
    assert NUMBERS["openat2"] == 437
    assert len(set(NUMBERS.values())) == len(NUMBERS)


def test_clone_is_a_fork_with_a_pidfd() -> None:
    pid, pidfd = processes.clone(0)
    if pid == 0:
        os._exit(5)
    assert select.select([pidfd], [], [], 10)[0]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    with pytest.raises(ProcessLookupError):
        processes.pidfd_send_signal(pidfd, signal.SIGTERM)
    os.close(pidfd)


def test_clone_parent_makes_a_child_of_our_parent() -> None:
    read, write = os.pipe()
    pid, pidfd = processes.clone(0)
    if pid == 0:
        sibling, _ = processes.clone(processes.CLONE_PARENT)
        if sibling == 0:
            os._exit(7)
        os.write(write, b"%d" % sibling)
        os._exit(0)
    os.waitpid(pid, 0)
    sibling = int(os.read(read, 20))
    assert os.waitstatus_to_exitcode(os.waitpid(sibling, 0)[1]) == 7
    for fd in (read, write, pidfd):
        os.close(fd)


def test_close_range_closes_and_marks() -> None:
    def work() -> None:
        base = os.open("/", os.O_RDONLY)
        for fd in (200, 201, 202):
            os.dup2(base, fd, inheritable=True)
        processes.close_range(200, 200)
        processes.close_range(201, flags=processes.CLOSE_RANGE_CLOEXEC)
        with pytest.raises(OSError):
            os.fstat(200)
        assert not os.get_inheritable(201)
        assert not os.get_inheritable(202)

    assert in_child(work) == 0


def test_bounding_and_ambient_sets() -> None:
    def work() -> None:
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        credentials.drop_bounding(0b11)
        credentials.capset(0b11, 0b11, 0b11)
        credentials.set_ambient(0b10)
        assert credentials.capget() == (0b11, 0b11, 0b11)
        status = Path("/proc/self/status").read_text()
        assert "CapBnd:\t0000000000000003" in status
        assert "CapAmb:\t0000000000000002" in status
        assert 35 < credentials.last_cap() < 64

    assert in_child(work) == 0


def test_a_filter_is_installed_and_obeyed() -> None:
    def work() -> None:
        import struct

        number = {"x86_64": 83, "aarch64": 34}[os.uname().machine]  # mkdir, mkdirat
        program = b"".join(
            struct.pack("=HBBI", *line)
            for line in (
                (0x20, 0, 0, 0),
                (0x15, 0, 1, number),
                (0x06, 0, 0, 0x50000 | errno.EXDEV),
                (0x06, 0, 0, 0x7FFF0000),
            )
        )
        processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
        credentials.seccomp(credentials.SECCOMP_SET_MODE_FILTER, 0, program)
        os.mkdir("/tmp/never")

    assert in_child(work) == errno.EXDEV


def test_hostname_in_a_namespace_of_its_own() -> None:
    before = os.uname().nodename

    def work() -> None:
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWUTS)
        namespaces.sethostname("other")
        namespaces.setdomainname("domain")
        assert os.uname().nodename == "other"

    assert in_child(work) == 0
    assert os.uname().nodename == before


def test_the_owner_of_a_namespace() -> None:
    def work() -> None:
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWUTS)
        uts = os.open("/proc/self/ns/uts", os.O_RDONLY)
        owner = os.fstat(namespaces.get_userns(uts)).st_ino
        assert owner == os.stat("/proc/self/ns/user").st_ino

    assert in_child(work) == 0


def test_mounts_by_the_old_and_the_new_calls(tmp_path: Path) -> None:
    def work() -> None:
        uid, gid = os.geteuid(), os.getegid()
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        mounts.mount("tmpfs", str(tmp_path), "tmpfs", mounts.MS_NODEV)
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        context = mounts.fsopen("tmpfs")
        mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, "mode", "0711")
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        fd = mounts.fsmount(context, mounts.MOUNT_ATTR_NOEXEC)
        target = os.open(tmp_path / "a", os.O_PATH)
        mounts.move_mount(fd, target)
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o711
        copy = mounts.open_tree(-100, str(tmp_path / "a"), mounts.OPEN_TREE_CLONE)
        mounts.mount_setattr(copy, mounts.MOUNT_ATTR_RDONLY)
        mounts.move_mount(copy, os.open(tmp_path / "b", os.O_PATH))
        (tmp_path / "a" / "x").touch()
        assert mounts.fstatfs_type(target) == mounts.TMPFS_MAGIC
        (tmp_path / "b" / "y").touch()

    assert in_child(work) == errno.EROFS


def test_splice_and_tee_move_and_double() -> None:
    first, second, third = os.pipe(), os.pipe(), os.pipe()
    os.write(first[1], b"bytes")
    assert pipes.tee(first[0], second[1], 100) == 5
    assert pipes.splice(first[0], third[1], 100) == 5
    assert os.read(second[0], 10) == os.read(third[0], 10) == b"bytes"
    for fd in (*first, *second, *third):
        os.close(fd)


def test_a_signal_is_read_from_a_descriptor() -> None:
    def work() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        fd = pipes.signalfd([signal.SIGUSR1])
        os.kill(os.getpid(), signal.SIGUSR1)
        assert int.from_bytes(os.read(fd, 128)[:4], "little") == signal.SIGUSR1

    assert in_child(work) == 0


def test_the_peer_of_a_master_without_its_name() -> None:
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    terminals.unlock_pt(master)
    slave = terminals.open_peer(master)
    terminals.set_winsize(master, 12, 34)
    assert terminals.get_winsize(slave) == (12, 34)
    os.close(slave)
    os.close(master)
