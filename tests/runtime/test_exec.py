from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dockpy.oci.spec import Process, Rlimit, User
from dockpy.runtime.conversation import Stdio
from dockpy.runtime.errors import StartFailed
from dockpy.runtime.exec import exec_process
from dockpy.runtime.namespaces import children

from .bundles import NAMESPACES, Box, drain, failure

Inside = Callable[[Callable[[], Any]], Any]


def process(*args: str, **fields: Any) -> Process:
    return Process(args=args, env=("PATH=/bin",), **fields)


def beside(box: Box, work: Callable[[Any, int], Any], **changes: Any) -> Any:
    """`work(spec, pid)` while a container sleeps."""
    spec = box.spec("sleep", "100", **changes)
    running = box.start(spec)
    try:
        return work(spec, running.created.pid)
    finally:
        os.kill(running.created.pid, 9)
        running.finish()


def test_exec_sees_what_the_container_sees_and_is_as_confined(box: Box, inside: Inside) -> None:
    script = "hostname; ps | grep -c 'sleep 100'; ls -l /proc/1/ns /proc/self/ns; grep Cap /proc/self/status"
    script += "; ls /proc/$$/fd; true"
    result = inside(
        lambda: beside(
            box, lambda spec, pid: box.exec(spec, process("sh", "-c", script), pid).finish()
        )
    )
    assert result.code == 0
    lines = result.out.split("\n")
    assert lines[0] == "box"
    links = [line.split(" -> ")[1] for line in lines if " -> " in line]
    assert sorted(links[: len(links) // 2]) == sorted(links[len(links) // 2 :])
    assert "CapEff:\t00000000a80425fb" in result.out
    assert lines[-4:] == ["0", "1", "2", ""]


def test_exec_by_another_user_than_the_container_s(box: Box, inside: Inside) -> None:
    def work() -> Any:
        def each(spec: Any, pid: int) -> Any:
            return [
                box.exec(
                    spec,
                    process(
                        "sh",
                        "-c",
                        "id -u; id -g; echo $HOME; grep CapEff /proc/self/status",
                        user=user,
                    ),
                    pid,
                )
                .finish()
                .out.split()
                for user in (User(), User(username="0"), User(username="4321"))
            ]

        return beside(box, each, annotations={"io.dockpy.user": "bob"})

    own, root, other = inside(work)
    assert own == ["1000", "1001", "/home/bob", "CapEff:", "0" * 16]
    assert root == ["0", "0", "/root", "CapEff:", "00000000a80425fb"]
    assert other == ["4321", "0", "/", "CapEff:", "0" * 16]


def test_exec_failures_are_docker_s(box: Box, inside: Inside) -> None:
    def work() -> Any:
        def each(spec: Any, pid: int) -> Any:
            cases = (process("nope"), process("/etc/passwd"), process("true", cwd="/not/there"))
            errors = [failure(partial(box.exec, spec, case, pid)) for case in cases]
            return [(error.code, error.message) for error in errors]

        return beside(box, each)

    missing, denied, folder = inside(work)
    assert missing[0] == 127 and 'exec: "nope": executable file not found in $PATH' in missing[1]
    assert missing[1].startswith("OCI runtime exec failed: exec failed: ")
    assert denied[0] == 126 and "permission denied" in denied[1]
    assert 'chdir to cwd ("/not/there") set in config.json failed: no such file' in folder[1]


def test_exec_with_a_terminal(box: Box, inside: Inside) -> None:
    def work() -> Any:
        def each(spec: Any, pid: int) -> Any:
            wanted = process("sh", "-c", "tty; stty size", terminal=True)
            return drain(exec_process(spec, wanted, pid, None, console_size=(20, 60)))

        return beside(box, each)

    assert inside(work) == (0, "/dev/pts/0\r\n20 60\r\n")


def test_exec_into_a_dead_container_is_an_error(box: Box, inside: Inside) -> None:
    def work() -> Any:
        spec = box.spec("true")
        running = box.start(spec)
        pid = running.created.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return failure(lambda: box.exec(spec, process("true"), pid)).message

    assert "OCI runtime exec failed" in inside(work)


def test_an_exec_survives_nothing_of_its_starter(box: Box, inside: Inside) -> None:
    """The intermediate process is reaped and the exec'd one is our child."""

    def work() -> Any:
        def each(spec: Any, pid: int) -> Any:
            running = box.exec(spec, replace(process("sleep", "0")), pid)
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            code = running.finish().code
            return code, sorted(map(int, children)) == sorted([pid, running.created.pid])

        return beside(box, each)

    assert inside(work) == (0, True)


def test_exec_beside_our_own_init(box: Box, inside: Inside) -> None:
    """Whatever it is made of, it shows no file of the host."""

    def work() -> Any:
        def each(spec: Any, pid: int) -> Any:
            script = (
                "ps; ls -l /proc/1/exe /proc/1/root 2>&1; ls /proc/1/fd 2>&1; cat /proc/1/cmdline"
            )
            return box.exec(spec, process("sh", "-c", script), pid).finish().out

        return beside(box, each, annotations={"io.dockpy.init": "true"})

    out = inside(work)
    assert "docker-init" in out
    assert "2 root     sleep 100" in out
    assert "python" not in out


def test_exec_into_a_user_namespace_of_the_container_s_own(box: Box, inside: Inside) -> None:
    def work() -> Any:
        def each(spec: Any, pid: int) -> Any:
            script = "cat /proc/self/uid_map; readlink /proc/self/ns/user"
            result = box.exec(spec, process("sh", "-c", script), pid).finish()
            return result.out.split(), os.readlink(f"/proc/{pid}/ns/user")

        return beside(box, each, namespaces="user " + NAMESPACES)

    out, link = inside(work)
    assert out == ["0", "0", "1", link]


def test_a_caller_that_is_spent_leaves_the_workload_to_its_parent(box: Box, inside: Inside) -> None:
    """As the shim's worker calls it: code and output of what runs, the sentence of what does not."""

    def work() -> Any:
        def one(spec: Any, wanted: Process, pid: int) -> tuple[str, int]:
            (out, to_out), (told, to_told) = os.pipe(), os.pipe()
            worker = os.fork()
            if worker == 0:
                try:
                    null = os.open("/dev/null", os.O_RDONLY)
                    exec_process(spec, wanted, pid, Stdio(null, to_out, to_out), sibling=True)
                except StartFailed as failed:
                    os.write(to_told, failed.message.encode())
                finally:
                    os._exit(0)
            os.close(to_out)
            os.close(to_told)
            output, code = os.read(out, 4096).decode(), 0
            os.waitpid(worker, 0)
            for sibling in {*children(os.getpid())} - {pid}:
                code = os.waitstatus_to_exitcode(os.waitpid(sibling, 0)[1])
            return output or os.read(told, 4096).decode(), code

        def each(spec: Any, pid: int) -> Any:
            few = (Rlimit("RLIMIT_NOFILE", 7, 7),)
            says = process("sh", "-c", "echo $(hostname) $(ulimit -n); exit 3", rlimits=few)
            cases = (says, process("nope"), process("true", cwd="/not/there"))
            return [one(spec, case, pid) for case in cases]

        return beside(box, each)

    ran, missing, folder = inside(work)
    assert ran == ("box 7\n", 3)
    assert 'exec: "nope": executable file not found in $PATH' in missing[0]
    assert 'chdir to cwd ("/not/there") set in config.json failed: no such file' in folder[0]
