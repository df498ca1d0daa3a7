"""What a kernel of 4.18 lacks, taken away by a seccomp filter (ENOSYS): all must work without it."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dockpy.linux.credentials import SECCOMP_SET_MODE_FILTER, seccomp
from dockpy.linux.libc import NUMBERS
from dockpy.linux.mounts import mount
from dockpy.linux.processes import pidfd_open
from dockpy.oci.spec import Mount, Process
from dockpy.runtime.exec import exec_process

from .bundles import Box, drain, failure

Inside = Callable[[Callable[[], Any]], Any]
YOUNG = "open_tree move_mount fsopen fsconfig fsmount pidfd_open close_range openat2 mount_setattr"


def without_young_calls() -> None:
    numbers = [NUMBERS[name] for name in YOUNG.split()]
    code = [(0x20, 0, 0, 0)]
    for index, number in enumerate(numbers):
        code.append((0x15, len(numbers) - index, 0, number))
    code += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x50000 | errno.ENOSYS)]
    seccomp(SECCOMP_SET_MODE_FILTER, 0, b"".join(struct.pack("=HBBI", *line) for line in code))
    try:
        pidfd_open(os.getpid())
    except OSError as error:
        assert error.errno == errno.ENOSYS


def test_a_container_with_all_its_mounts(box: Box, inside: Inside) -> None:
    def work() -> Any:
        without_young_calls()
        (box.base / "folder" / "be low").mkdir(parents=True)
        mount("tmpfs", f"{box.base}/folder/be low", "tmpfs")
        folder = str(box.base / "folder")
        mounts = (
            Mount("/rw", "bind", folder, ("rbind", "rprivate")),
            Mount("/ro", "bind", folder, ("rbind", "ro")),
            Mount("/rro", "bind", folder, ("rbind", "rro")),
        )
        script = (
            "touch /rw/1 && echo rw; touch /ro/1 || echo ro; touch '/ro/be low/2' && echo below;"
            "touch '/rro/be low/3' || echo rro; touch /x || echo root; wc -c < /proc/keys;"
            "ls /proc/$$/fd; echo > /proc/sys/kernel/domainname || echo sys; echo > /dev/null && echo null"
        )
        return box.sh(script, mounts=mounts, readonly=True)

    result = inside(work)
    assert result.out.split() == "rw ro below rro root 0 0 1 2 sys null".split(), result


def test_exec_terminal_user_and_error(box: Box, inside: Inside) -> None:
    def work() -> Any:
        without_young_calls()
        spec = box.spec("sleep", "100", annotations={"io.dockpy.user": "bob"})
        running = box.start(spec)
        wanted = Process(("sh", "-c", "id -u; tty"), env=("PATH=/bin",), terminal=True)
        code, output = drain(exec_process(spec, wanted, running.created.pid, None))
        os.kill(running.created.pid, 9)
        running.finish()
        nowhere = replace(spec, process=replace(spec.process, args=("nope",)))
        return code, output.split(), failure(lambda: box.start(nowhere)).code

    assert inside(work) == (0, ["1000", "/dev/pts/0"], 127)
