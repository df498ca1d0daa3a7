"""`run`: what docker users type every day, held against every engine that is here.

The image is busybox (sh, and its applets) with root, daemon, and a user `app` (1000:1000, home
/home/app, also in group `extra` 2000) in its passwd and group files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.e2e.engines import Engine


def test_exit_code_of_the_command_is_the_exit_code_of_run(engine: Engine) -> None:
    assert engine.cli("run", "--rm", engine.image, "true").code == 0
    assert engine.cli("run", "--rm", engine.image, "sh", "-c", "exit 42").code == 42


def test_a_command_killed_by_a_signal_gives_128_plus_the_signal(engine: Engine) -> None:
    # Not PID 1's own signal (the kernel ignores those it has no handler for): a child of it.
    result = engine.cli("run", "--rm", engine.image, "sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert result.code == 137


def test_missing_command_gives_127_and_a_sentence(engine: Engine) -> None:
    result = engine.cli("run", "--rm", engine.image, "no-such-command")
    assert result.code == 127
    assert "executable file not found in $PATH" in result.err


def test_command_that_is_a_folder_or_not_executable_gives_126(engine: Engine) -> None:
    assert engine.cli("run", "--rm", engine.image, "/etc").code == 126
    result = engine.cli("run", "--rm", engine.image, "/etc/passwd")
    assert result.code == 126
    assert "permission denied" in result.err.lower()


def test_missing_image_that_may_not_be_pulled_gives_125(engine: Engine) -> None:
    result = engine.cli("run", "--rm", "--pull", "never", "no-such-image:v1", "true")
    assert result.code == 125
    assert "no-such-image:v1" in result.err


def test_unknown_flag_gives_125_and_names_it(engine: Engine) -> None:
    result = engine.cli("run", "--no-such-flag", engine.image, "true")
    assert result.code == 125
    assert "unknown flag: --no-such-flag" in result.err


def test_stdout_and_stderr_stay_apart(engine: Engine) -> None:
    # Our bridge has a warning of its own on stderr.
    result = engine.cli(
        "run", "--rm", "--network", "none", engine.image, "sh", "-c", "echo out; echo err >&2"
    )
    assert (result.out, result.err) == ("out\n", "err\n")


def test_stdin_is_closed_without_i_and_passed_with_i(engine: Engine) -> None:
    assert engine.cli("run", "--rm", engine.image, "cat", input=b"lost").out == ""
    assert engine.cli("run", "--rm", "-i", engine.image, "cat", input=b"kept\n").out == "kept\n"


def test_environment_of_the_command(engine: Engine, folder: Path) -> None:
    env_file = folder / "env"
    env_file.write_text("# comment\n\n  FILE_A=1 # kept \nFILE_B='quoted'\nINHERITED\nABSENT_ONE\n")
    result = engine.cli(
        "run", "--rm", "--env-file", str(env_file), "-e", "FLAG=x=y", "-e", "FILE_B=over",
        engine.image, "env", env={"INHERITED": "yes"},
    )  # fmt: skip
    lines = result.out.splitlines()
    assert "FILE_A=1 # kept " in lines
    assert "FILE_B=over" in lines
    assert "FLAG=x=y" in lines
    assert "INHERITED=yes" in lines
    assert not [line for line in lines if line.startswith("ABSENT_ONE")]
    assert any(line.startswith("PATH=/usr/local/sbin:") for line in lines)
    assert any(line.startswith("HOSTNAME=") for line in lines)
    assert "HOME=/root" in lines


def test_working_directory_is_made_when_missing(engine: Engine) -> None:
    assert engine.cli("run", "--rm", "-w", "/made/here", engine.image, "pwd").out == "/made/here\n"


def test_entrypoint_replaces_that_of_the_image(engine: Engine) -> None:
    result = engine.cli("run", "--rm", "--entrypoint", "echo", engine.image, "a", "b")
    assert result.out == "a b\n"


def test_user_by_name_takes_home_and_groups_from_the_image(engine: Engine) -> None:
    result = engine.cli(
        "run", "--rm", "-u", "app", engine.image, "sh", "-c", "id -u; id -g; echo $HOME"
    )
    assert result.out == "1000\n1000\n/home/app\n"


def test_user_by_number_needs_no_passwd_entry(engine: Engine) -> None:
    result = engine.cli(
        "run", "--rm", "-u", "4321:8765", engine.image, "sh", "-c", "id -u; id -g; echo $HOME"
    )
    assert result.out == "4321\n8765\n/\n"


def test_unknown_user_is_refused_with_the_name(engine: Engine) -> None:
    result = engine.cli("run", "--rm", "-u", "nobody-here", engine.image, "true")
    assert result.code in (125, 126)
    assert "nobody-here" in result.err


def test_a_user_writes_files_of_his_own(engine: Engine) -> None:
    result = engine.cli(
        "run", "--rm", "-u", "1000", engine.image, "sh", "-c", "echo x >/tmp/f && stat -c %u /tmp/f"
    )
    assert result.out == "1000\n"


def test_hostname_is_the_short_id_or_what_was_asked(engine: Engine) -> None:
    assert engine.cli("run", "--rm", "-h", "myhost", engine.image, "hostname").out == "myhost\n"
    assert re.fullmatch(r"[0-9a-f]{12}\n", engine.cli("run", "--rm", engine.image, "hostname").out)


def test_hostname_beside_the_hosts_network(engine: Engine) -> None:
    command = ("run", "--rm", "--network", "host")
    assert engine.cli(*command, "-h", "mybox", engine.image, "hostname").out == "mybox\n"
    assert engine.cli(*command, engine.image, "hostname").out == f"{os.uname().nodename}\n"


def test_a_group_beside_the_default_user(engine: Engine) -> None:
    script = "id -u; id -g; touch /x && chmod 600 /x && cat /x && echo ok"
    result = engine.cli("run", "--rm", "-u", ":50", engine.image, "sh", "-c", script)
    assert result.out == "0\n50\nok\n", result.err


def test_hosts_and_resolv_conf_are_there(engine: Engine) -> None:
    result = engine.cli(
        "run",
        "--rm",
        "-h",
        "myhost",
        "--add-host",
        "db:10.9.8.7",
        engine.image,
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
    )
    assert result.code == 0
    assert "127.0.0.1\tlocalhost" in result.out
    assert "10.9.8.7\tdb" in result.out


def test_name_is_taken_once(engine: Engine) -> None:
    name = engine.name()
    assert engine.cli("create", "--name", name, engine.image, "true").code == 0
    second = engine.cli("run", "--name", name, engine.image, "true")
    assert second.code == 125
    assert f'The container name "/{name}" is already in use' in second.err
    assert engine.cli("rm", name).out == f"{name}\n"


def test_invalid_name_is_refused(engine: Engine) -> None:
    result = engine.cli("run", "--name", "a b", engine.image, "true")
    assert result.code == 125
    assert "Invalid container name (a b)" in result.err


def test_rm_leaves_nothing(engine: Engine) -> None:
    name = engine.name()
    assert engine.cli("run", "--rm", "--name", name, engine.image, "true").code == 0
    assert name not in engine.cli("ps", "-a", "--format", "{{.Names}}").out.split()


def test_detached_run_prints_the_id(engine: Engine) -> None:
    result = engine.cli("run", "-d", "--rm", engine.image, "sleep", "100")
    assert re.fullmatch(r"[0-9a-f]{64}\n", result.out)
    assert engine.cli("rm", "-f", result.out.strip()).code == 0


def test_cidfile_is_written_without_a_newline_and_never_overwritten(
    engine: Engine, folder: Path
) -> None:
    file = folder / "cid"
    assert engine.cli("run", "--rm", "--cidfile", str(file), engine.image, "true").code == 0
    assert re.fullmatch(r"[0-9a-f]{64}", file.read_text())
    again = engine.cli("run", "--rm", "--cidfile", str(file), engine.image, "true")
    assert again.code == 125
    assert str(file) in again.err


def test_labels_show_in_inspect(engine: Engine) -> None:
    name = engine.name()
    engine.cli("create", "--name", name, "-l", "a.b=c d", "--label", "bare", engine.image, "true")
    result = engine.cli(
        "inspect", "-f", '{{index .Config.Labels "a.b"}}|{{index .Config.Labels "bare"}}', name
    )
    assert result.out == "c d|\n"
    engine.cli("rm", name)


def test_read_only_root_with_a_writable_tmpfs(engine: Engine) -> None:
    result = engine.cli(
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/scratch",
        engine.image,
        "sh",
        "-c",
        "echo x >/scratch/f && echo x >/f",
    )
    assert result.code == 1
    assert "Read-only file system" in result.err
    assert "/scratch" not in result.err


def test_bind_mounts(engine: Engine, folder: Path) -> None:
    (folder / "in").write_text("host\n")
    result = engine.cli(
        "run",
        "--rm",
        "-v",
        f"{folder}:/d",
        engine.image,
        "sh",
        "-c",
        "cat /d/in; echo made >/d/out",
    )
    assert (result.code, result.out) == (0, "host\n")
    assert (folder / "out").read_text() == "made\n"
    readonly = engine.cli(
        "run", "--rm", "-v", f"{folder}:/d:ro", engine.image, "sh", "-c", "echo x >/d/no"
    )
    assert readonly.code == 1
    assert "Read-only file system" in readonly.err
    single = engine.cli(
        "run",
        "--rm",
        "--mount",
        f"type=bind,source={folder}/in,target=/one,readonly",
        engine.image,
        "cat",
        "/one",
    )
    assert single.out == "host\n"


def test_missing_bind_source_is_made_by_v_and_refused_by_mount(
    engine: Engine, folder: Path
) -> None:
    missing = folder / "not" / "there"
    refused = engine.cli(
        "run", "--rm", "--mount", f"type=bind,src={missing},dst=/d", engine.image, "true"
    )
    assert refused.code == 125
    assert "bind source path does not exist" in refused.err
    assert engine.cli("run", "--rm", "-v", f"{missing}:/d", engine.image, "true").code == 0
    assert missing.is_dir()


def test_shm_size_and_tmpfs_options(engine: Engine) -> None:
    result = engine.cli(
        "run", "--rm", "--shm-size", "32m", "--tmpfs", "/t:size=1m,exec", engine.image, "sh", "-c",
        "df -k /dev/shm | tail -1; grep ' /t ' /proc/mounts",
    )  # fmt: skip
    assert re.search(r"\b32768\b", result.out)
    assert "size=1024k" in result.out and "noexec" not in result.out


DEFAULT_CAPABILITIES = 0xA80425FB


def capability_sets(engine: Engine, *flags: str) -> dict[str, int]:
    out = engine.cli("run", "--rm", *flags, engine.image, "grep", "^Cap", "/proc/self/status").out
    return {line.split(":")[0]: int(line.split(":")[1], 16) for line in out.splitlines()}


def test_default_capabilities_are_dockers_fourteen(engine: Engine) -> None:
    sets = capability_sets(engine)
    assert sets["CapBnd"] == sets["CapEff"] == sets["CapPrm"] == DEFAULT_CAPABILITIES
    assert sets["CapAmb"] == 0


def test_capabilities_added_and_dropped(engine: Engine) -> None:
    assert capability_sets(engine, "--cap-drop", "ALL")["CapEff"] == 0
    assert capability_sets(engine, "--cap-drop", "all", "--cap-add", "chown")["CapEff"] == 1
    added = capability_sets(engine, "--cap-add", "NET_ADMIN")["CapBnd"]
    assert added == DEFAULT_CAPABILITIES | 1 << 12
    assert engine.cli("run", "--rm", "--cap-add", "NO_SUCH", engine.image, "true").code == 125


def test_a_user_who_is_not_root_has_no_effective_capabilities(engine: Engine) -> None:
    assert capability_sets(engine, "-u", "1000")["CapEff"] == 0


def status_field(engine: Engine, field: str, *flags: str) -> str:
    out = engine.cli(
        "run", "--rm", *flags, engine.image, "grep", f"^{field}:", "/proc/self/status"
    ).out
    return out.partition(":")[2].strip()


def test_seccomp_filter_is_on_unless_unconfined(engine: Engine) -> None:
    assert status_field(engine, "Seccomp") == "2"
    assert status_field(engine, "Seccomp", "--security-opt", "seccomp=unconfined") == "0"
    if engine.is_dockpy:  # docker's --privileged wants device nodes that a virtual machine may lack
        assert status_field(engine, "Seccomp", "--privileged") == "0"


def test_seccomp_forbids_what_docker_forbids(engine: Engine) -> None:
    result = engine.cli("run", "--rm", engine.image, "unshare", "-U", "true")
    assert result.code == 1
    assert "Operation not permitted" in result.err


def test_no_new_privileges(engine: Engine) -> None:
    assert status_field(engine, "NoNewPrivs") == "0"
    assert status_field(engine, "NoNewPrivs", "--security-opt", "no-new-privileges") == "1"


def test_masked_paths(engine: Engine) -> None:
    result = engine.cli(
        "run", "--rm", engine.image, "sh", "-c",
        "cat /proc/kcore /proc/keys | wc -c; ls /sys/firmware | wc -l; echo b >/proc/sysrq-trigger",
    )  # fmt: skip
    assert result.out.split() == ["0", "0"]
    assert result.code == 1


def test_ulimits(engine: Engine) -> None:
    result = engine.cli(
        "run", "--rm", "--ulimit", "nofile=512:1024", "--ulimit", "locks=77", engine.image,
        "sh", "-c", "ulimit -Sn; ulimit -Hn; grep locks /proc/self/limits",
    )  # fmt: skip
    assert result.out.split() == ["512", "1024", "Max", "file", "locks", "77", "77", "locks"]


def test_sysctl_of_a_namespace(engine: Engine) -> None:
    result = engine.cli(
        "run",
        "--rm",
        "--sysctl",
        "kernel.msgmax=9000",
        engine.image,
        "cat",
        "/proc/sys/kernel/msgmax",
    )
    assert result.out == "9000\n"
    refused = engine.cli("run", "--rm", "--sysctl", "kernel.panic=1", engine.image, "true")
    assert refused.code in (125, 126)
    assert "kernel.panic" in refused.err


def test_init_reaps_and_is_pid_one(engine: Engine) -> None:
    result = engine.cli(
        # The name of what is executed from memory is another one for a moment.
        "run",
        "--rm",
        "--init",
        engine.image,
        "sh",
        "-c",
        "echo $$; sleep 0.3; cat /proc/1/comm; exit 3",
    )
    assert result.code == 3
    own, first = result.out.split()
    assert own != "1"
    assert first == "docker-init"


def test_command_is_pid_one_without_init(engine: Engine) -> None:
    assert engine.cli("run", "--rm", engine.image, "sh", "-c", "echo $$").out == "1\n"


def test_network_none_has_loopback_only(engine: Engine) -> None:
    result = engine.cli("run", "--rm", "--network", "none", engine.image, "ls", "/sys/class/net")
    assert result.out.split() == ["lo"]
    up = engine.cli(
        "run", "--rm", "--network", "none", engine.image, "ping", "-c", "1", "127.0.0.1"
    )
    assert up.code == 0


def test_host_namespaces(engine: Engine) -> None:
    assert engine.cli(
        "run", "--rm", "--network", "host", engine.image, "readlink", "/proc/self/ns/net"
    ).out == (os.readlink("/proc/self/ns/net") + "\n")
    for kind in ("uts", "ipc", "pid"):
        out = engine.cli(
            "run", "--rm", f"--{kind}", "host", engine.image, "readlink", f"/proc/self/ns/{kind}"
        ).out
        assert out == os.readlink(f"/proc/self/ns/{kind}") + "\n", kind


def test_namespaces_of_another_container(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, "--ipc", "shareable", engine.image, "sleep", "100")
    for kind, flag in (("net", "--network"), ("ipc", "--ipc"), ("pid", "--pid")):
        own = engine.cli("exec", name, "readlink", f"/proc/self/ns/{kind}").out
        other = engine.cli(
            "run",
            "--rm",
            flag,
            f"container:{name}",
            engine.image,
            "readlink",
            f"/proc/self/ns/{kind}",
        )
        assert other.out == own != "", kind
    engine.cli("rm", "-f", name)


def test_device(engine: Engine) -> None:
    result = engine.cli(
        "run",
        "--rm",
        "--device",
        "/dev/null:/dev/hole",
        engine.image,
        "sh",
        "-c",
        "echo x >/dev/hole; stat -c %F /dev/hole",
    )
    assert result.out == "character special file\n"


def test_a_missing_device_is_told_by_its_name(engine: Engine) -> None:
    result = engine.cli("run", "--rm", "--device", "/dev/nope", engine.image, "true")
    assert result.code == 127  # docker's client goes by the words
    words = 'error gathering device information while adding custom device "/dev/nope": no such'
    assert words in result.err


def test_devices_that_every_container_has(engine: Engine) -> None:
    result = engine.cli(
        "run", "--rm", engine.image, "sh", "-c",
        "for d in null zero full random urandom tty ptmx; do [ -c /dev/$d ] || echo no $d; done;"
        "ls -d /dev/pts /dev/shm /dev/mqueue /dev/fd /dev/stdin; head -c 4 /dev/zero | wc -c",
    )  # fmt: skip
    assert "no " not in result.out
    assert result.out.split()[-1] == "4"


def test_stop_signal_and_stop_timeout(engine: Engine) -> None:
    name = engine.name()
    script = "trap 'echo usr; exit 7' USR1; while :; do sleep 0.1; done"
    engine.cli(
        "run", "-d", "--name", name, "--stop-signal", "SIGUSR1", engine.image, "sh", "-c", script
    )
    assert engine.cli("stop", name).out == f"{name}\n"
    assert engine.cli("wait", name).out == "7\n"
    assert engine.cli("logs", name).out == "usr\n"
    engine.cli("rm", name)


def test_stop_kills_what_ignores_the_signal(engine: Engine) -> None:
    name = engine.name()
    engine.cli("run", "-d", "--name", name, "--stop-timeout", "1", engine.image, "sleep", "100")
    assert engine.cli("stop", name).code == 0
    assert (
        engine.cli("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", name).out
        == "137 exited\n"
    )
    engine.cli("rm", name)


def test_platform_that_this_host_cannot_run_is_refused(engine: Engine) -> None:
    result = engine.cli(
        "run", "--rm", "--pull", "never", "--platform", "linux/s390x", engine.image, "true"
    )
    assert result.code == 125


@pytest.mark.parametrize("flag", [["--gpus", "all"], ["--link", "a:b"]])
def test_flags_that_are_not_served_are_refused_by_name(engine: Engine, flag: list[str]) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker serves these flags")
    result = engine.cli("run", "--rm", *flag, engine.image, "true")
    assert result.code == 125
    assert flag[0].lstrip("-") in result.err


def test_limits_that_cannot_be_enforced_are_said(engine: Engine) -> None:
    result = engine.cli("run", "--rm", "--cpus", "1", engine.image, "echo", "ran")
    assert (result.code, result.out) == (0, "ran\n")
    if engine.cli("info", "--format", "{{.CpuCfsQuota}}").out == "false\n":
        assert "WARNING" in result.err and "cpu" in result.err.lower()
