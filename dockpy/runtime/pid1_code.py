"""pid 1 of `--init` without an interpreter: what runtime.pid1 does, as 168 bytes of x86-64.

`program` makes an ELF file of it, with the pid of the child to follow. Why it is worth it: a
Python that waits costs 2.3 MB of its own and shows the container what it is made of; this costs a
page and shows itself. A test assembles SOURCE and compares.
"""

from __future__ import annotations

import struct

SOURCE = """\
_start:
    movl $157, %eax             # prctl(PR_SET_NAME, name)
    movl $15, %edi
    leaq name(%rip), %rsi
    syscall
    pushq %rax                  # room for a status
next:
    movl $128, %eax             # rt_sigtimedwait(&mask, NULL, NULL, 8)
    leaq mask(%rip), %rdi
    xorl %esi, %esi
    xorl %edx, %edx
    movl $8, %r10d
    syscall
    xorl %edx, %edx             # a filter may refuse it: then wait4 blocks
    cmpl $-4, %eax              # EINTR
    je next
    testl %eax, %eax
    js reap
    incl %edx                   # WNOHANG
    cmpl $17, %eax              # SIGCHLD
    je reap
    movl %eax, %esi             # kill(child, signal)
    movl child(%rip), %edi
    movl $62, %eax
    syscall
    jmp next
reap:
    movl $61, %eax              # wait4(-1, &status, options, NULL)
    orl $-1, %edi
    movq %rsp, %rsi
    xorl %r10d, %r10d
    syscall
    cmpl $-4, %eax
    je reap
    movl $125, %edi
    testl %eax, %eax
    jz next
    js end                      # no child, or the filter refuses this too
    cmpl child(%rip), %eax
    jne reap
    movl (%rsp), %eax
    movl %eax, %edi
    andl $127, %edi
    jz exited
    subl $-128, %edi
    jmp end
exited:
    movzbl %ah, %edi
end:
    movl $231, %eax             # exit_group
    syscall
name: .asciz "docker-init"
mask: .quad 0
child: .long 0
"""
CODE = bytes.fromhex(
    "b89d000000bf0f000000488d357f0000000f0550b880000000488d3d7c00000031f631d241ba080000000f05"
    "31d283f8fc74e185c07818ffc283f811741189c68b3d5e000000b83e0000000f05ebc5b83d00000083cfff48"
    "89e64531d20f0583f8fc74ebbf7d00000085c074a7781a3b052f00000075d88b042489c783e77f740583ef80"
    "eb030fb6fcb8e70000000f05646f636b65722d696e697400000000000000000000000000"
)
_MASK, _CHILD = len(CODE) - 12, len(CODE) - 4
_ADDRESS = 0x400000
_HEADERS = 64 + 56


def program(child: int, waited: int) -> bytes:
    """An ELF executable that follows `child`; `waited`: the mask of the signals to wait for."""
    code = CODE[:_MASK] + struct.pack("<Qi", waited, child)
    size = _HEADERS + len(code)
    header = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, 0),  # 64 bits, little-endian, version 1, System V
        *(2, 62, 1),  # executable, x86-64
        *(_ADDRESS + _HEADERS, 64, 0),  # entry, program headers, no sections
        *(0, 64, 56, 1, 0, 0, 0),
    )
    # Read and execute: nothing of it is ever written to; the stack is the kernel's.
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    return header + load + code
