"""Docker's default seccomp policy, as a table.

The facts are those of seccomp/default.json of github.com/moby/profiles (Apache-2.0); a test holds
the two side by side. What is not named here is refused with EPERM.
"""

from __future__ import annotations

from dockpy.oci.seccomp import Arg, Condition, Profile, ProfileRule, Syscall

_ALLOWED = """\
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32
geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday
getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64
ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect
open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max
sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select
semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid
setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx
symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64
utimes vfork vmsplice wait4 waitid waitpid write writev
"""

_ARCH_MAP = (
    ("X86_64", "X86 X32"),
    ("AARCH64", "ARM"),
    ("MIPS64", "MIPS MIPS64N32"),
    ("MIPS64N32", "MIPS MIPS64"),
    ("MIPSEL64", "MIPSEL MIPSEL64N32"),
    ("MIPSEL64N32", "MIPSEL MIPSEL64"),
    ("S390X", "S390"),
    ("RISCV64", ""),
    ("LOONGARCH64", ""),
)
_ANY = Condition()


def _rule(
    names: str,
    *,
    action: str = "SCMP_ACT_ALLOW",
    errno_ret: int | None = None,
    arg: tuple[int, int, str] | None = None,
    only: Condition = _ANY,
    unless: Condition = _ANY,
) -> ProfileRule:
    args = () if arg is None else (Arg(arg[0], arg[1], "SCMP_CMP_" + arg[2]),)
    return ProfileRule(Syscall(tuple(names.split()), action, args, errno_ret), only, unless)


_CLONE_NAMESPACES = 0x7E020000  # CLONE_NEWNS and the other namespace flags: none may be set
_RULES = (
    _rule(_ALLOWED),
    _rule("process_vm_readv process_vm_writev ptrace", only=Condition(min_kernel=(4, 8))),
    _rule("socket", arg=(0, 0x26, "LT")),
    _rule("socket", arg=(0, 0x27, "EQ")),
    _rule("socket", arg=(0, 0x28, "GT")),
    _rule("personality", arg=(0, 0x0, "EQ")),
    _rule("personality", arg=(0, 0x8, "EQ")),
    _rule("personality", arg=(0, 0x20000, "EQ")),
    _rule("personality", arg=(0, 0x20008, "EQ")),
    _rule("personality", arg=(0, 0xFFFFFFFF, "EQ")),
    _rule("sync_file_range2 swapcontext", only=Condition(arches=("ppc64le",))),
    _rule(
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
        only=Condition(arches=("arm", "arm64")),
    ),
    _rule("arch_prctl", only=Condition(arches=("amd64", "x32"))),
    _rule("modify_ldt", only=Condition(arches=("amd64", "x32", "x86"))),
    _rule(
        "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
        only=Condition(arches=("s390", "s390x")),
    ),
    _rule("riscv_flush_icache", only=Condition(arches=("riscv64",))),
    _rule("open_by_handle_at", only=Condition(caps=("CAP_DAC_READ_SEARCH",))),
    _rule(
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie "
        "lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount "
        "open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog "
        "umount umount2 unshare",
        only=Condition(caps=("CAP_SYS_ADMIN",)),
    ),
    _rule(
        "clone",
        arg=(0, _CLONE_NAMESPACES, "MASKED_EQ"),
        unless=Condition(caps=("CAP_SYS_ADMIN",), arches=("s390", "s390x")),
    ),
    _rule(
        "clone",
        arg=(1, _CLONE_NAMESPACES, "MASKED_EQ"),
        only=Condition(arches=("s390", "s390x")),
        unless=Condition(caps=("CAP_SYS_ADMIN",)),
    ),
    _rule(
        "clone3", action="SCMP_ACT_ERRNO", errno_ret=38, unless=Condition(caps=("CAP_SYS_ADMIN",))
    ),
    _rule("reboot", only=Condition(caps=("CAP_SYS_BOOT",))),
    _rule("chroot", only=Condition(caps=("CAP_SYS_CHROOT",))),
    _rule("delete_module init_module finit_module", only=Condition(caps=("CAP_SYS_MODULE",))),
    _rule("acct", only=Condition(caps=("CAP_SYS_PACCT",))),
    _rule(
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
        only=Condition(caps=("CAP_SYS_PTRACE",)),
    ),
    _rule("iopl ioperm", only=Condition(caps=("CAP_SYS_RAWIO",))),
    _rule(
        "settimeofday stime clock_settime clock_settime64", only=Condition(caps=("CAP_SYS_TIME",))
    ),
    _rule("vhangup", only=Condition(caps=("CAP_SYS_TTY_CONFIG",))),
    _rule(
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        only=Condition(caps=("CAP_SYS_NICE",)),
    ),
    _rule("syslog", only=Condition(caps=("CAP_SYSLOG",))),
    _rule("bpf", only=Condition(caps=("CAP_BPF",))),
    _rule("perf_event_open", only=Condition(caps=("CAP_PERFMON",))),
)


def default_profile() -> Profile:
    return Profile(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=1,
        arch_map=tuple(
            ("SCMP_ARCH_" + main, tuple("SCMP_ARCH_" + sub for sub in subs.split()))
            for main, subs in _ARCH_MAP
        ),
        rules=_RULES,
    )
