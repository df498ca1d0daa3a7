"""A classic BPF machine like the kernel's for seccomp, and the plain meaning of a profile."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from errno import ENOSYS

from dockpy.oci.seccomp import Arg, Seccomp

AUDIT = {
    "x86_64": 0xC000003E,
    "x32": 0xC000003E,
    "i386": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
SCMP = {
    "x86_64": "SCMP_ARCH_X86_64",
    "x32": "SCMP_ARCH_X32",
    "i386": "SCMP_ARCH_X86",
    "aarch64": "SCMP_ARCH_AARCH64",
    "arm": "SCMP_ARCH_ARM",
}

NONE: Mapping[str, Sequence[int]] = {}
Code = Sequence[tuple[int, int, int, int]]


def decode(program: bytes) -> Code:
    """Also checks what the kernel checks: jumps stay inside and forward, the end is a RET."""
    code = list(struct.iter_unpack("<HBBI", program))
    for at, (op, jt, jf, k) in enumerate(code):
        assert op in (0x20, 0x54, 0x06, 0x05, 0x15, 0x25, 0x35)
        if op == 0x05:
            assert at + 1 + k < len(code)
        elif op in (0x15, 0x25, 0x35):
            assert at + 1 + max(jt, jf) < len(code)
        elif op == 0x20:
            assert k % 4 == 0 and k < 64
    assert code[-1][0] == 0x06
    assert len(code) <= 4096
    return code


def run(code: Code, audit: int, number: int, args: Sequence[int] = ()) -> int:
    data = struct.pack("<IIQ6Q", number, audit, 0x7F0000001000, *args, *[0] * (6 - len(args)))
    at = accumulator = 0
    while True:
        op, jt, jf, k = code[at]
        at += 1
        if op == 0x06:
            return k
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == 0x54:
            accumulator &= k
        elif op == 0x05:
            at += k
        else:
            true = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[op]
            at += jt if true else jf


def ret(action: str, errno: int | None) -> int:
    low = 1 if errno is None else errno
    return {
        "SCMP_ACT_KILL": 0,
        "SCMP_ACT_KILL_THREAD": 0,
        "SCMP_ACT_KILL_PROCESS": 0x80000000,
        "SCMP_ACT_TRAP": 0x30000,
        "SCMP_ACT_ERRNO": 0x50000 | low,
        "SCMP_ACT_TRACE": 0x7FF00000 | low,
        "SCMP_ACT_LOG": 0x7FFC0000,
        "SCMP_ACT_ALLOW": 0x7FFF0000,
    }[action]


def holds(arg: Arg, actual: int, narrow: bool) -> bool:
    value, two = arg.value, arg.value_two
    if narrow:
        actual, value, two = (number & 0xFFFFFFFF for number in (actual, value, two))
    return {
        "SCMP_CMP_EQ": actual == value,
        "SCMP_CMP_NE": actual != value,
        "SCMP_CMP_LT": actual < value,
        "SCMP_CMP_LE": actual <= value,
        "SCMP_CMP_GT": actual > value,
        "SCMP_CMP_GE": actual >= value,
        "SCMP_CMP_MASKED_EQ": actual & value == two,
    }[arg.op]


def meaning(
    seccomp: Seccomp,
    arch: str,
    names: Mapping[int, Sequence[str]],
    number: int,
    args: Sequence[int] = (),
    narrow: Mapping[str, Sequence[int]] = NONE,
) -> int:
    """What should happen, read off the profile: no search, no tree. `number` without X32_BIT."""
    default = ret(seccomp.default_action, seccomp.default_errno_ret)
    mine = names.get(number, ())
    known = {name: at for at, these in names.items() for name in these}
    conditional = None
    for call in seccomp.syscalls:
        action = ret(call.action, call.errno_ret)
        if action == default or not any(name in call.names for name in mine):
            continue
        if not call.args:
            return action
        test = all if len({arg.index for arg in call.args}) == len(call.args) else any
        if conditional is None and test(
            holds(
                arg,
                (list(args) + [0] * 6)[arg.index],
                arch in ("i386", "arm") or any(arg.index in narrow.get(n, ()) for n in mine),
            )
            for arg in call.args
        ):
            conditional = action
    if conditional is not None:
        return conditional
    apart = {"x32": (512, 548), "arm": (0xF0000, 0xF0010)}.get(arch, (1 << 32, 1 << 32))
    named = [known[n] for call in seccomp.syscalls for n in call.names if n in known]
    newest = max((n for n in named if n < apart[0]), default=None)
    refusing = ret(seccomp.default_action, 1) in (0, 0x80000000, 0x30000, 0x50001)
    if newest is None or not refusing:
        return default
    newer = newest < number < apart[0] or number >= apart[1]
    return 0x50000 | ENOSYS if newer else default
