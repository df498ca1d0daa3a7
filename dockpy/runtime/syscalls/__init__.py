"""System call numbers by architecture: facts of the kernel's own tables (6.18), as data.

`NAMES` of each module lists names in the order of their numbers; a number among them says where
the next name stands. From 424 on every architecture has the same numbers, which stand here once.
A module is imported when its architecture is asked for.
"""

from __future__ import annotations

import importlib

X32_BIT = 0x40000000
_FIRST_COMMON = 424
_COMMON = """\
pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen
fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2
process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule
landlock_restrict_self memfd_secret process_mrelease futex_waitv set_mempolicy_home_node
cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat
removexattrat open_tree_attr file_getattr file_setattr listns
"""
_LACKING = {"arm": ("memfd_secret",)}


def numbers(architecture: str) -> dict[str, int]:
    """Name → number on x86_64, x32 (without X32_BIT), i386, aarch64 or arm."""
    module = importlib.import_module(f"{__name__}.{architecture}")
    result: dict[str, int] = {}
    number = 0
    for word in f"{module.NAMES} {_FIRST_COMMON} {_COMMON}".split():
        if word.isdigit():
            number = int(word)
        else:
            result[word] = number
            number += 1
    for name in _LACKING.get(architecture, ()):
        del result[name]
    return result
