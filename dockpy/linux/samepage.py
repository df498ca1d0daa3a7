"""Same-page merging by ourselves: forks that do the same in turn share what they have written.

A page that a fork writes to is its own from then on, though most end as in every other fork that has
done the same: reference counts come back, the same objects lie at the same places. The kernel merges
such pages (ksm) only where root has switched it on. Here one fork records its memory in a sealed file;
the parent lays its own memory over a private mapping of that file, so that each later fork can drop
a page of its own whose content is the file's.

Nobody may write to memory while it is exchanged, so the exchange is 207 bytes of x86-64. For each step
(a piece of memory and a system call) it saves the piece, does the call, and writes back the pages that
are not as before: whatever the call and the file do, memory reads as it did. For single-threaded
processes. A test assembles SOURCE and compares.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct

from dockpy.linux.libc import MACHINE, prototype, raise_errno

SOURCE = """\
samepage:                       # %rdi: count, saved, ~0, room; then the steps
    pushq %rbx
    pushq %rbp
    pushq %r12
    movq %rdi, %rbx
    movl $14, %eax              # rt_sigprocmask(SIG_BLOCK, &all, &old, 8)
    xorl %edi, %edi
    leaq 16(%rbx), %rsi
    leaq 24(%rbx), %rdx
    movl $8, %r10d
    syscall
    leaq 32(%rbx), %rbp
    movq (%rbx), %r12
next:
    decq %r12
    js end
    movl $27, %eax              # mincore(start, length, saved)
    movq (%rbp), %rdi
    movq 8(%rbp), %rsi
    movq 8(%rbx), %rdx
    syscall
    testl %eax, %eax
    jnz skip                    # not mapped any more
    movq (%rbp), %rsi
    movq 8(%rbx), %rdi
    movq 8(%rbp), %rcx
    shrq $3, %rcx
    rep movsq
    movq 16(%rbp), %rax         # the step's own system call
    movq 24(%rbp), %rdi
    movq 32(%rbp), %rsi
    movq 40(%rbp), %rdx
    movq 48(%rbp), %r10
    movq 56(%rbp), %r8
    movq 64(%rbp), %r9
    syscall
    movq (%rbp), %rdi
    movq 8(%rbx), %rsi
    movq 8(%rbp), %r8
    shrq $12, %r8
page:
    movq %rdi, %rdx
    movq %rsi, %r9
    movl $512, %ecx
    repe cmpsq
    je same
    movq %rdx, %rdi
    movq %r9, %rsi
    movl $512, %ecx
    rep movsq
same:
    decq %r8
    jnz page
skip:
    addq $72, %rbp
    jmp next
end:
    movl $14, %eax              # rt_sigprocmask(SIG_SETMASK, &old, NULL, 8)
    movl $2, %edi
    leaq 24(%rbx), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    syscall
    popq %r12
    popq %rbp
    popq %rbx
    ret
"""
CODE = bytes.fromhex(
    "535541544889fbb80e00000031ff488d7310488d531841ba080000000f05488d6b204c8b2349ffcc0f888400"
    "0000b81b000000488b7d00488b7508488b53080f0585c07564488b7500488b7b08488b4d0848c1e903f348a5"
    "488b4510488b7d18488b7520488b55284c8b55304c8b45384c8b4d400f05488b7d00488b73084c8b450849c1"
    "e80c4889fa4989f1b900020000f348a7740e4889d74c89ceb900020000f348a549ffc875dd4883c548e973ff"
    "ffffb80e000000bf02000000488d731831d241ba080000000f05415c5d5bc3"
)
_MMAP, _PWRITE, _MADVISE = 9, 18, 28
MAP_FIXED = 0x10
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
PAGE = 4096
SMALLEST = 64 << 10  # of a mapping that is worth it: the allocators', not each library's
_HEAD, _STEP = struct.Struct("=4Q"), struct.Struct("=9Q")
_STEPS = 128 << 10  # bytes for them, before those for saved pages
_MOST_STEPS = (_STEPS - _HEAD.size) // _STEP.size
# The highest of a page's eight bytes in pagemap (proc(5)): present, not of a file, mapped by us alone.
_OWN = bytes(value == 0x81 for value in range(256))


class Samepage:
    """Of this process and its forks, by what is mapped when it is made. In this order: a fork calls
    `record`, this process `adopt`, and later forks `merge`, whenever they like.

    Raises OSError where that cannot be.
    """

    def __init__(self) -> None:
        if MACHINE != "x86_64" or mmap.PAGESIZE != PAGE:
            raise OSError(errno.ENOSYS, f"not made for {MACHINE}")
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._code = mmap.mmap(-1, PAGE, private)
        self._code.write(CODE)
        address = _address(self._code)
        mprotect = prototype("mprotect", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if mprotect(address, PAGE, mmap.PROT_READ | mmap.PROT_EXEC) < 0:
            raise_errno()
        self._exchange = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(address)
        self._pieces = _pieces()
        # Made after the pieces were found, so that it is in none of them.
        self._room = mmap.mmap(
            -1, _STEPS + max((size for _, size, _ in self._pieces), default=0), private
        )
        self._view = memoryview(self._room)
        self._address = _address(self._room)
        self.file = os.memfd_create("dockpy-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.file, sum(size for _, size, _ in self._pieces))

    def _run(self, steps: list[tuple[int, ...]]) -> None:
        """Each: a piece's start and length, the number and the six arguments of a system call."""
        del steps[_MOST_STEPS:]
        _HEAD.pack_into(self._view, 0, len(steps), self._address + _STEPS, (1 << 64) - 1, 0)
        at = _HEAD.size
        for step in steps:
            _STEP.pack_into(self._view, at, *step)
            at += _STEP.size
        self._exchange(self._address)
        self._room.madvise(mmap.MADV_DONTNEED)

    def record(self) -> None:
        """Writes the memory of this fork to the file."""
        drops = self._drops()  # for the traces that a merge has left when it comes to compare
        self._run(
            [
                (start, size, _PWRITE, self.file, start, size, offset, 0, 0)
                for start, size, offset in self._pieces
            ]
        )
        del drops

    def adopt(self) -> None:
        """Lays the file below this process's memory, and closes it: nobody writes to it any more."""
        fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, SEALS)
        access, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | MAP_FIXED
        self._run(
            [
                (start, size, _MMAP, start, size, access, flags, self.file, offset)
                for start, size, offset in self._pieces
            ]
        )
        os.close(self.file)

    def merge(self) -> None:
        """Drops the pages of this fork's own that are the file's, word by word. Takes some 2 ms."""
        self._run(self._drops())

    def _drops(self) -> list[tuple[int, ...]]:
        steps: list[tuple[int, ...]] = []
        try:
            pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return steps  # no descriptor to be had: it stays as it is
        for start, size, _ in self._pieces:
            count = os.preadv(pagemap, [self._view[: size // PAGE * 8]], start // PAGE * 8)
            own = bytes(self._view[7:count:8]).translate(_OWN) + b"\0"
            begin = own.find(1)
            while begin >= 0:
                end = own.find(0, begin)
                where, length = start + begin * PAGE, (end - begin) * PAGE
                steps.append((where, length, _MADVISE, where, length, mmap.MADV_DONTNEED, 0, 0, 0))
                begin = own.find(1, end)
        os.close(pagemap)
        return steps


def _address(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def _pieces() -> list[tuple[int, int, int]]:
    """Start, size and place in the file of what an interpreter writes to, but for the stack."""
    found: list[tuple[int, int, int]] = []
    offset = 0
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            words = line.split()
            start, end = (int(word, 16) for word in words[0].split(b"-"))
            if words[1] == b"rw-p" and end - start >= SMALLEST and words[-1] != b"[stack]":
                found.append((start, end - start, offset))
                offset += end - start
    return found
