"""What a profile means for one container, and what a bad one is told."""

from __future__ import annotations

import json

import pytest

from dockpy.errors import InvalidParameter
from dockpy.oci.seccomp import (
    Seccomp,
    kernel_version,
    parse_profile,
    profile_from_json,
    resolve,
    seccomp_from_json,
    seccomp_to_json,
)
from dockpy.oci.seccomp_default import default_profile


def allowed(seccomp: Seccomp) -> set[str]:
    return {
        name
        for call in seccomp.syscalls
        if call.action == "SCMP_ACT_ALLOW" and not call.args
        for name in call.names
    }


def default(*caps: str, arch: str = "amd64", kernel: tuple[int, int] = (6, 18)) -> Seccomp:
    return resolve(default_profile(), caps, arch, kernel)


def test_mount_is_allowed_with_sys_admin_only() -> None:
    assert "mount" not in allowed(default("CAP_CHOWN"))
    assert "mount" in allowed(default("CAP_CHOWN", "CAP_SYS_ADMIN"))


def test_clone3_is_enosys_without_sys_admin() -> None:
    (rule,) = [call for call in default().syscalls if call.names == ("clone3",)]
    assert (rule.action, rule.errno_ret) == ("SCMP_ACT_ERRNO", 38)
    assert "clone3" in allowed(default("CAP_SYS_ADMIN"))


def test_ptrace_needs_a_kernel_that_checks_after_it() -> None:
    assert "ptrace" not in allowed(default(kernel=(4, 7)))
    assert "ptrace" in allowed(default(kernel=(4, 8)))
    assert "ptrace" in allowed(default("CAP_SYS_PTRACE", kernel=(4, 7)))


def test_architecture_conditions_are_those_of_the_machine() -> None:
    assert "arch_prctl" in allowed(default())
    assert "arch_prctl" not in allowed(default(arch="arm64"))
    assert "breakpoint" in allowed(default(arch="arm64"))
    assert default(arch="arm64").architectures == ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")
    assert default().architectures == ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")


def test_the_oci_form_survives_json() -> None:
    seccomp = default("CAP_SYS_ADMIN")
    assert seccomp_from_json(json.loads(json.dumps(seccomp_to_json(seccomp)))) == seccomp


def test_the_old_spelling_name_is_read() -> None:
    raw = {"defaultAction": "SCMP_ACT_ALLOW"}
    raw["syscalls"] = [{"name": "mkdir", "action": "SCMP_ACT_ERRNO"}]  # type: ignore[assignment]
    profile = profile_from_json(raw)
    assert profile is not None
    assert profile.rules[0].syscall.names == ("mkdir",)


def test_an_empty_profile_is_no_profile() -> None:
    assert parse_profile("{}") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Decoding seccomp profile failed"),
        ("[" * 100_000, "Decoding seccomp profile failed"),
        ("[]", "an object was expected"),
        ('{"defaultAction":"ALLOW"}', "'ALLOW' is not an action"),
        ('{"defaultAction":"SCMP_ACT_NOTIFY"}', "SCMP_ACT_NOTIFY is not served"),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],'
            '"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}',
            "both 'architectures' and 'archMap'",
        ),
        ('{"defaultAction":"SCMP_ACT_ALLOW","architectures":["x"]}', "not an architecture"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{}]}', "array of strings"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"]}]}', "not an action"),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":'
            '[{"name":"a","names":["a"],"action":"SCMP_ACT_LOG"}]}',
            "both 'name' and 'names'",
        ),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],'
            '"action":"SCMP_ACT_LOG","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}',
            "args.index",
        ),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],'
            '"action":"SCMP_ACT_LOG","args":[{"index":1,"op":"=="}]}]}',
            "not an operator",
        ),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],'
            '"action":"SCMP_ACT_ERRNO","errnoRet":65536}]}',
            "errnoRet",
        ),
        ('{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":true}', "defaultErrnoRet"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}', "listenerPath"),
    ],
)
def test_a_bad_profile_gets_one_sentence(text: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        parse_profile(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_kernel_versions() -> None:
    assert kernel_version("6.18.44-fc-v595") == (6, 18)
    assert kernel_version("4.8") == (4, 8)
    with pytest.raises(InvalidParameter):
        kernel_version("six")
