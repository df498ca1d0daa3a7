"""The compiled program against the plain meaning of the profile: every call, every architecture."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from dockpy.errors import InvalidParameter, Unavailable
from dockpy.oci.seccomp import Arg, Seccomp, Syscall, resolve
from dockpy.oci.seccomp_default import default_profile
from dockpy.runtime import bpf
from dockpy.runtime.syscalls import X32_BIT, numbers
from tests.runtime.bpf_machine import AUDIT, SCMP, decode, meaning, run

KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
EPERM = 0x50001
ENOSYS = 0x50000 | 38
MACHINES = {"x86_64": ("x86_64", "x32", "i386"), "aarch64": ("aarch64", "arm")}
GO = {"x86_64": "amd64", "aarch64": "arm64"}
CAPS = (
    (),
    ("CAP_SYS_ADMIN",),
    ("CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_SYS_NICE", "CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG"),
)
NARROW = bpf._NARROW_ARGS


def names_of(arch: str) -> dict[int, list[str]]:
    result: dict[int, list[str]] = {}
    for name, number in numbers(arch).items():
        result.setdefault(number, []).append(name)
    return result


def tried(arch: str) -> list[int]:
    top = X32_BIT if arch in ("x86_64", "x32") else 1 << 32
    edges = [1 << 16, 0xEFFFF, *range(0xF0000, 0xF0014), 0x3FFFFFFF, top - 1]
    return [*range(1200), *(number for number in edges if number < top)]


def interesting(values: set[int]) -> list[int]:
    around = {value + delta for value in values for delta in (-1, 0, 1)}
    high = {value | 1 << 32 for value in values} | {value ^ 1 << 63 for value in values}
    return sorted(v for v in around | high | {0, 1, 0xFFFFFFFF, (1 << 64) - 1} if 0 <= v < 1 << 64)


def vectors(seccomp: Seccomp, names: Sequence[str], limit: int = 400) -> list[tuple[int, ...]]:
    """Argument lists at and around all values that rules about `names` compare with."""
    values: dict[int, set[int]] = {}
    for call in seccomp.syscalls:
        if any(name in call.names for name in names):
            for arg in call.args:
                values.setdefault(arg.index, set()).update((arg.value, arg.value_two))
    if not values:
        return [()]
    lists = [interesting(values[i]) if i in values else [0] for i in range(6)]
    every = list(itertools.islice(itertools.product(*lists), 20_000))
    return every if len(every) <= limit else random.Random(1).sample(every, limit)


def compare(seccomp: Seccomp, machine: str, arches: Sequence[str]) -> int:
    code = decode(bpf.program(seccomp, machine))
    compared = 0
    for arch in arches:
        names = names_of(arch)
        bit = X32_BIT if arch == "x32" else 0
        for number in tried(arch):
            for args in vectors(seccomp, names.get(number, ())):
                got = run(code, AUDIT[arch], number | bit, args)
                want = meaning(seccomp, arch, names, number, args, NARROW)
                assert got == want, (arch, number, names.get(number), [hex(a) for a in args])
                compared += 1
    return compared


@pytest.mark.parametrize("caps", CAPS)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_default_policy_means_the_same_compiled(machine: str, caps: tuple[str, ...]) -> None:
    seccomp = resolve(default_profile(), caps, GO[machine], (6, 1))
    assert compare(seccomp, machine, MACHINES[machine]) > 2000


@pytest.mark.parametrize("machine", MACHINES)
def test_a_foreign_architecture_is_killed(machine: str) -> None:
    code = decode(bpf.program(resolve(default_profile(), (), GO[machine], (6, 1)), machine))
    for arch, audit in {**AUDIT, "riscv64": 0xC00000F3, "none": 0}.items():
        if arch not in MACHINES[machine]:
            assert run(code, audit, numbers("x86_64")["getpid"]) == KILL_PROCESS


def test_x32_calls_are_enosys_where_the_profile_does_not_list_x32() -> None:
    seccomp = Seccomp("SCMP_ACT_ALLOW", ("SCMP_ARCH_X86_64",))
    code = decode(bpf.program(seccomp, "x86_64"))
    assert run(code, AUDIT["x86_64"], X32_BIT | 1) == ENOSYS
    assert run(code, AUDIT["x86_64"], 1) == ALLOW


def test_the_machine_itself_is_always_listed() -> None:
    code = decode(bpf.program(Seccomp("SCMP_ACT_ALLOW", ("SCMP_ARCH_X86",)), "x86_64"))
    assert run(code, AUDIT["x86_64"], 0) == ALLOW
    assert run(code, AUDIT["i386"], 0) == ALLOW


def test_calls_newer_than_the_profile_are_enosys_and_older_ones_eperm() -> None:
    code = decode(bpf.program(resolve(default_profile(), (), "amd64", (6, 1)), "x86_64"))
    table = numbers("x86_64")
    assert run(code, AUDIT["x86_64"], table["removexattrat"]) == ALLOW
    assert run(code, AUDIT["x86_64"], table["open_tree_attr"]) == ENOSYS
    assert run(code, AUDIT["x86_64"], 0x3FFFFFFF) == ENOSYS
    assert run(code, AUDIT["x86_64"], 0xFFFFFFFF) == ENOSYS
    assert run(code, AUDIT["x86_64"], table["io_uring_setup"]) == EPERM
    assert run(code, AUDIT["x86_64"], table["clone3"]) == ENOSYS


@pytest.mark.parametrize("family", [38, 40])
def test_high_bits_do_not_smuggle_a_socket_family_past_the_policy(family: int) -> None:
    # The kernel takes an int: socket(1 << 32 | AF_ALG) is socket(AF_ALG).
    code = decode(bpf.program(resolve(default_profile(), (), "amd64", (6, 1)), "x86_64"))
    for high in (0, 1, 0x80000000, 0xFFFFFFFF):
        assert run(code, AUDIT["x86_64"], numbers("x86_64")["socket"], (high << 32 | family,)) == (
            EPERM
        )


def test_tiocsti_cannot_be_smuggled_past_a_deny_list() -> None:
    deny = Syscall(("ioctl",), "SCMP_ACT_ERRNO", (Arg(1, 0x5412, "SCMP_CMP_EQ"),))
    code = decode(bpf.program(Seccomp("SCMP_ACT_ALLOW", (), (deny,)), "x86_64"))
    ioctl = numbers("x86_64")["ioctl"]
    assert run(code, AUDIT["x86_64"], ioctl, (0, 0x5412)) == EPERM
    assert run(code, AUDIT["x86_64"], ioctl, (0, 1 << 32 | 0x5412)) == EPERM
    assert run(code, AUDIT["x86_64"], ioctl, (0, 0x5413)) == ALLOW


def random_profile(seed: int) -> Seccomp:
    dice = random.Random(seed)
    actions = ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "ERRNO", "TRACE", "LOG", "ALLOW"]
    pool = sorted({*numbers("x86_64"), *numbers("arm"), "no_such_call"})
    operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]

    def value() -> int:
        return dice.choice(
            [
                dice.randrange(16),
                dice.getrandbits(32),
                dice.getrandbits(64),
                dice.getrandbits(32) << 32,
                0,
                (1 << 64) - 1,
                0xFFFFFFFF,
            ]
        )

    def call() -> Syscall:
        args = tuple(
            Arg(dice.randrange(6), value(), "SCMP_CMP_" + dice.choice(operators), value())
            for _ in range(dice.choice([0, 0, 1, 1, 2, 3, 6]))
        )
        # Calls with long conditions are few, or the kernel's 4096 instructions are not enough.
        names = tuple(dice.sample(pool, dice.choice([1, 1, 2, 3] if args else [1, 5, 60])))
        errno = dice.choice([None, 0, 38, 4095])
        return Syscall(names, "SCMP_ACT_" + dice.choice(actions), args, errno)

    return Seccomp(
        "SCMP_ACT_" + dice.choice(actions),
        tuple(SCMP.values()),
        tuple(call() for _ in range(dice.randrange(25))),
        dice.choice([None, 38, 99]),
    )


@pytest.mark.parametrize("seed", range(12))
def test_any_profile_means_the_same_compiled(seed: int) -> None:
    seccomp = random_profile(seed)
    machine = ("x86_64", "aarch64")[seed % 2]
    arches = [a for a in AUDIT if a in MACHINES[machine]] + ["i386", "arm"]
    compare(seccomp, machine, list(dict.fromkeys(arches)))


def test_long_jumps_are_bridged() -> None:
    calls = tuple(
        Syscall((name,), "SCMP_ACT_ERRNO", (), 2 + index % 3)
        for index, name in enumerate(numbers("x86_64"))
    )
    calls += (
        Syscall(
            ("read",),
            "SCMP_ACT_LOG",
            tuple(Arg(i, 1 << 40 | i, "SCMP_CMP_GT") for i in range(6)),
        ),
    )
    seccomp = Seccomp("SCMP_ACT_ALLOW", (), calls[1:])
    compare(seccomp, "x86_64", ("x86_64",))


def test_a_profile_the_kernel_would_refuse_for_length_is_refused_by_name() -> None:
    calls = tuple(
        Syscall(("read",), "SCMP_ACT_LOG", (Arg(0, i, "SCMP_CMP_EQ"),)) for i in range(2000)
    )
    with pytest.raises(InvalidParameter, match="instructions"):
        bpf.program(Seccomp("SCMP_ACT_ALLOW", (), calls), "x86_64")


@pytest.mark.parametrize("text", ["", "x" * 40])
def test_the_cache_gives_the_same_program_and_trusts_only_whole_files_of_ours(
    tmp_path: Path, text: str
) -> None:
    seccomp = resolve(default_profile(), (), "amd64", (6, 1))
    folder = tmp_path / "seccomp"
    fresh = bpf.program(seccomp)
    assert bpf.cached_program(seccomp, str(folder)) == fresh
    assert folder.stat().st_mode & 0o777 == 0o700
    (kept,) = folder.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert bpf.cached_program(seccomp, str(folder)) == fresh
    kept.write_bytes(text.encode() or kept.read_bytes()[:-8])
    assert bpf.cached_program(seccomp, str(folder)) == fresh

    evil = bpf.program(Seccomp("SCMP_ACT_ALLOW"))
    kept.write_bytes(hashlib.sha256(evil).digest() + evil)
    folder.chmod(0o770)  # somebody else could have written it
    assert bpf.cached_program(seccomp, str(folder)) == fresh
    folder.chmod(0o700)
    moved = tmp_path / "moved"
    folder.rename(moved)
    folder.symlink_to(moved)
    assert bpf.cached_program(seccomp, str(folder)) == fresh


def test_two_profiles_never_share_a_cached_program(tmp_path: Path) -> None:
    for caps in CAPS:
        seccomp = resolve(default_profile(), caps, "amd64", (6, 1))
        assert bpf.cached_program(seccomp, str(tmp_path / "c")) == bpf.program(seccomp)
    assert len(list((tmp_path / "c").iterdir())) == len(CAPS)


def test_a_cache_does_not_bring_back_a_store_that_was_deleted(tmp_path: Path) -> None:
    seccomp = Seccomp("SCMP_ACT_ALLOW")
    code = bpf.program(seccomp)
    assert bpf.cached_program(seccomp, str(tmp_path / "store/cache/seccomp")) == code
    assert not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()
    assert bpf.cached_program(seccomp, str(tmp_path / "store/cache/seccomp")) == code
    assert len(list((tmp_path / "store/cache/seccomp").iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_only_speed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    seccomp = Seccomp("SCMP_ACT_ALLOW")
    code = bpf.program(seccomp)
    assert bpf.cached_program(seccomp, str(tmp_path / "file" / "c")) == code


def test_notify_and_unknown_machines_are_refused_by_name() -> None:
    with pytest.raises(InvalidParameter, match="SCMP_ACT_NOTIFY"):
        bpf.program(Seccomp("SCMP_ACT_NOTIFY"), "x86_64")
    with pytest.raises(Unavailable, match="riscv64"):
        bpf.program(Seccomp("SCMP_ACT_ALLOW"), "riscv64")
