"""Seccomp as values: the OCI form (`linux.seccomp`), and docker's profile format.

A *profile* is what a user writes and what docker ships: rules with conditions on capabilities,
architecture and kernel (`includes`, `excludes`). `resolve` decides them for one container and
gives `Seccomp`, the form of the OCI runtime specification, which `runtime.bpf` compiles.
No effects and no syscall numbers here; names that an architecture lacks are the compiler's matter.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dockpy.errors import InvalidParameter

_ACTIONS = "ALLOW ERRNO KILL KILL_PROCESS KILL_THREAD LOG NOTIFY TRACE TRAP"
ACTIONS = frozenset("SCMP_ACT_" + name for name in _ACTIONS.split())
_OPERATORS = "EQ GE GT LE LT MASKED_EQ NE"
OPERATORS = frozenset("SCMP_CMP_" + op for op in _OPERATORS.split())
_ARCHITECTURES = (
    "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 "
    "PPC64LE S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
)
ARCHITECTURES = frozenset("SCMP_ARCH_" + name for name in _ARCHITECTURES.split())
_FLAGS = "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV"
FLAGS = frozenset("SECCOMP_FILTER_FLAG_" + name for name in _FLAGS.split())
MAX_ERRNO = 4095  # the kernel clamps to it; what is larger was not meant
NATIVE: Mapping[str, str] = {
    "amd64": "SCMP_ARCH_X86_64",
    "x86": "SCMP_ARCH_X86",
    "arm64": "SCMP_ARCH_AARCH64",
    "arm": "SCMP_ARCH_ARM",
    "riscv64": "SCMP_ARCH_RISCV64",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
}
_OF_MACHINE = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "i386": "x86",
    "i486": "x86",
    "i586": "x86",
    "i686": "x86",
}


@dataclass(frozen=True)
class Arg:
    """One condition on argument `index`; MASKED_EQ: `(argument & value) == value_two`."""

    index: int
    value: int
    op: str
    value_two: int = 0


@dataclass(frozen=True)
class Syscall:
    """`action` for each of `names` when all of `args` hold; `errno_ret` None means EPERM."""

    names: tuple[str, ...]
    action: str
    args: tuple[Arg, ...] = ()
    errno_ret: int | None = None


@dataclass(frozen=True)
class Seccomp:
    """`linux.seccomp` of the OCI runtime specification. flags None: the runtime's own choice."""

    default_action: str
    architectures: tuple[str, ...] = ()
    syscalls: tuple[Syscall, ...] = ()
    default_errno_ret: int | None = None
    flags: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Condition:
    """What `includes` or `excludes` ask; `arches` are Go's names ("amd64")."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: tuple[int, int] | None = None


@dataclass(frozen=True)
class ProfileRule:
    syscall: Syscall
    includes: Condition = Condition()
    excludes: Condition = Condition()


@dataclass(frozen=True)
class Profile:
    """Docker's profile format. `arch_map`: native architecture → what may run beside it."""

    default_action: str
    default_errno_ret: int | None = None
    arch_map: tuple[tuple[str, tuple[str, ...]], ...] = ()
    architectures: tuple[str, ...] = ()
    rules: tuple[ProfileRule, ...] = ()
    flags: tuple[str, ...] | None = None


def go_arch(machine: str) -> str:
    """The name that profiles use for uname's `machine`."""
    return _OF_MACHINE.get(machine, machine)


def resolve(profile: Profile, caps: Collection[str], arch: str, kernel: tuple[int, int]) -> Seccomp:
    """What `profile` means for a container with the bounding set `caps` ("CAP_…") on this machine.

    `arch` is Go's name (`go_arch(uname)`). As docker: a rule goes when one of its excludes holds,
    and stays when all of its includes do.
    """
    architectures = profile.architectures
    native = NATIVE.get(arch)
    for main, others in profile.arch_map:
        if main == native:
            architectures = (main, *others)
            break
    return Seccomp(
        default_action=profile.default_action,
        architectures=architectures,
        syscalls=tuple(r.syscall for r in profile.rules if _applies(r, caps, arch, kernel)),
        default_errno_ret=profile.default_errno_ret,
        flags=profile.flags,
    )


def _applies(rule: ProfileRule, caps: Collection[str], arch: str, kernel: tuple[int, int]) -> bool:
    no, yes = rule.excludes, rule.includes
    if arch in no.arches or any(cap in caps for cap in no.caps):
        return False
    if no.min_kernel is not None and kernel >= no.min_kernel:
        return False
    return (
        (not yes.arches or arch in yes.arches)
        and all(cap in caps for cap in yes.caps)
        and (yes.min_kernel is None or kernel >= yes.min_kernel)
    )


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 1) of "6.1.0-28-amd64"."""
    parts = release.replace("-", ".").split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        raise InvalidParameter(f"seccomp: {release!r} is not a kernel version") from None


def parse_profile(text: str) -> Profile | None:
    """The profile in a --security-opt seccomp= value; None when it asks for nothing (as docker)."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: {error}") from None
    return profile_from_json(raw)


def profile_from_json(raw: object) -> Profile | None:
    fields = _object(raw, "seccomp profile")
    syscalls = _array(fields.get("syscalls"), "syscalls")
    if not fields.get("defaultAction") and not syscalls:
        return None
    _no_listener(fields)
    arch_map = tuple(_arch_map(entry) for entry in _array(fields.get("archMap"), "archMap"))
    architectures = _architectures(fields.get("architectures"))
    if arch_map and architectures:
        raise InvalidParameter(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    return Profile(
        default_action=_action(fields.get("defaultAction"), "defaultAction"),
        default_errno_ret=_errno(fields.get("defaultErrnoRet"), "defaultErrnoRet"),
        arch_map=arch_map,
        architectures=architectures,
        rules=tuple(_rule(entry) for entry in syscalls),
        flags=_flags(fields.get("flags")),
    )


def seccomp_from_json(raw: object) -> Seccomp:
    """`linux.seccomp` of an OCI config.json."""
    fields = _object(raw, "seccomp")
    _no_listener(fields)
    return Seccomp(
        default_action=_action(fields.get("defaultAction"), "defaultAction"),
        architectures=_architectures(fields.get("architectures")),
        syscalls=tuple(
            _syscall(_object(entry, "syscalls"))
            for entry in _array(fields.get("syscalls"), "syscalls")
        ),
        default_errno_ret=_errno(fields.get("defaultErrnoRet"), "defaultErrnoRet"),
        flags=_flags(fields.get("flags")),
    )


def seccomp_to_json(seccomp: Seccomp) -> dict[str, object]:
    result: dict[str, object] = {"defaultAction": seccomp.default_action}
    if seccomp.default_errno_ret is not None:
        result["defaultErrnoRet"] = seccomp.default_errno_ret
    if seccomp.architectures:
        result["architectures"] = list(seccomp.architectures)
    if seccomp.flags is not None:
        result["flags"] = list(seccomp.flags)
    result["syscalls"] = [_syscall_to_json(call) for call in seccomp.syscalls]
    return result


def _syscall_to_json(call: Syscall) -> dict[str, object]:
    result: dict[str, object] = {"names": list(call.names), "action": call.action}
    if call.errno_ret is not None:
        result["errnoRet"] = call.errno_ret
    if call.args:
        result["args"] = [
            {"index": a.index, "value": a.value, "valueTwo": a.value_two, "op": a.op}
            for a in call.args
        ]
    return result


def _no_listener(fields: Mapping[str, Any]) -> None:
    if fields.get("listenerPath"):
        raise InvalidParameter("seccomp: listenerPath is not served")


def _arch_map(raw: object) -> tuple[str, tuple[str, ...]]:
    fields = _object(raw, "archMap")
    return _architectures([fields.get("architecture")])[0], _architectures(
        fields.get("subArchitectures")
    )


def _rule(raw: object) -> ProfileRule:
    fields = _object(raw, "syscalls")
    if fields.get("name"):
        if fields.get("names"):
            raise InvalidParameter(
                "both 'name' and 'names' are specified in the seccomp profile, "
                "use either 'name' or 'names'"
            )
        fields = {**fields, "names": [fields["name"]]}
    return ProfileRule(
        _syscall(fields), _condition(fields.get("includes")), _condition(fields.get("excludes"))
    )


def _condition(raw: object) -> Condition:
    if raw is None:
        return Condition()
    fields = _object(raw, "includes or excludes")
    least = fields.get("minKernel")
    return Condition(
        caps=_texts(fields.get("caps"), "caps"),
        arches=_texts(fields.get("arches"), "arches"),
        min_kernel=kernel_version(least) if isinstance(least, str) and least else None,
    )


def _syscall(fields: Mapping[str, Any]) -> Syscall:
    return Syscall(
        names=_texts(fields.get("names"), "names"),
        action=_action(fields.get("action"), "action"),
        args=tuple(_arg(entry) for entry in _array(fields.get("args"), "args")),
        errno_ret=_errno(fields.get("errnoRet"), "errnoRet"),
    )


def _arg(raw: object) -> Arg:
    fields = _object(raw, "args")
    op = fields.get("op")
    if op not in OPERATORS:
        raise InvalidParameter(f"seccomp: {op!r} is not an operator (args.op)")
    return Arg(
        index=_number(fields.get("index", 0), "args.index", 5),
        value=_number(fields.get("value", 0), "args.value", (1 << 64) - 1),
        op=op,
        value_two=_number(fields.get("valueTwo", 0), "args.valueTwo", (1 << 64) - 1),
    )


def _action(raw: object, where: str) -> str:
    if raw == "SCMP_ACT_NOTIFY":
        raise InvalidParameter("seccomp: SCMP_ACT_NOTIFY is not served: it needs a listener")
    if not isinstance(raw, str) or raw not in ACTIONS:
        raise InvalidParameter(f"seccomp: {raw!r} is not an action ({where})")
    return raw


def _errno(raw: object, where: str) -> int | None:
    return None if raw is None else _number(raw, where, MAX_ERRNO)


def _architectures(raw: object) -> tuple[str, ...]:
    names = _texts(raw, "architectures")
    for name in names:
        if name not in ARCHITECTURES:
            raise InvalidParameter(f"seccomp: {name!r} is not an architecture")
    return names


def _flags(raw: object) -> tuple[str, ...] | None:
    if raw is None:
        return None
    names = _texts(raw, "flags")
    for name in names:
        if name not in FLAGS:
            raise InvalidParameter(f"seccomp: {name!r} is not a flag")
    return names


def _object(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise InvalidParameter(f"seccomp: an object was expected ({where})")
    return raw


def _array(raw: object, where: str) -> list[object]:
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise InvalidParameter(f"seccomp: an array was expected ({where})")
    return raw


def _texts(raw: object, where: str) -> tuple[str, ...]:
    values = _array(raw, where)
    for value in values:
        if not isinstance(value, str):
            raise InvalidParameter(f"seccomp: an array of strings was expected ({where})")
    return tuple(values)  # type: ignore[arg-type]  # all were just seen to be str


def _number(raw: object, where: str, most: int) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= most:
        raise InvalidParameter(f"seccomp: {raw!r} is not a number from 0 to {most} ({where})")
    return raw
