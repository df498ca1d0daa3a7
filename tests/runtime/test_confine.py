"""What a workload is left with, and what it is not: the common end of create and exec."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dockpy.oci.spec import Capabilities, Rlimit, User
from dockpy.runtime.create import Stdio, create

from .bundles import Box, failure

Inside = Callable[[Callable[[], Any]], Any]


def test_only_three_descriptors_survive_to_the_workload(box: Box, inside: Inside) -> None:
    def work() -> Any:
        for fd in range(50, 60):
            os.dup2(0, fd, inheritable=True)
        return box.sh("ls /proc/$$/fd; true")

    assert inside(work).out.split() == ["0", "1", "2"]


def test_the_default_capabilities_are_exactly_docker_s(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("grep Cap /proc/self/status"))
    sets = dict(line.split(":\t") for line in result.out.strip().split("\n"))
    assert sets == {
        "CapInh": "0000000000000000",
        "CapPrm": "00000000a80425fb",
        "CapEff": "00000000a80425fb",
        "CapBnd": "00000000a80425fb",
        "CapAmb": "0000000000000000",
    }


def test_without_capabilities_root_has_none(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("grep", "CapBnd\\|CapEff", "/proc/self/status")
        spec = replace(spec, process=replace(spec.process, capabilities=Capabilities()))
        return box.start(spec).finish()

    assert inside(work).out.count("0000000000000000") == 2


def test_environment_and_home(box: Box, inside: Inside) -> None:
    env = ("PATH=/bin", "A=1", "A=2", "EMPTY=", "NOEQUALS", "U=ü")
    result = inside(lambda: box.run("env", env=env))
    assert sorted(result.out.split()) == ["A=2", "EMPTY=", "HOME=/root", "PATH=/bin", "U=ü"]


def test_umask_and_signals_are_fresh(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("umask; grep Sig[BI] /proc/self/status; kill -PIPE $$; echo no"))
    # The shell of busybox is pid 1 here, which does not die of signals it has no handler for.
    lines = result.out.split()
    assert lines[0] == "0022"
    assert lines[lines.index("SigBlk:") + 1] == "0" * 16
    assert lines[lines.index("SigIgn:") + 1] == "0" * 16


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("nope",), 127, 'exec: "nope": executable file not found in $PATH'),
        (("/nope",), 127, 'exec: "/nope": stat /nope: no such file or directory'),
        (("/etc/passwd",), 126, 'exec: "/etc/passwd": permission denied'),
        (("/tmp",), 126, 'exec: "/tmp": is a directory'),
        (("",), 127, 'exec: "": executable file not found in $PATH'),
    ],
)
def test_a_command_that_cannot_run(
    box: Box, inside: Inside, args: tuple[str, ...], code: int, text: str
) -> None:
    def work() -> tuple[int, str]:
        error = failure(lambda: box.start(box.spec(*args)))
        return error.code, error.message

    got = inside(work)
    assert got[0] == code
    assert text in got[1]
    assert got[1].startswith("failed to create shim task: OCI runtime create failed: ")


def test_a_script_without_interpreter_and_one_without_format(box: Box, inside: Inside) -> None:
    for name, text in (("gone", "#!/not/there\n"), ("data", "\0\1\2")):
        path = box.lower / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def work() -> Any:
        return [
            (error.code, error.message)
            for error in (failure(partial(box.start, box.spec(name))) for name in ("gone", "data"))
        ]

    gone, data = inside(work)
    assert gone[0] == 127 and "exec /bin/gone: no such file or directory" in gone[1]
    assert data[0] == 126 and "exec /bin/data: exec format error" in data[1]


def test_rlimits_are_set_and_raising_one_says_why_not(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("sh", "-c", "ulimit -n; ulimit -Hn")
        lower = (Rlimit("RLIMIT_NOFILE", 100, 200),)
        result = box.start(replace(spec, process=replace(spec.process, rlimits=lower))).finish()
        raised = (Rlimit("RLIMIT_NOFILE", 1 << 40, 1 << 40),)
        return result, failure(
            lambda: box.start(replace(spec, process=replace(spec.process, rlimits=raised)))
        ).message

    result, message = inside(work)
    assert result.out.split() == ["100", "200"]
    assert "error setting rlimit RLIMIT_NOFILE" in message
    assert "operation not permitted" in message


def test_no_new_privileges_and_oom_score(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec(
            "sh", "-c", "grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj"
        )
        process = replace(spec.process, no_new_privileges=True, oom_score_adj=321)
        return box.start(replace(spec, process=process)).finish()

    assert inside(work).out.split() == ["NoNewPrivs:", "1", "321"]


def test_the_container_dies_with_its_parent(box: Box, inside: Inside) -> None:
    def work() -> Any:
        pid_r, pid_w = os.pipe()
        shim = os.fork()
        if shim == 0:
            created = create(box.spec("sleep", "100"), str(box.base / "bundle"), Stdio(0, 1, 2))
            os.write(pid_w, b"%d" % created.pid)
            time.sleep(100)
        pid = int(os.read(pid_r, 20))
        os.kill(shim, 9)
        os.waitpid(shim, 0)
        for _ in range(200):
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return "gone"
            if state in "ZX":
                return "gone"
            time.sleep(0.01)
        return state

    assert inside(work) == "gone"


def test_seccomp_is_installed_with_and_without_no_new_privileges(box: Box, inside: Inside) -> None:
    from dockpy.oci.seccomp import Seccomp, Syscall

    policy = Seccomp(
        "SCMP_ACT_ALLOW", (), (Syscall(("mkdir", "mkdirat"), "SCMP_ACT_ERRNO", errno_ret=95),)
    )

    def work() -> Any:
        spec = box.spec("sh", "-c", "mkdir /x; grep Seccomp: /proc/self/status", seccomp=policy)
        strict = replace(spec, process=replace(spec.process, no_new_privileges=True))
        return [box.start(each).finish() for each in (spec, strict)]

    for result in inside(work):
        assert result.out.split() == ["Seccomp:", "2"]
        assert "Operation not supported" in result.err or "Not supported" in result.err


def test_another_user_has_no_capabilities(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("grep 'Cap[PE]' /proc/self/status", user=User(1000, 1000)))
    assert result.out.count("0000000000000000") == 2, result


def test_stdio_can_be_opened_again_by_another_user(box: Box, inside: Inside) -> None:
    result = inside(lambda: box.sh("echo hi > /dev/stdout", annotations={"io.dockpy.user": "bob"}))
    assert (result.out, result.err) == ("hi\n", "")


def test_our_own_init_passes_on_signals_and_the_exit_code(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec(
            "sh",
            "-c",
            "trap 'echo term; exit 9' TERM; echo $$; while :; do sleep 0.05; done",
            annotations={"io.dockpy.init": "true"},
        )
        running = box.start(spec)
        assert os.read(running.out, 10) == b"2\n"
        os.kill(running.created.pid, 15)
        missing = failure(
            lambda: box.start(replace(spec, process=replace(spec.process, args=("no",))))
        )
        return running.finish(), missing.code

    result, code = inside(work)
    assert (result.code, result.out, code) == (9, "term\n", 127)


def test_privileged_has_what_we_have_and_its_nodes_work_where_mknod_does(
    box: Box, inside: Inside
) -> None:
    from dockpy.oci.capabilities import NAMES

    def work() -> Any:
        held = Path("/proc/self/status").read_text().split("CapPrm:\t")[1].split("\n")[0]
        script = "grep CapEff /proc/self/status; mknod /tmp/z c 1 5 && head -c 2 /tmp/z | wc -c; head -c 3 /dev/zero | wc -c"
        spec = box.spec("sh", "-c", script)
        everything = Capabilities(bounding=NAMES, effective=NAMES, permitted=NAMES)
        spec = replace(spec, process=replace(spec.process, capabilities=everything))
        return held, box.start(spec).finish().out.split()

    held, out = inside(work)
    expected = ["CapEff:", held, "2", "3"] if box.situation == "root" else ["CapEff:", held, "3"]
    assert out == expected
