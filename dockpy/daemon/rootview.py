"""A container's file tree as a descriptor of its root, for the archive calls.

A running container's is the root of its own mount namespace, with all that is mounted there; a stopped
one's is assembled in a namespace that exists for this view only. Either is entered by a thread born for
it, which opens the root O_PATH and ends: nothing of ours ever looks a name up inside, but beneath that
descriptor, and nothing from inside is ever loaded or run (CVE-2018-15664, CVE-2019-14271). The
namespace is kept by a second descriptor, so that the mounts stay when the container ends meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from dockpy import ids
from dockpy.errors import Conflict, DockpyError
from dockpy.linux.namespaces import CLONE_FS, CLONE_NEWNS, setns, unshare
from dockpy.oci.spec import Mount, Root
from dockpy.runtime.errors import SetupError
from dockpy.runtime.mounts import Powers, mount_in_root
from dockpy.runtime.namespaces import open_of_process
from dockpy.runtime.rootfs import mount_root, seal_root, stop_propagation

_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# Binds only: none of these has a say in them.
_POWERS = Powers(initial=False, nodev=False, tty_group=False, host_pid=False, joins_pid=False)


class RootView:
    """`root` is the O_PATH descriptor; both are this view's, until `with` ends."""

    def __init__(self, root: int, namespace: int) -> None:
        self.root = root
        self._namespace = namespace

    def __enter__(self) -> RootView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.root)
        os.close(self._namespace)


def of_running(pid: int, started: int) -> RootView:
    """The tree that process `pid` (started at `started` ticks) sees. Conflict: it has ended."""
    try:
        namespace = open_of_process(pid, "mnt")
    except FileNotFoundError:
        raise Conflict("the container has just ended") from None
    try:
        # The pid may be somebody else's by now.
        if started and not ids.alive(pid, started):
            raise Conflict("the container has just ended")

        def enter() -> int:
            unshare(CLONE_FS)
            # Not /proc/<pid>/root: the container may have changed its own root (chroot).
            setns(namespace, CLONE_NEWNS)
            return os.open("/", _ROOT)

        return RootView(_in_a_thread(enter), namespace)
    except BaseException:
        os.close(namespace)
        raise


def of_stopped(place: str, root: Mount, mounts: Sequence[Mount], *, readonly: bool) -> RootView:
    """`root` mounted at the folder `place`, with `mounts` (binds) in it; nobody else sees it."""
    kept: list[int] = []

    def enter() -> int:
        unshare(CLONE_NEWNS)
        kept.append(os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        stop_propagation()
        fd = mount_root(Root(place), place, root, nodev=False)
        for mount in mounts:
            mount_in_root(fd, mount, _POWERS)
        if readonly:
            seal_root(fd)
        return fd

    try:
        return RootView(_in_a_thread(enter), kept[0])
    except SetupError as error:
        _close(kept)
        raise DockpyError(str(error)) from None
    except BaseException:
        _close(kept)
        raise


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _in_a_thread(enter: Callable[[], int]) -> int:
    """What `enter` returns in a thread of its own, which no other code ever runs in."""
    done: list[int] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(enter())
        except BaseException as error:  # raised again by who asked
            failed.append(error)

    thread = threading.Thread(target=run, name="rootview")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
