"""Compiles `linux.seccomp` to classic BPF, the program that the kernel runs at each system call.

Values in, bytes out (an array of `struct sock_filter`); installing it is linux's business. Meaning
as runc with libseccomp, where the specification is silent:

- A rule without arguments beats all that have some; among equals the first wins. A rule whose
  action is the default one says nothing. Names that an architecture lacks are passed over.
- Conditions on one argument twice in a rule are alternatives, else all must hold.
- With a default action that refuses, calls newer than the newest one named get ENOSYS, so that
  a libc probing for them falls back. An architecture that is not listed kills.

One deliberate difference: an argument that the kernel itself reads as 32 bits is compared as 32
bits. Else `socket(1 << 32 | AF_ALG)` passes "greater than AF_VSOCK" and the kernel then cuts it
down to AF_ALG (the kind of CVE-2019-10063 and CVE-2019-7303, there for TIOCSTI).
"""

from __future__ import annotations

import os
import struct
from errno import ENOSYS, EPERM

from dockpy import files
from dockpy.errors import InvalidParameter, Unavailable
from dockpy.oci.seccomp import Arg, Seccomp, seccomp_to_json
from dockpy.runtime.syscalls import X32_BIT, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Instruction = tuple[int, int, int, int]  # code, jt, jf, k of struct sock_filter
    Interval = tuple[int, list[Instruction]]  # first number, code for it and those up to the next

# linux/seccomp.h
RET_KILL_PROCESS = 0x80000000
RET_KILL_THREAD = 0x00000000
RET_TRAP = 0x00030000
RET_ERRNO = 0x00050000
RET_TRACE = 0x7FF00000
RET_LOG = 0x7FFC0000
RET_ALLOW = 0x7FFF0000
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
# linux/bpf_common.h
LD_W_ABS, AND_K, RET_K, JA, JEQ, JGT, JGE = 0x20, 0x54, 0x06, 0x05, 0x15, 0x25, 0x35
# struct seccomp_data; every architecture served here is little-endian
NR, ARCH, ARGS = 0, 4, 16
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# linux/audit.h: what seccomp_data.arch says, and the number tables behind it
AUDIT_ARCH = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_TABLE = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}
_NARROW_ARCHES = ("SCMP_ARCH_X86", "SCMP_ARCH_ARM")
_NATIVE = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "i386": "SCMP_ARCH_X86",
    "i686": "SCMP_ARCH_X86",
    "armv6l": "SCMP_ARCH_ARM",
    "armv7l": "SCMP_ARCH_ARM",
    "armv8l": "SCMP_ARCH_ARM",
}
# Numbers that old ABIs keep apart from the ascending ones: they say nothing about "newest".
_APART = {"x32": (512, 548), "arm": (0xF0000, 0xF0010)}
# Arguments that the kernel takes as int or unsigned int: what is above bit 31 never reaches it.
_NARROW_ARGS = {
    "bpf": (0, 2),
    "clone": (0,),  # flags: lower_32_bits() in the kernel, on every version that has clone3
    "fcntl": (0, 1),
    "ioctl": (0, 1),
    "keyctl": (0,),
    "kill": (0, 1),
    "mknod": (1, 2),
    "mknodat": (0, 2, 3),
    "open": (1, 2),
    "openat": (0, 2, 3),
    "personality": (0,),
    "prctl": (0,),
    "seccomp": (0, 1),
    "setns": (0, 1),
    "setsockopt": (0, 1, 2, 4),
    "socket": (0, 1, 2),
    "socketpair": (0, 1, 2),
}
_FORMAT = b"dockpy seccomp 1\n"  # to be raised with every change of what this module emits


def program(seccomp: Seccomp, machine: str | None = None) -> bytes:
    """The filter for `machine` (uname's; this one when not given)."""
    machine = machine or _machine()
    native = _NATIVE.get(machine)
    if native is None:
        raise Unavailable(f"seccomp: no filters for {machine} yet; use seccomp=unconfined there")
    known = {native, *seccomp.architectures}
    code: list[Instruction] = [(LD_W_ABS, 0, 0, ARCH)]
    # The native architecture is tested first: it makes nearly all calls.
    for architecture in sorted(AUDIT_ARCH, key=lambda name: name != native):
        if architecture in known:
            body = [(LD_W_ABS, 0, 0, NR), *_search(_intervals(seccomp, architecture, known))]
            code += _unless_equal(AUDIT_ARCH[architecture], body)
    code.append((RET_K, 0, 0, RET_KILL_PROCESS))
    if len(code) > MAX_INSTRUCTIONS:
        raise InvalidParameter(
            f"seccomp: the profile needs {len(code)} instructions, "
            f"the kernel takes {MAX_INSTRUCTIONS}"
        )
    return struct.pack("<" + "HBBI" * len(code), *(field for line in code for field in line))


def _machine() -> str:
    """What this process runs on, also below `setarch i386`, where uname tells another story."""
    machine = os.uname().machine
    if struct.calcsize("P") == 8:
        return {"i686": "x86_64", "armv8l": "aarch64"}.get(machine, machine)
    return {"x86_64": "i686", "aarch64": "armv8l"}.get(machine, machine)


def flags(seccomp: Seccomp) -> int:
    """For seccomp(2). Without a word in the profile: SPEC_ALLOW, as runc (no slower branches)."""
    if seccomp.flags is None:
        return FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    return sum(FLAGS[name] for name in set(seccomp.flags))


def cached_program(seccomp: Seccomp, folder: str) -> bytes:
    """`program(seccomp)`, kept in `folder` by digest: 0.1 ms in place of 1 ms and the tables.

    The folder is made when missing, and the one that it is in, but no more: a store that was deleted
    does not come again by this. What is not ours alone (owner, mode), cut short or changed is
    not used: a filter is a boundary. A folder that cannot be written costs only the speed.
    """
    import hashlib
    import json

    key = hashlib.sha256(_FORMAT + _machine().encode())
    key.update(json.dumps(seccomp_to_json(seccomp), separators=(",", ":")).encode())
    path = os.path.join(folder, key.hexdigest() + ".bpf")
    if _ours(folder):
        kept = _read(path)
        if len(kept) > 32 and hashlib.sha256(kept[32:]).digest() == kept[:32]:
            return kept[32:]
    code = program(seccomp)
    try:
        for place in (os.path.dirname(folder), folder):
            if not os.path.isdir(place):
                os.mkdir(place, 0o700)
        if _ours(folder):
            files.write_atomic(path, hashlib.sha256(code).digest() + code, durable=False)
    except OSError:
        pass  # read-only or full: it is compiled again the next time
    return code


def _ours(folder: str) -> bool:
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return status.st_mode & 0o170077 == 0o040000 and status.st_uid == os.geteuid()


def _read(path: str) -> bytes:
    try:
        return files.read_bytes(path, 32 + 8 * MAX_INSTRUCTIONS)
    except (OSError, ValueError):
        return b""


def _unless_equal(value: int, body: list[Instruction]) -> list[Instruction]:
    """`body` when A is `value`, else what follows."""
    if len(body) <= 255:
        return [(JEQ, 0, len(body), value), *body]
    return [(JEQ, 1, 0, value), (JA, 0, 0, len(body)), *body]


def _search(intervals: Sequence[Interval]) -> list[Instruction]:
    """A binary search for A among `intervals`, which cover all numbers; every way ends in a RET."""
    if len(intervals) == 1:
        return intervals[0][1]
    if len(intervals) == 3 and intervals[0][1] == intervals[2][1]:
        first = intervals[1][0]
        if intervals[2][0] == first + 1:  # one call amid others: one test in place of two
            return _branch(JEQ, first, intervals[1][1], intervals[0][1])
    middle = len(intervals) // 2
    return _branch(
        JGE, intervals[middle][0], _search(intervals[middle:]), _search(intervals[:middle])
    )


def _branch(
    test: int, value: int, then: list[Instruction], otherwise: list[Instruction]
) -> list[Instruction]:
    if len(otherwise) <= 255:
        return [(test, len(otherwise), 0, value), *otherwise, *then]
    # Conditional jumps reach 255 instructions, JA any distance.
    return [(test, 0, 1, value), (JA, 0, 0, len(otherwise)), *otherwise, *then]


def _intervals(seccomp: Seccomp, architecture: str, known: Iterable[str]) -> list[Interval]:
    spans = _spans(seccomp, architecture)
    if architecture == "SCMP_ARCH_X86_64":
        # x32 calls come as x86-64 with a bit set in the number; ENOSYS is what a kernel without
        # x32 answers.
        if "SCMP_ARCH_X32" in known:
            spans += [(X32_BIT + first, code) for first, code in _spans(seccomp, "SCMP_ARCH_X32")]
        else:
            spans.append((X32_BIT, [(RET_K, 0, 0, RET_ERRNO | ENOSYS)]))
    merged: list[Interval] = []
    for first, code in spans:
        if not merged or merged[-1][1] != code:
            merged.append((first, code))
    return merged


def _spans(seccomp: Seccomp, architecture: str) -> list[Interval]:
    """From 0 up: what happens to each number; not yet merged where neighbours are alike."""
    table = numbers(_TABLE[architecture])
    apart = _APART.get(_TABLE[architecture], (1 << 32, 1 << 32))
    default = _ret(seccomp.default_action, seccomp.default_errno_ret)
    always: dict[int, int] = {}
    depending: dict[int, list[Instruction]] = {}
    newest = -1
    for call in seccomp.syscalls:
        action = _ret(call.action, call.errno_ret)
        for name in call.names:
            number = table.get(name)
            if number is None:
                continue
            if newest < number < apart[0]:
                newest = number
            if action == default:
                continue
            if call.args:
                narrow = range(6) if architecture in _NARROW_ARCHES else _NARROW_ARGS.get(name, ())
                depending.setdefault(number, []).extend(_when(call.args, narrow, action))
            else:
                always.setdefault(number, action)
    otherwise = [(RET_K, 0, 0, default)]
    codes = {number: [*code, *otherwise] for number, code in depending.items()}
    codes.update((number, [(RET_K, 0, 0, action)]) for number, action in always.items())
    unknown = otherwise
    if newest >= 0 and seccomp.default_action in _REFUSING:
        unknown = [(RET_K, 0, 0, RET_ERRNO | ENOSYS)]
    spans = []
    following = 0
    for number in sorted(codes):
        if number > following:
            spans += _gap(following, number, newest, apart, otherwise, unknown)
        spans.append((number, codes[number]))
        following = number + 1
    return spans + _gap(following, 1 << 32, newest, apart, otherwise, unknown)


def _gap(
    first: int,
    end: int,
    newest: int,
    apart: tuple[int, int],
    otherwise: list[Instruction],
    unknown: list[Instruction],
) -> list[Interval]:
    """Numbers from `first` to before `end` that no rule is about: the default, ENOSYS if newer."""
    cuts = ((0, otherwise), (newest + 1, unknown), (apart[0], otherwise), (apart[1], unknown))
    spans = []
    for (start, code), stop in zip(cuts, (newest + 1, *apart, 1 << 32)):
        start, stop = max(start, first), min(stop, end)
        if start < stop:
            spans.append((start, code))
    return spans


_REFUSING = frozenset(
    "SCMP_ACT_" + name for name in ("KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "ERRNO")
)
_PLAIN = {
    "SCMP_ACT_KILL": RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": RET_TRAP,
    "SCMP_ACT_LOG": RET_LOG,
    "SCMP_ACT_ALLOW": RET_ALLOW,
}


def _ret(action: str, errno: int | None) -> int:
    if action == "SCMP_ACT_ERRNO":
        return RET_ERRNO | (EPERM if errno is None else errno)
    if action == "SCMP_ACT_TRACE":
        return RET_TRACE | (EPERM if errno is None else errno)
    if action not in _PLAIN:
        raise InvalidParameter(f"seccomp: {action} is not served")
    return _PLAIN[action]


def _when(args: Sequence[Arg], narrow: Iterable[int], action: int) -> list[Instruction]:
    """RET `action` when `args` hold, else what follows."""
    indexes = [arg.index for arg in args]
    if len(set(indexes)) < len(indexes):
        return [line for arg in args for line in _when((arg,), narrow, action)]
    code: list[Instruction] = [(RET_K, 0, 0, action)]
    for arg in reversed(args):
        test = _test_32(arg) if arg.index in narrow else _test_64(arg)
        # A test's jumps to _FAIL leave the rule; _PASS and falling off its end go on with it.
        # One rule is at most 6 tests of 6 and a RET, so a byte reaches.
        last = len(test) - 1
        targets = {_FAIL: len(code), _PASS: 0}
        code = [
            (op, _target(jt, targets, last - i), _target(jf, targets, last - i), k)
            for i, (op, jt, jf, k) in enumerate(test)
        ] + code
    return code


_FAIL, _PASS = -1, -2


def _target(jump: int, targets: dict[int, int], left: int) -> int:
    return left + targets[jump] if jump in targets else jump


def _test_32(arg: Arg) -> list[Instruction]:
    low = arg.value & 0xFFFFFFFF
    load = (LD_W_ABS, 0, 0, ARGS + 8 * arg.index)
    if arg.op == "SCMP_CMP_MASKED_EQ":
        return [load, (AND_K, 0, 0, low), (JEQ, 0, _FAIL, arg.value_two & 0xFFFFFFFF)]
    test, jt, jf = _COMPARE_LOW[arg.op]
    return [load, (test, jt, jf, low)]


def _test_64(arg: Arg) -> list[Instruction]:
    high = arg.value >> 32
    load_high = (LD_W_ABS, 0, 0, ARGS + 8 * arg.index + 4)
    if arg.op == "SCMP_CMP_MASKED_EQ":
        if high == arg.value_two >> 32 == 0:
            return _test_32(arg)
        return [
            load_high,
            (AND_K, 0, 0, high),
            (JEQ, 0, _FAIL, arg.value_two >> 32),
            *_test_32(arg),
        ]
    if arg.op == "SCMP_CMP_EQ":
        return [load_high, (JEQ, 0, _FAIL, high), *_test_32(arg)]
    if arg.op == "SCMP_CMP_NE":
        return [load_high, (JEQ, 0, _PASS, high), *_test_32(arg)]
    if arg.op in ("SCMP_CMP_GT", "SCMP_CMP_GE"):
        return [load_high, (JGT, _PASS, 0, high), (JEQ, 0, _FAIL, high), *_test_32(arg)]
    return [load_high, (JGT, _FAIL, 0, high), (JEQ, 0, _PASS, high), *_test_32(arg)]


_COMPARE_LOW = {
    "SCMP_CMP_EQ": (JEQ, 0, _FAIL),
    "SCMP_CMP_NE": (JEQ, _FAIL, 0),
    "SCMP_CMP_GT": (JGT, 0, _FAIL),
    "SCMP_CMP_GE": (JGE, 0, _FAIL),
    "SCMP_CMP_LT": (JGE, _FAIL, 0),
    "SCMP_CMP_LE": (JGT, _FAIL, 0),
}
