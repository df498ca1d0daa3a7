"""The kernel as functions: the only ctypes of dockpy. One module a topic, wrappers bear the
call's name.

Every prototype is set once, beside its handle; a negative result becomes OSError with the errno
and, where there is one, the path. Constants carry their kernel names. Nothing here knows what a
container is, and nothing here imports anything else of dockpy.

What is missing below a kernel's version raises OSError(ENOSYS); who calls decides what is lost:

  call            since   without it
  openat2         5.6     beneath walks with O_PATH|O_NOFOLLOW, component by component
  open_tree,      5.2     mount(2) through /proc/self/fd/N
  move_mount
  mount_setattr   5.12    recursive read-only mount by mount, from mountinfo
  pidfd_open      5.3     no pidfd: callers wait by pid
  close_range     5.9     /proc/self/fd is listed (its CLOEXEC flag: 5.11)
  setns(pidfd)    5.8     one namespace file after the other
  TIOCGPTPEER     4.13    (below the floor of 4.18)
"""
